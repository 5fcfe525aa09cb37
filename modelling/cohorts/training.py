"""Samples with labels for training and evaluation, and the attrition that led to them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import polars as pl

from modelling.cohorts.attrition import Attrition
from modelling.cohorts.labels import LABELS, Facts
from modelling.cohorts.night import age_years, as_table, icu_stays, lookback_start
from modelling.cohorts.rules import RULES, VALUE_RULES
from modelling.cohorts.tasks import TaskSpec
from modelling.errors import CohortError

Mode = Literal["fixed", "hourly", "landmark"]
MAX_NIGHTS = 400
"""Nights of one stay that landmark mode looks at; hourly mode looks at as many days."""


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Labelled samples and how they came about.

    Attributes
    ----------
    samples
        Rows of the ``Samples`` contract with labels.
    labels
        For multi-label tasks ``encounter_id``, ``prediction_time`` and one Boolean column a label; or None.
    attrition
        ``step``, ``stays``, ``patients``, ``samples``: what was left after each rule, in order.
    """

    samples: pl.DataFrame
    labels: pl.DataFrame | None
    attrition: pl.DataFrame


def fixed_times(stays: pl.DataFrame, *, at_hours: float | None) -> pl.DataFrame:
    """Add ``prediction_time``: ``at_hours`` after each stay's start, or its end; shorter stays fall away."""
    if at_hours is None:
        return stays.filter(pl.col("end").is_not_null()).with_columns(pl.col("end").alias("prediction_time"))
    asked = stays.with_columns((pl.col("start") + timedelta(hours=at_hours)).alias("prediction_time"))
    return asked.filter(pl.col("end").is_null() | (pl.col("end") >= pl.col("prediction_time")))


def hourly_times(stays: pl.DataFrame, *, first_hour: float, before_hour: float | None = None) -> pl.DataFrame:
    """Repeat each ended stay for every full hour from ``first_hour`` to its end, or to ``before_hour``."""
    ended = stays.filter(pl.col("end").is_not_null())
    hours = ((pl.col("end") - pl.col("start")).dt.total_seconds() / 3600).ceil().cast(pl.Int64)
    most = MAX_NIGHTS * 24 if before_hour is None else int(before_hour)
    return (
        ended.with_columns(pl.int_ranges(int(first_hour), hours.clip(0, most)).alias("hour"))
        .explode("hour", empty_as_null=False)
        .with_columns((pl.col("start") + pl.duration(hours=pl.col("hour"))).alias("prediction_time"))
        .drop("hour")
    )


def landmark_times(stays: pl.DataFrame, *, clock: time, zone: str) -> pl.DataFrame:
    """Repeat each stay for every ``clock`` o'clock of the site's zone that falls within it, as a night would.

    A stay without end is followed for :data:`MAX_NIGHTS` nights at most.
    """
    offset = timedelta(hours=clock.hour, minutes=clock.minute, seconds=clock.second)
    local = pl.col("start").dt.convert_time_zone(ZoneInfo(zone).key).dt.replace_time_zone(None)
    first = local.dt.truncate("1d") + offset
    last = pl.col("end").fill_null(pl.col("start") + timedelta(days=MAX_NIGHTS))
    nights = ((last - pl.col("start")).dt.total_days() + 2).clip(1, MAX_NIGHTS)
    return (
        stays.with_columns(first.alias("first_night"), pl.int_ranges(0, nights).alias("night"))
        .explode("night", empty_as_null=False)
        .with_columns(
            (pl.col("first_night") + pl.duration(days=pl.col("night")))
            .dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
            .dt.convert_time_zone("UTC")
            .cast(pl.Datetime("us", "UTC"))
            .alias("prediction_time")
        )
        .filter((pl.col("prediction_time") >= pl.col("start")) & (pl.col("prediction_time") < last))
        .drop("first_night", "night")
    )


def stay_outcomes(stays: pl.DataFrame, outcomes: pl.DataFrame) -> pl.DataFrame:
    """Add ``died_in_hospital``, ``death_time``, ``discharge_time`` and ``icu_days`` to stays.

    What an ICU stay's own outcome leaves open is taken from the enclosing hospital encounter.
    """
    columns = ["died_in_hospital", "death_time", "discharge_time", "icu_days"]
    own = outcomes.select("encounter_id", *columns)
    around = own.rename({"encounter_id": "part_of"} | {name: f"{name}_around" for name in columns})
    return (
        stays.join(own, on="encounter_id", how="left", maintain_order="left")
        .join(around, on="part_of", how="left", maintain_order="left")
        .with_columns(pl.coalesce(name, f"{name}_around").alias(name) for name in columns)
        .drop(f"{name}_around" for name in columns)
    )


