"""The data of a retraining: mapped tables, labelled samples, splits, and whether they may be trained on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from deploy.errors import DeployError
from deploy.retraining.job import Retraining
from deploy.settings import Settings
from modelling.catalogue import load_catalogue
from modelling.cohorts.labels import Facts
from modelling.cohorts.splits import HELD_OUT, TRAIN, TUNING, split_subjects
from modelling.cohorts.tasks import get_task
from modelling.cohorts.training import Mode, training_samples
from modelling.evaluation.mapped import MappedFolder, labelled_cohort, read_mapped
from modelling.registry.leaks import as_dicts, find_leaks
from validation.contracts import file_digest, write_json, write_table
from validation.contracts.store import check_table
from validation.errors import ContractError
from validation.rules import judge_events

BOOSTING = "boosting"
"""The baseline that is trained beside every candidate."""
FINGERPRINTED = (
    "encounters", "outcomes", "events", "recordings", "images", "samples", "diagnoses", "suspicions",
)  # fmt: skip


class DataRefused(DeployError):  # noqa: N818 - the data were refused; the program did its work
    """The data do not allow a training; the message says what is missing."""


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """What one task is trained and judged on.

    Attributes
    ----------
    tables
        Mapped tables.
    samples
        With labels.
    split
        Subject to ``train``, ``tuning`` or ``held_out``; a patient keeps it in every later retraining, so that
        no champion was trained on the patients that a later candidate is compared on.
    """

    tables: MappedFolder
    samples: pl.DataFrame
    split: dict[int, str]

    def part(self, name: str) -> pl.DataFrame:
        """Return the samples of a split, in a fixed order."""
        subjects = [subject for subject, where in self.split.items() if where == name]
        return self.samples.filter(
            pl.col("subject_id").is_in(pl.Series(subjects, dtype=pl.Int64).implode())
        ).sort("subject_id", "prediction_time", "encounter_id")


def read_tables(job: Retraining) -> MappedFolder:
    """Return the mapped tables: those that were given, or those that the night's steps made of FHIR.

    Raises
    ------
    DataRefused
        If a given file is no table.
    ManifestError
        If a table that was made here is not as it was written.
    """
    if job.mapped is not None:
        try:
            return read_mapped(Path(job.mapped))
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataRefused(
                f"a file of {Path(job.mapped).name!r} cannot be read as a table ({type(error).__name__})"
            ) from error
    run = job.run
    return MappedFolder(
        root=run.path,
        encounters=run.load("encounters"),
        outcomes=run.load("outcomes"),
        events=run.load_all("events", "events/*"),
        recordings=run.load_all("recordings", "recordings/*"),
        images=run.load_all("images", "images/*"),
        samples=None,
    )


def fingerprint(job: Retraining) -> str:
    """Return one digest of all training tables."""
    root = Path(job.mapped) if job.mapped is not None else job.run.path
    digest = hashlib.sha256()
    for name in FINGERPRINTED:
        for path in sorted([*root.glob(f"{name}.parquet"), *root.glob(f"{name}/*.parquet")]):
            digest.update(f"{path.relative_to(root)}|{file_digest(path)}\n".encode())
    return digest.hexdigest()


def tasks_of(settings: Settings) -> list[str]:
    """Return the tasks to train for."""
    return list(settings.retraining.tasks or (settings.night.task,))


def build_cohorts(settings: Settings, job: Retraining) -> list[dict[str, str]]:
    """Label, split and search the data of each task; return one job a model to train.

    Raises
    ------
    DataRefused
        If a table is empty, rows break the catalogue's limits, or a split lacks events.
    """
    tables = read_tables(job)
    _check_tables(tables)
    version = {"version": job.version, "fingerprint": fingerprint(job)}
    write_json(version, job.path / "data.json")
    jobs = []
    for name in tasks_of(settings):
        task = get_task(name)
        if task.kind != "binary":
            raise DataRefused(f"task {name!r} is {task.kind}: promotion compares probabilities of one event")
        folder = job.path / "cohorts" / name
        samples = label_samples(settings, tables, name, folder)
        split = split_subjects(
            samples["subject_id"].to_list(), fractions=_fractions(settings), seed=settings.retraining.seed
        )
        data = TaskData(tables=tables, samples=samples, split=dict(split.iter_rows()))
        _check_splits(name, data)
        leaks = find_leaks(
            pl.concat([data.part(TRAIN), data.part(TUNING)]),
            tables.events,
            recordings=tables.recordings,
            images=tables.images,
            highest_auroc=settings.promotion.highest_feature_auroc,
        )
        write_table(samples, "samples", folder / "samples.parquet")
        split.write_parquet(folder / "split.parquet")
        write_json({"leaks": as_dicts(leaks)}, folder / "leaks.json")
        jobs += [{"task": name, "model": model} for model in (*settings.retraining.models, BOOSTING)]
    return jobs


def label_samples(settings: Settings, tables: MappedFolder, name: str, folder: Path) -> pl.DataFrame:
    """Return the labelled samples of a task; where they are made here, their attrition is kept too."""
    if tables.samples is not None:
        return labelled_cohort(tables, name).samples.drop_nulls("boolean_value")
    mode: Mode | None = "landmark" if settings.retraining.times == "nights" else None
    facts = Facts(events=tables.events, diagnoses=tables.diagnoses, suspicions=tables.suspicions)
    cohort = training_samples(
        tables.encounters,
        tables.outcomes,
        task=get_task(name),
        mode=mode,
        clock=settings.night.prediction_at,
        zone=settings.site.time_zone,
        facts=facts,
    )
    folder.mkdir(parents=True, exist_ok=True)
    cohort.attrition.write_csv(folder / "attrition.csv")
    return cohort.samples.drop_nulls("boolean_value")


def read_task(job: Retraining, task: str) -> TaskData:
    """Read what :func:`build_cohorts` left of a task.

    Raises
    ------
    DataRefused
        If the tables are not those that were judged there any more.
    """
    judged = json.loads((job.path / "data.json").read_text("utf-8"))["fingerprint"]
    if fingerprint(job) != judged:
        raise DataRefused("the tables changed after they were judged; start the retraining again")
    folder = job.path / "cohorts" / task
    return TaskData(
        tables=read_tables(job),
        samples=pl.read_parquet(folder / "samples.parquet"),
        split=dict(pl.read_parquet(folder / "split.parquet").iter_rows()),
    )


def read_leaks(job: Retraining, task: str) -> list[dict[str, Any]]:
    """Return the inputs that gave the label away."""
    found: list[dict[str, Any]] = json.loads((job.path / "cohorts" / task / "leaks.json").read_text("utf-8"))[
        "leaks"
    ]
    return found


def _fractions(settings: Settings) -> dict[str, float]:
    held, tuning = settings.retraining.held_out_share, settings.retraining.tuning_share
    return {TRAIN: 1.0 - held - tuning, TUNING: tuning, HELD_OUT: held}


def _check_tables(tables: MappedFolder) -> None:
    for name in ("encounters", "outcomes", "events"):
        table = getattr(tables, name)
        if table.is_empty():
            raise DataRefused(f"table {name} is empty: there is nothing to train on")
        try:
            check_table(table, name)
        except ContractError as error:
            raise DataRefused(f"table {name} breaks its contract: {error}") from error
    refused = judge_events(tables.events, load_catalogue().limits()).quarantine.height
    if refused:
        raise DataRefused(f"{refused} events break the catalogue's rules; map the data again")


def _check_splits(task: str, data: TaskData) -> None:
    for name in (TRAIN, TUNING, HELD_OUT):
        labels = data.part(name)["boolean_value"]
        if not labels.any() or labels.all():
            raise DataRefused(
                f"task {task!r}: {labels.len()} samples in split {name!r} are all of one class; more stays are needed"
            )
