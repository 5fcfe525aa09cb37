"""Two model folders on the same patients of a folder of mapped tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from modelling.catalogue import load_catalogue
from modelling.errors import EvaluationError
from modelling.evaluation.mapped import labelled_cohort, read_mapped
from modelling.evaluation.metrics import paired_difference
from modelling.scoring import load_model, score_samples

KEYS = ["encounter_id", "prediction_time"]


def compare_folders(
    folders: Sequence[Path], data: Path, *, resamples: int = 1000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Return the paired differences of two models, first minus second, on samples that both scored.

    Raises
    ------
    EvaluationError
        If the models answer different tasks, or no sample was scored by both.
    """
    tables = read_mapped(data)
    models = [load_model(folder, catalogue_digest=load_catalogue().digest) for folder in folders]
    if len({model.task for model in models}) != 1:
        raise EvaluationError("the models answer different tasks")
    joined = labelled_cohort(tables, models[0].task).samples
    for position, model in enumerate(models):
        scores, _ = score_samples(
            model,
            samples=joined.drop(f"model-{k}" for k in range(position)),
            encounters=tables.encounters,
            events=tables.events,
            recordings=tables.recordings,
            images=tables.images,
            run_folder=tables.root,
            site="comparison",
            explain=False,
        )
        answers = scores.select(*KEYS, pl.col("probability").alias(f"model-{position}"))
        joined = joined.join(answers, on=KEYS, how="inner", maintain_order="left")
    if joined.is_empty():
        raise EvaluationError("no sample was scored by both models")
    return paired_difference(
        joined["boolean_value"].cast(pl.Int64).to_numpy(),
        joined["model-0"].to_numpy(),
        joined["model-1"].to_numpy(),
        resamples=resamples,
        seed=seed,
        clusters=joined["subject_id"].to_numpy(),
    )