def training_samples(
    encounters: pl.DataFrame,
    outcomes: pl.DataFrame,
    *,
    task: TaskSpec,
    mode: Mode | None = None,
    at_hours: float | None = None,
    clock: time = time(6),
    zone: str = "UTC",
    facts: Facts | None = None,
) -> Cohort:
    """Return labelled samples of a task.

    Parameters
    ----------
    encounters, outcomes
        Rows of those contracts.
    mode
        ``fixed`` or ``hourly``: the benchmark's prediction times and rules (the task's own when None).
        ``landmark``: one sample a night of the stay at ``clock`` in ``zone``, as in deployment, without
        rules that look at whole stays.
    at_hours
        Prediction time of fixed mode instead of the task's.
    facts
        Further tables that some labels and rules need. Without events, the rules about values are not
        applied, and the attrition says so.

    Raises
    ------
    CohortError
        If the task cannot be labelled from these tables.
    """
    if task.label not in LABELS:
        raise CohortError(f"task {task.name!r} is not asked about ICU stays; see its own function")
    mode = mode or ("hourly" if task.hourly else "fixed")
    facts = facts or Facts()
    attrition = Attrition()
    stays = attrition.note("ICU stays", icu_stays(encounters))
    if mode != "landmark":
        stays = _benchmark_stays(stays, task, facts.events, attrition)
    asked = attrition.note(*_ask(stays, task, mode, at_hours, clock, zone))
    if mode != "landmark" and task.needs_value and facts.events is not None:
        asked = attrition.note("a value in the stay by then", with_value(asked, facts.events))
    stayed = (pl.col("prediction_time") - pl.col("start")).dt.total_seconds() / 3600
    asked = asked.filter(stayed >= task.minimum_hours)
    asked = attrition.note(f"stayed {task.minimum_hours:g} h or longer by then", asked)
    age = age_years(pl.col("prediction_time"), pl.col("birth_date"))
    asked = attrition.note(f"aged {task.minimum_age:g} years or older", asked.filter(age >= task.minimum_age))
    labelled = LABELS[task.label](stay_outcomes(asked, outcomes), facts, task, attrition)
    labelled = labelled.with_columns(
        lookback_start(task).alias("lookback_start"), pl.lit(task.name).alias("task")
    ).sort("subject_id", "prediction_time", "encounter_id")
    names = [name for name in labelled.columns if name.startswith("label/")]
    labels = labelled.select(
        "encounter_id",
        "prediction_time",
        *(pl.col(name).alias(name.removeprefix("label/")) for name in names),
    )
    return Cohort(
        samples=as_table(labelled, "samples"),
        labels=labels if names else None,
        attrition=attrition.frame(),
    )


def _benchmark_stays(
    stays: pl.DataFrame, task: TaskSpec, events: pl.DataFrame | None, attrition: Attrition
) -> pl.DataFrame:
    """Apply the benchmark's rules in order; those about values wait for a table of events."""
    for name in task.benchmark_rules:
        if name in RULES:
            step, rule = RULES[name]
            stays = attrition.note(step, rule(stays))
        elif events is not None:
            step, value_rule = VALUE_RULES[name]
            stays = attrition.note(step, value_rule(stays, events))
        else:
            attrition.note(f"(no events, not applied) {VALUE_RULES[name][0]}", stays)
    return stays


def with_value(asked: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Keep samples of stays in which any value was charted by the prediction time."""
    first = (
        asked.select("encounter_id", "subject_id", "start")
        .unique()
        .join(events.select("subject_id", "time"), on="subject_id")
        .filter(pl.col("time") >= pl.col("start"))
        .group_by("encounter_id")
        .agg(pl.col("time").min().alias("first_value"))
    )
    joined = asked.join(first, on="encounter_id", how="left", maintain_order="left")
    return joined.filter(pl.col("first_value") <= pl.col("prediction_time")).drop("first_value")


def _ask(
    stays: pl.DataFrame, task: TaskSpec, mode: Mode, at_hours: float | None, clock: time, zone: str
) -> tuple[str, pl.DataFrame]:
    if mode == "landmark":
        return f"nights at {clock:%H:%M}", landmark_times(stays, clock=clock, zone=zone)
    if mode == "hourly":
        return "every hour of ended stays", hourly_times(
            stays, first_hour=task.minimum_hours, before_hour=task.before_hour
        )
    hours = task.fixed_hours if at_hours is None else at_hours
    step = "stay ended" if hours is None else f"in intensive care at {hours:g} h"
    return step, fixed_times(stays, at_hours=hours)
