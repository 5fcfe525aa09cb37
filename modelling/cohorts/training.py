"""Samples with labels for training and evaluation, and the attrition that led to them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import polars as pl

from modelling.cohorts.night import age_years, as_table, icu_stays
from modelling.cohorts.tasks import TaskSpec
from modelling.errors import CohortError

Mode = Literal["fixed", "landmark"]
MAX_NIGHTS = 400
"""Nights of one stay that landmark mode looks at."""


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Labelled samples and how they came about.

    Attributes
    ----------
    samples
        Rows of the ``Samples`` contract with labels.
    attrition
        ``step``, ``stays``, ``patients``, ``samples``: what was left after each rule, in order.
    """

    samples: pl.DataFrame
    attrition: pl.DataFrame


class Attrition:
    """Counts what is left after each rule."""

    def __init__(self) -> None:
        self.rows: list[dict[str, str | int]] = []

    def note(self, step: str, frame: pl.DataFrame) -> None:
        """Record a step; ``frame`` has one row a stay or, later, one row a sample."""
        self.rows.append(
            {
                "step": step,
                "stays": frame["encounter_id"].n_unique(),
                "patients": frame["subject_id"].n_unique(),
                "samples": frame.height,
            }
        )

    def frame(self) -> pl.DataFrame:
        """Return the steps as a frame."""
        schema = {"step": pl.String, "stays": pl.Int64, "patients": pl.Int64, "samples": pl.Int64}
        return pl.DataFrame(self.rows, schema=schema)


def fixed_times(stays: pl.DataFrame, *, at_hours: float) -> pl.DataFrame:
    """Add ``prediction_time``: ``at_hours`` after each stay's start."""
    return stays.with_columns((pl.col("start") + timedelta(hours=at_hours)).alias("prediction_time"))


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
    mode: Mode = "fixed",
    at_hours: float = 48.0,
    clock: time = time(6),
    zone: str = "UTC",
) -> Cohort:
    """Return labelled samples of a task.

    Parameters
    ----------
    encounters, outcomes
        Rows of those contracts.
    mode
        ``fixed``: one sample a stay, ``at_hours`` after its start (benchmarks). ``landmark``: one sample a
        night of the stay at ``clock`` in ``zone``, as in deployment.

    Raises
    ------
    CohortError
        If the task cannot be labelled from these tables.
    """
    attrition = Attrition()
    stays = icu_stays(encounters)
    attrition.note("ICU stays", stays)
    if mode == "fixed":
        asked = fixed_times(stays, at_hours=at_hours)
        asked = asked.filter(pl.col("end").is_null() | (pl.col("end") >= pl.col("prediction_time")))
        attrition.note(f"in intensive care at {at_hours:g} h", asked)
    else:
        asked = landmark_times(stays, clock=clock, zone=zone)
        attrition.note(f"nights at {clock:%H:%M}", asked)
    stayed = (pl.col("prediction_time") - pl.col("start")).dt.total_seconds() / 3600
    asked = asked.filter(stayed >= task.minimum_hours)
    attrition.note(f"stayed {task.minimum_hours:g} h or longer by then", asked)
    age = age_years(pl.col("prediction_time"), pl.col("birth_date"))
    asked = asked.filter(age >= task.minimum_age)
    attrition.note(f"aged {task.minimum_age:g} years or older", asked)
    labelled = _label(stay_outcomes(asked, outcomes), task, attrition)
    samples = labelled.with_columns(
        (pl.col("prediction_time") - timedelta(hours=task.lookback_hours)).alias("lookback_start"),
        pl.lit(task.name).alias("task"),
    ).sort("subject_id", "prediction_time", "encounter_id")
    return Cohort(samples=as_table(samples, "samples"), attrition=attrition.frame())


def _label(stays: pl.DataFrame, task: TaskSpec, attrition: Attrition) -> pl.DataFrame:
    if task.name != "in-hospital-mortality":
        raise CohortError(f"task {task.name!r} has no label rule")
    alive = stays.filter((pl.col("death_time") > pl.col("prediction_time")).fill_null(value=True))
    attrition.note("alive at prediction time", alive)
    known = alive.filter(pl.col("died_in_hospital").is_not_null())
    attrition.note("outcome known", known)
    return known.with_columns(
        pl.col("died_in_hospital").alias("boolean_value"), pl.lit(None, pl.Float64).alias("float_value")
    )
