"""Profiles of features: a shard is counted, counts are added, and only the sum becomes a table.

Values are counted with a precision of 1 in 4,096, so that quantiles over all shards need the counts and not the
values, and come out the same however the night was sharded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from validation.profiles.tables import SMALLEST_GROUP, SMALLEST_WARD
from validation.reasons import Reason

QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}

UNIT_REASONS = (str(Reason.UNIT_MISSING), str(Reason.UNIT_UNKNOWN))
RANGE_REASONS = (str(Reason.VALUE_OUT_OF_RANGE), str(Reason.VALUE_INVALID))
REPEAT_REASONS = (str(Reason.VALUE_DUPLICATE),)

CADENCE_HOURS: Mapping[str, float] = {
    "heart_rate": 12.0,
    "respiratory_rate": 12.0,
    "spo2": 12.0,
    "temperature": 12.0,
    "systolic_bp": 12.0,
    "diastolic_bp": 12.0,
    "creatinine": 48.0,
    "potassium": 48.0,
    "sodium": 48.0,
    "hemoglobin": 48.0,
    "platelets": 48.0,
    "wbc": 48.0,
}
"""Hours within which a value is expected on any ward. Vital signs: NEWS2 asks for them at least every 12
hours (Royal College of Physicians 2017, chart 4); laboratory values: every second day, a house rule."""


@dataclass(frozen=True)
class FeatureCounts:
    """What one shard, or several added, say of the features.

    Attributes
    ----------
    values
        ``feature``, ``value`` (:func:`count_values`, null where there is none), ``n``.
    subjects
        ``feature``, ``n_subjects``; a subject lies in one shard only.
    ages
        ``feature``, ``value`` (hours before the prediction time of the last value a sample knew, one
        decimal), ``n`` (samples).
    slots
        ``feature``, ``filled``, ``slots``: expected intervals with a value, and all of them.
    """

    values: pl.DataFrame
    subjects: pl.DataFrame
    ages: pl.DataFrame
    slots: pl.DataFrame


def count_features(
    events: pl.DataFrame, encounters: pl.DataFrame, samples: pl.DataFrame, cadence: Mapping[str, float]
) -> FeatureCounts:
    """Count one shard's events, and what its samples knew."""
    feature = events["code"].cast(pl.Enum(events["code"].unique().sort())).rename("feature")
    ages, slots = _look_back(events.with_columns(feature.alias("code")), encounters, samples, cadence)
    return FeatureCounts(
        count_values(feature, events["numeric_value"]),
        count_subjects(feature, events["subject_id"]),
        ages,
        slots,
    )


def _packed(feature: pl.Series, part: pl.Series | npt.NDArray[np.uint32]) -> pl.Series:
    """Return one integer a row: grouping by it takes a third of the time that two columns take."""
    low = pl.Series(part, dtype=pl.UInt64)
    return (feature.to_physical().cast(pl.UInt64) * 2**32 + low).alias("key")


