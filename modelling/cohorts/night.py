"""Samples of a night: every open ICU stay, or in a replay every stay at a fixed time after its start."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl

from modelling.cohorts.tasks import TaskSpec
from modelling.errors import CohortError
from validation.contracts import empty
from validation.reasons import Reason

NOT_A_STAY = ("planned", "cancelled", "entered-in-error")
"""Encounter statuses (FHIR R4 EncounterStatus) under which nobody lies in a bed."""
DAYS_PER_YEAR = 365.2425


def age_years(at: pl.Expr, birth_date: pl.Expr) -> pl.Expr:
    """Return the age at a time, in years (Float64)."""
    days = (at - birth_date.cast(pl.Datetime("us", "UTC"))).dt.total_seconds() / 86_400
    return days / DAYS_PER_YEAR


def lookback_start(task: TaskSpec) -> pl.Expr:
    """Return the earliest time that a sample's inputs may have: so long before it, or the stay's start."""
    if task.lookback_hours is None:
        return pl.col("start")
    return pl.col("prediction_time") - timedelta(hours=task.lookback_hours)


def icu_stays(encounters: pl.DataFrame) -> pl.DataFrame:
    """Return the encounters that are stays in intensive care."""
    return encounters.filter((pl.col("kind") == "icu") & ~pl.col("status").is_in(list(NOT_A_STAY)))


def night_samples(
    encounters: pl.DataFrame, *, task: TaskSpec, prediction_time: datetime, partition: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the samples and the skipped of one night: eligible is every ICU stay open at prediction time.

    A stay is open when it has begun and not ended by then. An end after the prediction time is not looked at
    in any other way, since it was not known.

    Parameters
    ----------
    encounters
        Rows of the ``Encounters`` contract.
    prediction_time
        Instant with zone; the end of the night's data interval.
    partition
        Key of the night, for messages.

    Returns
    -------
    tuple
        Rows of ``Samples`` (labels null) and of ``Skipped``; together they are the eligible stays.

    Raises
    ------
    CohortError
        If the prediction time has no zone.
    """
    if prediction_time.tzinfo is None:
        raise CohortError(f"night {partition}: the prediction time needs a time zone")
    at = pl.lit(prediction_time).dt.convert_time_zone("UTC").cast(pl.Datetime("us", "UTC"))
    stays = icu_stays(encounters).with_columns(at.alias("prediction_time"))
    opened = stays.filter(
        (pl.col("start") <= pl.col("prediction_time"))
        & (pl.col("end").is_null() | (pl.col("end") > pl.col("prediction_time")))
    )
    return _divide(opened, task, one_stay_a_patient=True, ended=pl.lit(False))


def replay_samples(
    encounters: pl.DataFrame, *, task: TaskSpec, after: timedelta
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return samples at ``start + after`` of every ICU stay; one that ended before is skipped as too short.

    Parameters
    ----------
    encounters
        Rows of the ``Encounters`` contract.
    after
        Time from the stay's start to the prediction time.

    Returns
    -------
    tuple
        Rows of ``Samples`` and of ``Skipped``; together they are all ICU stays.
    """
    stays = icu_stays(encounters).with_columns((pl.col("start") + after).alias("prediction_time"))
    return _divide(stays, task, one_stay_a_patient=False, ended=pl.col("end") < pl.col("prediction_time"))


def _divide(
    stays: pl.DataFrame, task: TaskSpec, *, one_stay_a_patient: bool, ended: pl.Expr
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Give every eligible stay a reason to be skipped, or make it a sample."""
    age = age_years(pl.col("prediction_time"), pl.col("birth_date"))
    stayed = (pl.col("prediction_time") - pl.col("start")).dt.total_seconds() / 3600
    reason = (
        pl.when(ended.fill_null(value=False) | (stayed < task.minimum_hours))
        .then(pl.lit(str(Reason.SKIP_STAY_TOO_SHORT)))
        .when(age.is_null())
        .then(pl.lit(str(Reason.SKIP_AGE_UNKNOWN)))
        .when(age < task.minimum_age)
        .then(pl.lit(str(Reason.SKIP_TOO_YOUNG)))
    )
    judged = stays.sort("subject_id", "start", "encounter_id").with_columns(reason.alias("reason"))
    if one_stay_a_patient:
        # Two open stays are an error of the source or a transfer in progress: the later one is current.
        usable = pl.when(pl.col("reason").is_null()).then(pl.struct("start", "encounter_id"))
        later = judged.with_columns(usable.alias("key")).with_columns(
            (pl.col("key").rank("ordinal", descending=True).over("subject_id") > 1).alias("other")
        )
        judged = later.with_columns(
            pl.when(pl.col("reason").is_null() & pl.col("other"))
            .then(pl.lit(str(Reason.SKIP_OTHER_STAY_SCORED)))
            .otherwise("reason")
            .alias("reason")
        )
    judged = judged.with_columns(pl.lit(task.name).alias("task"))
    skipped = judged.filter(pl.col("reason").is_not_null()).with_columns(
        pl.lit(None, pl.String).alias("detail")
    )
    samples = judged.filter(pl.col("reason").is_null()).with_columns(
        pl.lit(None, pl.Boolean).alias("boolean_value"),
        pl.lit(None, pl.Float64).alias("float_value"),
        lookback_start(task).alias("lookback_start"),
    )
    return as_table(samples, "samples"), as_table(skipped, "skipped")


def as_table(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    """Return the contract's columns in its order and types."""
    schema = dict(empty(table).schema)
    return frame.select(pl.col(name).cast(dtype) for name, dtype in schema.items())
