"""Cohorts of a folder of mapped tables, one shard after another, so that memory does not grow with it."""

from __future__ import annotations

import json
from datetime import time
from pathlib import Path

import polars as pl

from modelling.cohorts.cardiovascular import cardiovascular_samples
from modelling.cohorts.labels import Facts
from modelling.cohorts.tasks import TaskSpec
from modelling.cohorts.training import Cohort, Mode, training_samples
from modelling.errors import CohortError
from modelling.mapping.folder import shard_of
from validation.contracts import empty

SUBJECT_TABLES = ("encounters", "outcomes", "diagnoses", "procedures", "suspicions", "supports")


def build_cohort(
    root: Path,
    task: TaskSpec,
    *,
    mode: Mode | None = None,
    at_hours: float | None = None,
    clock: time = time(6),
    zone: str = "UTC",
) -> Cohort:
    """Return the labelled samples of a folder that ``map-mimic`` or ``map-physionet2012`` wrote.

    Parameters
    ----------
    root
        Folder of :mod:`modelling.mapping.folder`.
    mode, at_hours, clock, zone
        As in :func:`modelling.cohorts.training.training_samples`. The cardiovascular question is asked at
        every ECG in either mode.

    Raises
    ------
    CohortError
        If the folder is none, or lacks a table that the task needs.
    """
    if not (root / "source.json").is_file():
        raise CohortError(f"{root} holds no mapped tables; run map-mimic or map-physionet2012 first")
    n_shards = int(json.loads((root / "source.json").read_text("utf-8"))["shards"])
    tables = {name: _table(root / f"{name}.parquet") for name in SUBJECT_TABLES}
    parts = []
    for shard in range(n_shards):
        mine = {
            name: None if table is None else table.filter(shard_of(pl.col("subject_id"), n_shards) == shard)
            for name, table in tables.items()
        }
        encounters, outcomes = mine["encounters"], mine["outcomes"]
        if encounters is None or outcomes is None:
            raise CohortError(f"{root} lacks encounters.parquet or outcomes.parquet; map the source again")
        if task.label == "cardiovascular":
            parts.append(_cardiovascular(root, shard, encounters, mine["diagnoses"], mine["procedures"]))
            continue
        events = _table(root / "events" / f"{shard:04d}.parquet")
        if events is None:
            raise CohortError(
                f"{root}: events of shard {shard} are missing; run the mapping again, it goes on"
            )
        parts.append(
            training_samples(
                encounters,
                outcomes,
                task=task,
                mode=mode,
                at_hours=at_hours,
                clock=clock,
                zone=zone,
                facts=Facts(
                    events=events,
                    diagnoses=mine["diagnoses"],
                    suspicions=mine["suspicions"],
                    supports=mine["supports"],
                ),
            )
        )
    return _together(parts)


def _table(path: Path) -> pl.DataFrame | None:
    return pl.read_parquet(path) if path.is_file() else None


def _cardiovascular(
    root: Path,
    shard: int,
    encounters: pl.DataFrame,
    diagnoses: pl.DataFrame | None,
    procedures: pl.DataFrame | None,
) -> Cohort:
    if not (root / "recordings").is_dir() or diagnoses is None:
        raise CohortError(
            f"{root} holds no recordings; map MIMIC-IV with --ecg for the cardiovascular question"
        )
    recordings = _table(root / "recordings" / f"{shard:04d}.parquet")
    return cardiovascular_samples(
        empty("recordings") if recordings is None else recordings, encounters, diagnoses, procedures
    )


def _together(parts: list[Cohort]) -> Cohort:
    """Put shards together: every patient lies in one of them, so that counts add up."""
    steps = pl.concat([part.attrition.with_row_index("order") for part in parts])
    attrition = (
        steps.group_by("order", "step").agg(pl.col("stays", "patients", "samples").sum()).sort("order")
    ).drop("order")
    labels = [part.labels for part in parts if part.labels is not None]
    samples = pl.concat([part.samples for part in parts])
    return Cohort(
        samples=samples.sort("subject_id", "prediction_time", "encounter_id"),
        labels=pl.concat(labels).sort("encounter_id", "prediction_time") if labels else None,
        attrition=attrition,
    )
