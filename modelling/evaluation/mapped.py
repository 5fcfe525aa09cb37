"""Evaluate a model folder on a folder of mapped tables that holds outcomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from modelling.baselines.clinical_scores import CLINICAL_SCORES
from modelling.baselines.summaries import observed_tokens
from modelling.cohorts.cardiovascular import CLASSES, cardiovascular_samples
from modelling.cohorts.labels import Facts
from modelling.cohorts.tasks import get_task
from modelling.cohorts.training import training_samples
from modelling.errors import CohortError, EvaluationError
from modelling.evaluation.evaluate import Evaluation, evaluate
from modelling.evaluation.subgroups import sample_groups
from modelling.scoring import ScoringModel, score_samples
from validation.contracts import empty

Watcher = Callable[[str, int, int], None]
SHARDED = ("events", "recordings", "images")


@dataclass(frozen=True, kw_only=True)
class MappedFolder:
    """Contract tables of a folder; a table that the folder lacks is empty, those with None may be None.

    ``findings`` are what machines said of recordings; ``diagnoses``, ``procedures``, ``suspicions`` (of
    infection), ``supports`` (of organs) and ``image_labels`` serve as labels alone, since they are known
    afterwards.
    """

    root: Path
    encounters: pl.DataFrame
    outcomes: pl.DataFrame
    events: pl.DataFrame
    recordings: pl.DataFrame
    images: pl.DataFrame
    samples: pl.DataFrame | None
    findings: pl.DataFrame | None = None
    diagnoses: pl.DataFrame | None = None
    procedures: pl.DataFrame | None = None
    suspicions: pl.DataFrame | None = None
    supports: pl.DataFrame | None = None
    image_labels: pl.DataFrame | None = None


@dataclass(frozen=True, kw_only=True)
class LabelledCohort:
    """Labelled samples of a task.

    Attributes
    ----------
    samples
        Rows of that contract.
    labels
        Of a multi-label task: keys and one Boolean column a label.
    classes
        Names of the classes of a multi-class task; ``float_value`` is their number.
    """

    samples: pl.DataFrame
    labels: pl.DataFrame | None = None
    classes: tuple[str, ...] = ()


def read_mapped(root: Path) -> MappedFolder:
    """Read a folder such as ``nightingale map-physionet2012`` or ``map-mimic`` writes.

    Raises
    ------
    EvaluationError
        If encounters or events are missing.
    """

    def table(name: str) -> pl.DataFrame:
        path = root / f"{name}.parquet"
        return pl.read_parquet(path) if path.is_file() else empty(name)

    def shards(name: str) -> pl.DataFrame:
        paths = sorted((root / name).glob("*.parquet"))
        return pl.concat([pl.read_parquet(path) for path in paths]) if paths else table(name)

    def optional(name: str) -> pl.DataFrame | None:
        path = root / f"{name}.parquet"
        return pl.read_parquet(path) if path.is_file() else None

    if not (root / "encounters.parquet").is_file():
        raise EvaluationError(f"{root} holds no encounters.parquet; give a folder of mapped tables")
    parts = {name: shards(name) for name in SHARDED}
    if parts["events"].is_empty() and parts["recordings"].is_empty() and parts["images"].is_empty():
        raise EvaluationError(f"{root} holds no event, recording or image")
    return MappedFolder(
        root=root,
        encounters=table("encounters"),
        outcomes=table("outcomes"),
        samples=optional("samples"),
        findings=optional("findings"),
        diagnoses=optional("diagnoses"),
        procedures=optional("procedures"),
        suspicions=optional("suspicions"),
        supports=optional("supports"),
        image_labels=optional("image_labels"),
        **parts,
    )


def labelled_cohort(folder: MappedFolder, task: str) -> LabelledCohort:
    """Return the folder's labelled samples of a task, made from its outcomes if it has none.

    Raises
    ------
    EvaluationError
        If there is none.
    CohortError
        If the task is unknown, or needs a table that the folder lacks.
    """
    asked = get_task(task)
    stored = folder.samples
    if stored is not None and not stored.filter(pl.col("task") == task).is_empty():
        found = LabelledCohort(samples=stored.filter(pl.col("task") == task))
    elif asked.label == "cardiovascular":
        if folder.diagnoses is None:
            raise CohortError(f"task {task!r} needs the table of diagnoses")
        made = cardiovascular_samples(
            folder.recordings, folder.encounters, folder.diagnoses, folder.procedures
        )
        found = LabelledCohort(samples=made.samples, classes=CLASSES)
    else:
        facts = Facts(
            events=folder.events,
            diagnoses=folder.diagnoses,
            suspicions=folder.suspicions,
            supports=folder.supports,
        )
        # A stay without any value is counted as skipped by the scoring, not left out of the cohort.
        asked = replace(asked, needs_value=False)
        made = training_samples(folder.encounters, folder.outcomes, task=asked, facts=facts)
        found = LabelledCohort(samples=made.samples, labels=made.labels)
    if found.labels is None:
        labelled = pl.col("boolean_value").is_not_null() | pl.col("float_value").is_not_null()
        found = replace(found, samples=found.samples.filter(labelled))
    if found.samples.is_empty():
        raise EvaluationError(f"{folder.root} holds no labelled sample of task {task!r}")
    return found


def evaluate_folder(
    model: ScoringModel,
    folder: MappedFolder,
    *,
    resamples: int = 1000,
    seed: int = 0,
    clinical_scores: bool = True,
    progress: Watcher | None = None,
) -> tuple[Evaluation, pl.DataFrame]:
    """Score a folder's labelled samples as at night and evaluate the scores.

    Parameters
    ----------
    model
        From :func:`modelling.scoring.load_model`.
    folder
        From :func:`read_mapped`.
    clinical_scores
        Compare with NEWS2, MEWS and the SOFA-like score on the same samples.

    Returns
    -------
    evaluation, scores
        ``scores`` is the contract's table. Samples that could not be scored are counted by reason in
        ``evaluation.skipped`` and are not part of any metric.
    """
    samples = labelled_cohort(folder, model.task).samples
    scores, skipped = score_samples(
        model,
        samples=samples,
        encounters=folder.encounters,
        events=folder.events,
        recordings=folder.recordings,
        images=folder.images,
        run_folder=folder.root,
        site="evaluation",
        progress=progress,
        explain=False,
    )
    if scores.is_empty():
        raise EvaluationError("no sample could be scored")
    keys = ["encounter_id", "prediction_time"]
    joined = samples.join(
        scores.select(*keys, "probability", "value"), on=keys, how="inner", maintain_order="left"
    )
    used = joined.select(samples.columns)
    regression = get_task(model.task).kind == "regression"
    label = joined["float_value" if regression else "boolean_value"].cast(pl.Float64).to_numpy()
    predicted = joined["value" if regression else "probability"].to_numpy()
    others: Mapping[str, NDArray[np.float64]] = {}
    if clinical_scores and not regression:
        tokens = observed_tokens(used, folder.events)
        others = {name: score(tokens, rows=used.height).total for name, score in CLINICAL_SCORES.items()}
    reasons = skipped.group_by("reason").len().sort("reason")
    evaluation = evaluate(
        label,
        predicted,
        task=model.task,
        model=f"{model.name} {model.digest[:12]}",
        kind="regression" if regression else "classification",
        groups=sample_groups(used, folder.encounters, scores),
        subjects=used["subject_id"].to_numpy(),
        others=others,
        skipped=dict(reasons.iter_rows()),
        resamples=resamples,
        seed=seed,
    )
    return evaluation, scores
