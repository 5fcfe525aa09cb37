"""Row rules: which events may reach a model, and which may not, each with a reason code.

The rules judge rows; everything after them (profiles, the gate, the report) sees aggregates
only. Each refused row gets the first reason that applies, in this order: unknown feature, value
missing or not finite, clinical time after the time it was known, value outside the catalogue's
range, repeated row, contradiction with other values of the same moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from validation.judgement import Judgement, quarantine_rows
from validation.physiology import PAIRS, Contradictions, contradictions
from validation.reasons import Reason

__all__ = ["EventRules", "Judgement", "judge_events"]

_ROW = "__row"
_LOW = "__low"
_HIGH = "__high"
_REASON = "__reason"


@dataclass(frozen=True, kw_only=True)
class EventRules:
    """Settings of the row rules.

    Attributes
    ----------
    charted_ahead
        How long a clinical time may lie after ``available_time``. Fluid balances are charted to
        the next full hour: of 7,257 output events of MIMIC-IV's demo excerpt 1,168 are, by at
        most 58 minutes (``storetime`` before ``charttime``); of 75,033 laboratory results none.
    outside_stay
        How far a time may lie outside the encounter's stay; used only where encounters are given.
    check_duplicates, check_physiology
        Switches for a site that has settled these upstream.
    physiology
        Which features contradict one another.
    """

    charted_ahead: timedelta = timedelta(hours=1)
    outside_stay: timedelta = timedelta(hours=24)
    check_duplicates: bool = True
    check_physiology: bool = True
    physiology: Contradictions = PAIRS


def judge_events(
    events: pl.DataFrame,
    limits: pl.DataFrame,
    *,
    encounters: pl.DataFrame | None = None,
    rules: EventRules | None = None,
) -> Judgement:
    """Split events into those that a model may see and those that it may not.

    Parameters
    ----------
    events
        Rows of the ``Events`` contract.
    limits
        One row a catalogue feature: ``code`` (feature key), ``low`` and ``high`` (plausible range
        in the canonical unit, inclusive; null where there is none). Further columns are ignored.
    encounters
        Rows of the ``Encounters`` contract; when given, times far outside the stay are refused.
    rules
        Settings; the defaults when None.

    Returns
    -------
    Judgement
        ``accepted`` keeps order and columns; ``quarantine`` has ``whole`` false, because whether a
        resource is refused entire is known only where its rows are counted.
    """
    rules = rules or EventRules()
    if events.is_empty():
        return Judgement(events, _describe(events.with_columns(pl.lit(None, pl.String).alias(_REASON))))
    reason = _row_reasons(events, limits, encounters, rules)
    if rules.check_duplicates:
        reason = _mark(reason, _repeated(events, reason.is_null()), Reason.VALUE_DUPLICATE)
    if rules.check_physiology:
        good = reason.is_null()
        reason = _mark(
            reason, contradictions(events, good, rules.physiology), Reason.PHYSIOLOGY_CONTRADICTION
        )
    good = reason.is_null()
    if good.all():
        return Judgement(
            events, _describe(events.clear().with_columns(pl.lit(None, pl.String).alias(_REASON)))
        )
    refused = events.filter(~good).with_columns(reason.filter(~good).cast(pl.String).alias(_REASON))
    return Judgement(events.filter(good), _describe(refused))


def _describe(refused: pl.DataFrame) -> pl.DataFrame:
    return quarantine_rows(
        refused, stage="rules", reason=pl.col(_REASON), feature=pl.col("code"), whole=False
    )


def _row_reasons(
    events: pl.DataFrame, limits: pl.DataFrame, encounters: pl.DataFrame | None, rules: EventRules
) -> pl.Series:
    """Return the reason of every row that a look at the row alone can refuse; null elsewhere."""
    known = limits.select(
        "code",
        pl.col("low").cast(pl.Float32).fill_null(float("-inf")).alias(_LOW),
        pl.col("high").cast(pl.Float32).fill_null(float("inf")).alias(_HIGH),
    )
    value = pl.col("numeric_value")
    # Eager on purpose: polars 2.1's default engine gives up the order of a lazy join when only a when/then of
    # literals is selected from it, and the reasons would land on other rows.
    frame = events.join(known, on="code", how="left", maintain_order="left")
    decision = (
        pl.when(pl.col(_LOW).is_null())
        .then(pl.lit(str(Reason.CODE_UNKNOWN)))
        .when(value.is_null() & pl.col("text_value").is_null())
        .then(pl.lit(str(Reason.VALUE_MISSING)))
        .when(value.is_not_null() & ~value.is_finite())
        .then(pl.lit(str(Reason.VALUE_INVALID)))
        .when(pl.col("time") > pl.col("available_time") + rules.charted_ahead)
        .then(pl.lit(str(Reason.TIME_IN_FUTURE)))
    )
    if encounters is not None:
        stays = encounters.select(
            "encounter_id",
            (pl.col("start") - rules.outside_stay).alias("__start"),
            (pl.col("end") + rules.outside_stay).alias("__end"),
        )
        frame = frame.join(stays, on="encounter_id", how="left", maintain_order="left")
        outside = (pl.col("time") < pl.col("__start")) | (pl.col("time") > pl.col("__end"))
        decision = decision.when(outside.fill_null(False)).then(pl.lit(str(Reason.TIME_OUTSIDE_ENCOUNTER)))
    decision = decision.when((value < pl.col(_LOW)) | (value > pl.col(_HIGH))).then(
        pl.lit(str(Reason.VALUE_OUT_OF_RANGE))
    )
    return frame.select(decision.otherwise(None).alias(_REASON))[_REASON]


def _mark(reason: pl.Series, refused: pl.Series, code: Reason) -> pl.Series:
    """Give a reason to the rows of ``refused`` that have none yet."""
    if not refused.any():
        return reason
    frame = pl.DataFrame({_REASON: reason, "refused": refused})
    new = pl.when(pl.col(_REASON).is_null() & pl.col("refused")).then(pl.lit(str(code))).otherwise(_REASON)
    return frame.select(new.alias(_REASON))[_REASON]


def _repeated(events: pl.DataFrame, good: pl.Series) -> pl.Series:
    """Return which rows say again what an earlier row said.

    Same subject, feature, clinical time and value: the second row adds no knowledge, but would
    add weight. Rows that differ in value are kept, since two devices may measure at one time.
    """
    keys = ["subject_id", "code", "time", "numeric_value", "text_value"]
    frame = events.select(keys).with_columns(good.alias("good"))
    first = pl.struct(*keys, "good").is_first_distinct()
    return frame.select((~first & pl.col("good")).alias("repeated"))["repeated"]
