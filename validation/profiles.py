"""What a night looks like in numbers: aggregates by feature, source and ward, never a row.

The frames of :class:`Profiles` are all that the gate, the history and the report see. Two rules keep
single patients out of them: location and spread of a feature are given only where at least
:data:`SMALLEST_GROUP` subjects stand behind them, and rounded to three significant digits; wards with
fewer than :data:`SMALLEST_WARD` samples are shown together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import polars as pl

from validation.equations import Counts
from validation.reasons import Reason

SMALLEST_GROUP = 10
"""Subjects needed before a quantile is shown."""

SMALLEST_WARD = 5
"""Samples needed before a ward gets a row of its own."""

SMALL_WARDS = "(small wards together)"
NO_WARD = "(no ward given)"
UNKNOWN = "(unknown)"

QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}

RESOURCE_TYPES = ("Observation", "DocumentReference", "ImagingStudy", "Media")

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


@dataclass(frozen=True, kw_only=True)
class Profiles:
    """The profile tables of one night.

    Attributes
    ----------
    night
        One row: counts and shares of the whole night (:data:`NIGHT_COLUMNS`).
    features
        One row a feature: ``feature``, ``n_events``, ``n_subjects``, ``coverage`` (share of samples
        with a value in their look-back), ``missing_rate`` (share of expected intervals without a value;
        null where nothing is expected), ``unknown_unit_rate``, ``out_of_range_rate``,
        ``contradicted_rate``, ``repeated_rate``, ``refused_rate`` (of all rows of the feature that
        came), ``stale_hours`` (median age of the last value), ``mean``, ``std``, ``q05`` ... ``q95``.
    sources
        ``source`` (resource type or table), ``accepted``, ``quarantined``, ``quarantined_share`` (null where
        the source is not known).
    wards
        ``ward``, ``samples``, ``with_events``, ``with_ecg``, ``with_image`` and their ``_share``.
    quarantine
        ``stage``, ``reason``, ``n``, most frequent first.
    """

    night: pl.DataFrame
    features: pl.DataFrame
    sources: pl.DataFrame
    wards: pl.DataFrame
    quarantine: pl.DataFrame
    drift: pl.DataFrame = field(default_factory=lambda: empty_drift())

    def tables(self) -> dict[str, pl.DataFrame]:
        """Return the frames by name, in a fixed order."""
        return {
            "night": self.night,
            "features": self.features,
            "sources": self.sources,
            "wards": self.wards,
            "quarantine": self.quarantine,
            "drift": self.drift,
        }

    def save(self, folder: Path) -> None:
        """Write one Parquet file a table."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in self.tables().items():
            table.write_parquet(folder / f"{name}.parquet")

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Return what :meth:`save` wrote, or None where a table is missing."""
        files = {name: folder / f"{name}.parquet" for name in cls.__dataclass_fields__}
        if not all(path.is_file() for path in files.values()):
            return None
        return cls(**{name: pl.read_parquet(path) for name, path in files.items()})


def empty_drift() -> pl.DataFrame:
    """Return a drift table without rows, for a night that has no reference."""
    return pl.DataFrame(
        schema={
            "kind": pl.String,
            "name": pl.String,
            "n": pl.Int64,
            "psi": pl.Float64,
            "distance": pl.Float64,
            "p_value": pl.Float64,
            "q_value": pl.Float64,
            "drifted": pl.Boolean,
        }
    )


def profile_night(
    *,
    events: pl.DataFrame,
    encounters: pl.DataFrame,
    samples: pl.DataFrame,
    quarantine: pl.DataFrame,
    recordings: pl.DataFrame,
    images: pl.DataFrame,
    counts: Counts | None = None,
    unmapped: pl.DataFrame | None = None,
    cadence: Mapping[str, float] | None = None,
    drift: pl.DataFrame | None = None,
) -> Profiles:
    """Aggregate a night's tables.

    Parameters
    ----------
    events, recordings, images
        Accepted rows.
    encounters, samples
        Who is there, and which questions are asked.
    quarantine
        Refused rows of every stage.
    counts
        What the night counted so far; ``pulled``, ``accepted``, ``quarantined``, ``eligible`` and
        ``skipped`` are used. When None, they are taken from the tables as far as these can tell.
    unmapped
        ``n`` a coding that the catalogue does not use.
    cadence
        Hours within which a value is expected, by feature; :data:`CADENCE_HOURS` when None.
    drift
        Result of :func:`validation.drift.compare_night`, to be kept with the profiles.
    """
    cadence = CADENCE_HOURS if cadence is None else cadence
    features = profile_features(events, encounters, samples, quarantine, cadence)
    sources = profile_sources(events, recordings, images, quarantine)
    wards = profile_wards(events, encounters, samples, recordings, images)
    reasons = (
        quarantine.group_by("stage", "reason")
        .agg(pl.len().cast(pl.Int64).alias("n"))
        .sort("n", "stage", "reason", descending=[True, False, False])
    )
    return Profiles(
        night=_profile_whole(events, encounters, samples, quarantine, recordings, images, counts, unmapped),
        features=features,
        sources=sources,
        wards=wards,
        quarantine=reasons,
        drift=empty_drift() if drift is None else drift,
    )


def _share(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    return pl.when(whole > 0).then(part / whole).otherwise(0.0)


def _profile_whole(
    events: pl.DataFrame,
    encounters: pl.DataFrame,
    samples: pl.DataFrame,
    quarantine: pl.DataFrame,
    recordings: pl.DataFrame,
    images: pl.DataFrame,
    counts: Counts | None,
    unmapped: pl.DataFrame | None,
) -> pl.DataFrame:
    whole = int(quarantine["whole"].sum()) if quarantine.height else 0
    if counts is None:
        came = sum(frame["source_ref"].n_unique() for frame in (events, recordings, images))
        counts = Counts(pulled=came + whole, accepted=came, quarantined=whole, eligible=samples.height)
    units = quarantine.filter(pl.col("reason").is_in(UNIT_REASONS)).height
    rows = events.height + quarantine.height
    served = samples.join(events.select("subject_id").unique(), on="subject_id", how="semi").height
    return pl.DataFrame(
        {
            "pulled": [counts.pulled],
            "accepted": [counts.accepted],
            "quarantined": [counts.quarantined],
            "quarantined_share": [counts.quarantined_share],
            "lost": [abs(counts.pulled - counts.accepted - counts.quarantined)],
            "encounters": [encounters.height],
            "eligible": [counts.eligible],
            "samples": [samples.height],
            "skipped_share": [counts.skipped_share],
            "samples_with_events_share": [served / samples.height if samples.height else 0.0],
            "subjects": [samples["subject_id"].n_unique()],
            "events": [events.height],
            "features": [events["code"].n_unique()],
            "recordings": [recordings.height],
            "images": [images.height],
            "unknown_unit_share": [units / rows if rows else 0.0],
            "unmapped": [int(unmapped["n"].sum()) if unmapped is not None and unmapped.height else 0],
            "unmapped_codes": [unmapped.height if unmapped is not None else 0],
        }
    )


def _significant(column: pl.Expr) -> pl.Expr:
    return column.round_sig_figs(3)


def profile_features(
    events: pl.DataFrame,
    encounters: pl.DataFrame,
    samples: pl.DataFrame,
    quarantine: pl.DataFrame,
    cadence: Mapping[str, float],
) -> pl.DataFrame:
    """Return one row a feature that came, was refused, or was expected."""
    value = pl.col("numeric_value").cast(pl.Float64)
    shown = pl.col("n_subjects") >= SMALLEST_GROUP
    spread = events.group_by(pl.col("code").alias("feature")).agg(
        pl.len().cast(pl.Int64).alias("n_events"),
        pl.col("subject_id").n_unique().cast(pl.Int64).alias("n_subjects"),
        value.mean().alias("mean"),
        value.std().alias("std"),
        *(value.quantile(q, "linear").alias(name) for name, q in QUANTILES.items()),
    )
    statistics = ["mean", "std", *QUANTILES]
    spread = spread.with_columns(
        pl.when(shown).then(_significant(pl.col(name))).alias(name) for name in statistics
    )
    refused = (
        quarantine.filter(pl.col("feature").is_not_null())
        .group_by("feature")
        .agg(
            pl.len().cast(pl.Int64).alias("n_refused"),
            pl.col("reason").is_in(UNIT_REASONS).sum().alias("unit"),
            pl.col("reason").is_in(RANGE_REASONS).sum().alias("range"),
            (pl.col("reason") == str(Reason.PHYSIOLOGY_CONTRADICTION)).sum().alias("contradicted"),
            pl.col("reason").is_in(REPEAT_REASONS).sum().alias("repeated"),
        )
        .filter(~pl.col("feature").is_in(["ecg", "chest_xray"]))
    )
    expected = pl.DataFrame({"feature": list(cadence)}, schema={"feature": pl.String})
    names = pl.concat([spread.select("feature"), refused.select("feature"), expected]).unique()
    came = pl.col("n_events") + pl.col("n_refused")
    known = _look_back(events, encounters, samples, cadence)
    counted = ["n_events", "n_subjects", "n_refused", "unit", "range", "contradicted", "repeated"]
    return (
        names.join(spread, on="feature", how="left")
        .join(refused, on="feature", how="left")
        .with_columns(pl.col(counted).fill_null(0))
        .join(known, on="feature", how="left")
        .select(
            "feature",
            "n_events",
            "n_subjects",
            pl.col("coverage").fill_null(0.0),
            "missing_rate",
            _share(pl.col("unit"), came).alias("unknown_unit_rate"),
            _share(pl.col("range"), came).alias("out_of_range_rate"),
            _share(pl.col("contradicted"), came).alias("contradicted_rate"),
            _share(pl.col("repeated"), came).alias("repeated_rate"),
            _share(pl.col("n_refused"), came).alias("refused_rate"),
            "stale_hours",
            *statistics,
        )
        .sort("feature")
    )


def _look_back(
    events: pl.DataFrame, encounters: pl.DataFrame, samples: pl.DataFrame, cadence: Mapping[str, float]
) -> pl.DataFrame:
    """Return coverage, missing rate and staleness of each feature as the samples see it."""
    hours = pl.DataFrame(
        {"feature": list(cadence), "cadence": list(cadence.values())},
        schema={"feature": pl.String, "cadence": pl.Float64},
    )
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
    slots = (
        asked.select("sample", window)
        .join(hours, how="cross")
        .select(
            "sample", "feature", (pl.col("window") / pl.col("cadence")).floor().cast(pl.Int64).alias("slots")
        )
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
        .join(hours.lazy(), on="feature", how="left")
        .select("sample", "feature", age.alias("age"), (age / pl.col("cadence")).floor().alias("slot"))
        .group_by("feature", "sample")
        .agg(pl.col("age").min(), pl.col("slot").drop_nulls().n_unique().alias("filled"))
        .collect()
    )
    missing = (
        slots.filter(pl.col("slots") > 0)
        .join(seen, on=["sample", "feature"], how="left")
        .with_columns(pl.min_horizontal(pl.col("filled").fill_null(0), "slots").alias("filled"))
        .group_by("feature")
        .agg((1 - pl.col("filled").sum() / pl.col("slots").sum()).alias("missing_rate"))
    )
    covered = seen.group_by("feature").agg(
        (pl.len() / max(1, samples.height)).alias("coverage"),
        pl.when(pl.len() >= SMALLEST_WARD).then(pl.col("age").median().round(1)).alias("stale_hours"),
    )
    return covered.join(missing, on="feature", how="full", coalesce=True)


def profile_sources(
    events: pl.DataFrame, recordings: pl.DataFrame, images: pl.DataFrame, quarantine: pl.DataFrame
) -> pl.DataFrame:
    """Return rows accepted and refused by resource type (``Observation``) or table (``chartevents``)."""

    def kind(frame: pl.DataFrame, name: str) -> pl.DataFrame:
        """Count rows by source; the pattern is slow, and nearly all rows start with a well-known type."""
        types = pl.DataFrame({"source": list(RESOURCE_TYPES)})
        starts = [pl.col("source_ref").str.starts_with(f"{name}/") for name in RESOURCE_TYPES]
        numbers = frame.select(
            start.sum().alias(name) for name, start in zip(RESOURCE_TYPES, starts, strict=True)
        )
        rest = frame.filter(~pl.any_horizontal(start.fill_null(False) for start in starts))
        found = pl.col("source_ref").str.extract(r"^([A-Za-z][A-Za-z0-9_-]{0,39})[/:]").fill_null(UNKNOWN)
        counted = types.with_columns(pl.Series(name, numbers.row(0), pl.Int64)).filter(pl.col(name) > 0)
        others = rest.group_by(found.alias("source")).agg(pl.len().cast(pl.Int64).alias(name))
        return pl.concat([counted, others])

    refs = pl.concat([frame.select("source_ref") for frame in (events, recordings, images)])
    return (
        kind(refs, "accepted")
        .join(kind(quarantine.select("source_ref"), "quarantined"), on="source", how="full", coalesce=True)
        .with_columns(pl.col("accepted", "quarantined").fill_null(0))
        .with_columns(
            pl.when(pl.col("source") != UNKNOWN)  # what has no name was refused, so its share says nothing
            .then(_share(pl.col("quarantined"), pl.col("accepted") + pl.col("quarantined")))
            .alias("quarantined_share")
        )
        .sort("source")
    )


def profile_wards(
    events: pl.DataFrame,
    encounters: pl.DataFrame,
    samples: pl.DataFrame,
    recordings: pl.DataFrame,
    images: pl.DataFrame,
) -> pl.DataFrame:
    """Return which modalities were known at prediction time, ward by ward."""
    asked = samples.with_row_index("sample").join(
        encounters.select("encounter_id", pl.col("ward").fill_null(NO_WARD)), on="encounter_id", how="left"
    )
    asked = asked.with_columns(pl.col("ward").fill_null(NO_WARD))

    def having(frame: pl.DataFrame) -> pl.Expr:
        first = frame.group_by("subject_id").agg(pl.col("available_time").min().alias("known"))
        found = asked.join(first, on="subject_id").filter(pl.col("known") <= pl.col("prediction_time"))
        return pl.col("sample").is_in(found["sample"].implode())

    small = pl.len().over("ward") < SMALLEST_WARD
    return (
        asked.with_columns(
            having(events).alias("with_events"),
            having(recordings).alias("with_ecg"),
            having(images).alias("with_image"),
            pl.when(small).then(pl.lit(SMALL_WARDS)).otherwise("ward").alias("ward"),
        )
        .group_by("ward")
        .agg(
            pl.len().cast(pl.Int64).alias("samples"),
            pl.col("with_events", "with_ecg", "with_image").sum().cast(pl.Int64),
        )
        .with_columns(
            (pl.col(name) / pl.col("samples")).alias(f"{name}_share")
            for name in ("with_events", "with_ecg", "with_image")
        )
        .sort("ward")
    )
