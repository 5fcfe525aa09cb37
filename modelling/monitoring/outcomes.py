"""Outcomes that arrived later, joined to the scores that were written before."""

from __future__ import annotations

import polars as pl

from modelling.cohorts.attrition import Attrition
from modelling.cohorts.labels import LABELS, Facts
from modelling.cohorts.tasks import TaskSpec
from modelling.cohorts.training import stay_outcomes
from modelling.errors import MonitoringError
from modelling.evaluation.subgroups import sample_groups

CHAMPION, SHADOW = "champion", "shadow"
KEYS = ("encounter_id", "prediction_time")


def label_scores(
    scores: pl.DataFrame, encounters: pl.DataFrame, outcomes: pl.DataFrame, *, task: TaskSpec
) -> pl.DataFrame:
    """Join scores to what became known of their encounters.

    Parameters
    ----------
    scores
        Rows of ``Scores`` of many nights, with a text column ``role`` (champion or shadow). A score that
        stands in several run folders counts once a role.
    encounters, outcomes
        A census taken later.
    task
        The task that the scores answer; only tasks whose label needs no further table.

    Returns
    -------
    polars.DataFrame
        One row a score: ``role``, ``model_digest``, ``model_name``, ``subject_id``, ``encounter_id``,
        ``prediction_time``, ``probability``, ``risk_level``, the groups of
        :func:`modelling.evaluation.sample_groups`, and ``label`` (null where the outcome is not known yet).

    Raises
    ------
    MonitoringError
        If the task is not a yes-or-no question.
    """
    if task.kind != "binary":
        raise MonitoringError(
            f"task {task.name!r} is {task.kind}: monitoring judges probabilities of one event"
        )
    own = scores.filter(pl.col("task") == task.name).unique(
        ["role", "score_key"], keep="first", maintain_order=True
    )
    asked = own.select(*KEYS, "subject_id").unique(maintain_order=True)
    stays = asked.join(encounters.drop("subject_id"), on="encounter_id", how="inner")
    labelled = LABELS[task.label](stay_outcomes(stays, outcomes), Facts(), task, Attrition())
    known = labelled.select(*KEYS, label="boolean_value").unique(list(KEYS))
    rows = own.join(known, on=list(KEYS), how="left", maintain_order="left")
    groups = pl.concat(
        [
            sample_groups(part, encounters, part).with_columns(part["role"], part["score_key"])
            for part in rows.partition_by("role", maintain_order=True)
        ]
        or [pl.DataFrame(schema={"role": pl.String, "score_key": pl.String})]
    )
    return rows.join(groups, on=["role", "score_key"], how="left", maintain_order="left").select(
        "role",
        "model_digest",
        "model_name",
        "subject_id",
        *KEYS,
        "probability",
        "risk_level",
        *(name for name in groups.columns if name not in ("role", "score_key")),
        "label",
    )