def _unpacked(feature: pl.Series) -> pl.Expr:
    kind = feature.dtype
    assert isinstance(kind, pl.Enum)  # noqa: S101 - count_features made it
    names = kind.categories
    place = (pl.col("key") // 2**32).cast(pl.UInt32)
    if not len(names):
        return pl.lit(None, pl.String).alias("feature")
    return place.replace_strict(list(range(len(names))), names, return_dtype=pl.String).alias("feature")


def count_values(feature: pl.Series, value: pl.Series) -> pl.DataFrame:
    """Return ``feature``, ``value``, ``n``; the last 11 of a float32's 23 bits of mantissa are rounded away.

    Examples
    --------
    >>> feature = pl.Series(["a", "a", "a"], dtype=pl.Enum(["a"]))
    >>> count_values(feature, pl.Series([1.0, 1.0001, None], dtype=pl.Float32)).rows()
    [('a', None, 1), ('a', 1.0, 2)]
    """
    bits = value.cast(pl.Float32).fill_null(float("nan")).to_numpy().view(np.uint32)
    rounded = (bits + np.uint32(0x400)) & np.uint32(0xFFFFF800)  # NaN stays NaN, and infinity infinite
    counts = _packed(feature, rounded).to_frame().group_by("key").agg(pl.len().cast(pl.Int64).alias("n"))
    kept = (counts["key"].to_numpy() & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.float32)
    return (
        counts.with_columns(pl.Series("value", kept).cast(pl.Float64).fill_nan(None))
        .select(_unpacked(feature), "value", "n")
        .group_by("feature", "value")
        .agg(pl.col("n").sum())
        .sort("feature", "value")
    )


def count_subjects(feature: pl.Series, subject: pl.Series) -> pl.DataFrame:
    """Return ``feature``, ``n_subjects``."""
    number = subject.rle_id() if subject.is_sorted() else subject.rank("dense").cast(pl.UInt32)
    pairs = _packed(feature, number).unique().to_frame()
    return pairs.group_by(_unpacked(feature)).agg(pl.len().cast(pl.Int64).alias("n_subjects"))


def add_features(parts: Sequence[FeatureCounts]) -> FeatureCounts:
    """Add the counts of shards."""

    def added(name: str, *keys: str) -> pl.DataFrame:
        frame = pl.concat(getattr(part, name) for part in parts)
        return frame.group_by(keys).agg(pl.all().sum()).sort(keys)

    return FeatureCounts(
        added("values", "feature", "value"),
        added("subjects", "feature"),
        added("ages", "feature", "value"),
        added("slots", "feature"),
    )


def _look_back(
    events: pl.DataFrame, encounters: pl.DataFrame, samples: pl.DataFrame, cadence: Mapping[str, float]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return ``ages`` and ``slots`` of :class:`FeatureCounts`."""
    hours = pl.DataFrame(
        {"feature": list(cadence), "cadence": list(cadence.values())},
        schema={"feature": pl.String, "cadence": pl.Float64},
    )
    known = hours.with_columns(pl.col("feature").cast(events.schema["code"], strict=False)).drop_nulls()
    asked = (
        samples.with_row_index("sample")
        .join(encounters.select("encounter_id", "start"), on="encounter_id", how="left")
        .select(
            "sample",
            "subject_id",
            "prediction_time",
            pl.max_horizontal("lookback_start", "start").alias("from"),
        )
    )
    window = ((pl.col("prediction_time") - pl.col("from")).dt.total_seconds() / 3600).alias("window")
    expected = (
        asked.select("sample", window)
        .join(hours, how="cross")
        .select(
            "sample", "feature", (pl.col("window") / pl.col("cadence")).floor().cast(pl.Int64).alias("slots")
        )
        .filter(pl.col("slots") > 0)
    )
    age = (pl.col("prediction_time") - pl.col("time")).dt.total_seconds() / 3600
    relevant = events.lazy() if asked.height else events.clear().lazy()
    if asked.height:
        last = asked["prediction_time"].max()
        relevant = relevant.filter(
            pl.col("time").is_between(asked["from"].min(), last) & (pl.col("available_time") <= last)
        )
    seen = (
        relevant.select("subject_id", "time", "available_time", pl.col("code").alias("feature"))
        .join(asked.lazy(), on="subject_id")
        .filter(
            (pl.col("available_time") <= pl.col("prediction_time"))
            & (pl.col("time") >= pl.col("from"))
            & (pl.col("time") <= pl.col("prediction_time"))
        )
        .join(known.lazy(), on="feature", how="left")
        .select("sample", "feature", age.alias("age"), (age / pl.col("cadence")).floor().alias("slot"))
        .group_by("feature", "sample")
        .agg(pl.col("age").min(), pl.col("slot").drop_nulls().n_unique().alias("filled"))
        .with_columns(pl.col("feature").cast(pl.String))
        .collect()
    )
    ages = seen.group_by("feature", pl.col("age").round(1).alias("value")).agg(
        pl.len().cast(pl.Int64).alias("n")
    )
    slots = (
        expected.join(seen, on=["sample", "feature"], how="left")
        .with_columns(
            pl.min_horizontal(pl.col("filled").fill_null(0), "slots").cast(pl.Int64).alias("filled")
        )
        .group_by("feature")
        .agg(pl.col("filled", "slots").sum())
    )
    return ages, slots


def counted_quantiles(counts: pl.DataFrame, quantiles: Mapping[str, float]) -> pl.DataFrame:
    """Return quantiles of counted values, linearly interpolated.

    Parameters
    ----------
    counts
        ``feature``, ``value``, ``n``.

    Examples
    --------
    >>> counts = pl.DataFrame({"feature": ["a", "a"], "value": [1.0, 3.0], "n": [3, 1]})
    >>> counted_quantiles(counts, {"median": 0.5, "most": 1.0}).rows()
    [('a', 1.0, 3.0)]
    """
    upto = pl.col("n").cum_sum()

    def quantile(q: float) -> pl.Expr:
        place = (pl.col("n").sum() - 1) * q
        low, high = (pl.col("value").filter(upto > rank).first() for rank in (place.floor(), place.ceil()))
        return low + (high - low) * (place - place.floor())

    ordered = counts.drop_nulls("value").filter(pl.col("value").is_finite()).sort("feature", "value")
    return ordered.group_by("feature", maintain_order=True).agg(
        quantile(q).alias(name) for name, q in quantiles.items()
    )


def profile_features(
    counts: FeatureCounts, refusals: pl.DataFrame, samples: int, cadence: Mapping[str, float]
) -> pl.DataFrame:
    """Return one row a feature that came, was refused, or was expected.

    Parameters
    ----------
    refusals
        Result of :func:`validation.profiles.places.count_refusals`.
    samples
        Number of samples, for the coverage.
    """
    value, n = pl.col("value"), pl.col("n")
    known = value.is_finite() & value.is_not_null()
    total = n.filter(known).sum()
    mean = (value * n).filter(known).sum() / total
    squares = ((value - mean) ** 2 * n).filter(known).sum()
    spread = counts.values.group_by("feature").agg(
        n.sum().alias("n_events"),
        mean.alias("mean"),
        pl.when(total > 1).then((squares / (total - 1)).sqrt()).alias("std"),
    )
    statistics = ["mean", "std", *QUANTILES]
    shown = pl.col("n_subjects") >= SMALLEST_GROUP
    spread = (
        spread.join(counts.subjects, on="feature")
        .join(counted_quantiles(counts.values, QUANTILES), on="feature", how="left")
        .with_columns(pl.when(shown).then(pl.col(name).round_sig_figs(3)).alias(name) for name in statistics)
    )
    reason = pl.col("reason")

    def refused_for(reasons: Sequence[str]) -> pl.Expr:
        return n.filter(reason.is_in(list(reasons))).sum()

    refused = (
        refusals.filter(pl.col("feature").is_not_null() & ~pl.col("feature").is_in(["ecg", "chest_xray"]))
        .group_by("feature")
        .agg(
            n.sum().alias("n_refused"),
            refused_for(UNIT_REASONS).alias("unit"),
            refused_for(RANGE_REASONS).alias("range"),
            refused_for([str(Reason.PHYSIOLOGY_CONTRADICTION)]).alias("contradicted"),
            refused_for(REPEAT_REASONS).alias("repeated"),
        )
    )
    covered = counts.ages.group_by("feature").agg(n.sum().alias("covered"))
    stale = counted_quantiles(counts.ages, {"stale_hours": 0.5}).with_columns(pl.col("stale_hours").round(1))
    missing = counts.slots.select("feature", (1 - pl.col("filled") / pl.col("slots")).alias("missing_rate"))
    expected = pl.DataFrame({"feature": list(cadence)}, schema={"feature": pl.String})
    names = pl.concat([spread.select("feature"), refused.select("feature"), expected]).unique()
    came = pl.col("n_events") + pl.col("n_refused")

    def share(part: str) -> pl.Expr:
        return pl.when(came > 0).then(pl.col(part) / came).otherwise(0.0)

    counted = ["n_events", "n_subjects", "n_refused", "unit", "range", "contradicted", "repeated", "covered"]
    joined = names
    for frame in (spread, refused, covered, stale, missing):
        joined = joined.join(frame, on="feature", how="left")
    return (
        joined.with_columns(pl.col(counted).fill_null(0).cast(pl.Int64))
        .select(
            "feature",
            "n_events",
            "n_subjects",
            (pl.col("covered") / max(1, samples)).alias("coverage"),
            "missing_rate",
            share("unit").alias("unknown_unit_rate"),
            share("range").alias("out_of_range_rate"),
            share("contradicted").alias("contradicted_rate"),
            share("repeated").alias("repeated_rate"),
            share("n_refused").alias("refused_rate"),
            pl.when(pl.col("covered") >= SMALLEST_WARD).then("stale_hours").alias("stale_hours"),
            *statistics,
        )
        .sort("feature")
    )
