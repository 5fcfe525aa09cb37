"""Judging the candidates of one task: on held-out patients, beside champion, boosting and bedside scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from deploy.champion import champion_folder, open_registry, promotion_rules
from deploy.errors import DeployError
from deploy.retraining.data import BOOSTING, TaskData, read_leaks, read_task
from deploy.retraining.job import Retraining
from deploy.settings import Settings
from modelling.baselines.clinical_scores import CLINICAL_SCORES
from modelling.baselines.summaries import observed_tokens
from modelling.catalogue import load_catalogue
from modelling.cohorts.splits import HELD_OUT
from modelling.errors import ModellingError
from modelling.evaluation import sample_groups
from modelling.registry.evidence import gather_evidence
from modelling.registry.folder import read_folder
from modelling.registry.rules import judge_candidate
from modelling.scoring import load_model, score_samples
from validation.contracts import write_json

KEYS = ["encounter_id", "prediction_time"]


def score_held_out(folder: Path, data: TaskData, *, site: str) -> tuple[pl.DataFrame, dict[str, int]]:
    """Score the held-out samples as at night; return scores, and the skipped by reason."""
    model = load_model(folder, catalogue_digest=load_catalogue().digest)
    scores, skipped = score_samples(
        model,
        samples=data.part(HELD_OUT),
        encounters=data.tables.encounters,
        events=data.tables.events,
        recordings=data.tables.recordings,
        images=data.tables.images,
        run_folder=data.tables.root,
        site=site,
        explain=False,
    )
    return scores, dict(skipped.group_by("reason").len().sort("reason").iter_rows())


def compare_task(
    settings: Settings, job: Retraining, task: str, trained: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Gather the evidence of each candidate of a task and what the promotion rules would say today.

    Parameters
    ----------
    trained
        Results of :func:`deploy.retraining.training.train_model`, of any task.

    Returns
    -------
    list of dict
        ``task``, ``model``, ``folder``, ``digest``, ``evidence`` (path below the job's folder), ``findings``.
    """
    data = read_task(job, task)
    own = [item for item in trained if item["task"] == task]
    candidates = [item for item in own if item["model"] != BOOSTING]
    boosting = next((Path(item["folder"]) for item in own if item["model"] == BOOSTING), None)
    champion, facts = _champion(settings, data, task)
    registered = open_registry(settings).champion(task)
    result = []
    for item in candidates:
        folder = Path(item["folder"])
        scores, skipped = score_held_out(folder, data, site=settings.site.name)
        evidence = _evidence(
            settings,
            data,
            task=task,
            folder=folder,
            scores=scores,
            skipped=skipped,
            champion=champion,
            facts=facts,
            boosting=boosting,
            leaks=read_leaks(job, task),
        )
        path = job.path / "evidence" / task / f"{item['model']}.json"
        write_json(evidence, path)
        findings = judge_candidate(
            evidence,
            promotion_rules(settings),
            champion=registered.digest if registered else None,
            digest=item["digest"],
        )
        result.append(
            {
                **item,
                "evidence": str(path.relative_to(job.path)),
                "findings": [finding.to_dict() for finding in findings],
            }
        )
        job.note("evaluate", 1)
    return result


def _champion(
    settings: Settings, data: TaskData, task: str
) -> tuple[pl.DataFrame | None, dict[str, Any] | None]:
    """Return the champion's scores of the held-out samples, and what it is; its error where it cannot score."""
    try:
        folder = champion_folder(settings, task)
    except DeployError:
        return None, None
    facts: dict[str, Any] = {"digest": None, "name": folder.name}
    try:
        read = read_folder(folder)
        facts = {"digest": read.digest, "name": f"{read.card['name']} {read.digest[:12]}"}
        scores, _ = score_held_out(folder, data, site=settings.site.name)
        if scores.is_empty():
            return None, facts | {"error": "no sample could be scored"}
    except ModellingError as error:
        return None, facts | {"error": type(error).__name__}
    return scores, facts


def _evidence(
    settings: Settings,
    data: TaskData,
    *,
    task: str,
    folder: Path,
    scores: pl.DataFrame,
    skipped: dict[str, int],
    champion: pl.DataFrame | None,
    facts: dict[str, Any] | None,
    boosting: Path | None,
    leaks: list[dict[str, Any]],
) -> dict[str, Any]:
    """Bring all scores to the samples that every model scored, and compare them there."""
    joined = data.part(HELD_OUT).join(
        scores.select(*KEYS, candidate="probability"), on=KEYS, how="inner", maintain_order="left"
    )
    if champion is not None:
        both = joined.join(
            champion.select(*KEYS, champion="probability"), on=KEYS, how="inner", maintain_order="left"
        )
        if lost := joined.height - both.height:
            skipped = skipped | {"not scored by the champion": lost}
        joined = both
    baselines: dict[str, np.ndarray[Any, Any]] = {}
    if boosting is not None:
        joined = joined.join(
            pl.read_parquet(boosting / "held_out.parquet"), on=KEYS, how="left", maintain_order="left"
        )
        baselines[BOOSTING] = joined["score"].to_numpy()
    used = joined.select(data.samples.columns)
    tokens = observed_tokens(used, data.tables.events)
    for name, score in CLINICAL_SCORES.items():
        baselines[name] = score(tokens, rows=used.height).total
    read = read_folder(folder)
    return gather_evidence(
        joined["boolean_value"].cast(pl.Int64).to_numpy(),
        joined["candidate"].to_numpy(),
        task=task,
        model=f"{read.card['name']} {read.digest[:12]}",
        champion=None if champion is None else joined["champion"].to_numpy(),
        champion_facts=facts,
        baselines=baselines,
        groups=sample_groups(used, data.tables.encounters, scores),
        subjects=joined["subject_id"].to_numpy(),
        leaks=leaks,
        skipped=skipped,
        resamples=settings.retraining.resamples,
        seed=settings.retraining.seed,
    )
