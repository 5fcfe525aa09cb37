"""Profiles of sources and wards, and refusals counted."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from validation.profiles.tables import SMALLEST_WARD

SMALL_WARDS = "(small wards together)"
NO_WARD = "(no ward given)"
UNKNOWN = "(unknown)"

RESOURCE_TYPES = ("Observation", "DocumentReference", "ImagingStudy", "Media")
MODALITIES = ("with_events", "with_ecg", "with_image")


def count_sources(refs: pl.DataFrame) -> pl.DataFrame:
    """Return ``source`` (resource type or table), ``n`` of a column ``source_ref``.

    The pattern is slow, and nearly all rows start with a well-known type.
    """
    types = pl.DataFrame({"source": list(RESOURCE_TYPES)})
    starts = [pl.col("source_ref").str.starts_with(f"{name}/") for name in RESOURCE_TYPES]
    numbers = refs.select(start.sum().alias(name) for name, start in zip(RESOURCE_TYPES, starts, strict=True))
    rest = refs.filter(~pl.any_horizontal(start.fill_null(False) for start in starts))
    counted = types.with_columns(pl.Series("n", numbers.row(0), pl.Int64)).filter(pl.col("n") > 0)
    others = rest.group_by(source_of().alias("source")).agg(pl.len().cast(pl.Int64).alias("n"))
    return pl.concat([counted, others])


def source_of() -> pl.Expr:
    """Return the resource type of ``Observation/123`` or the table of ``chartevents:7``."""
    return pl.col("source_ref").str.extract(r"^([A-Za-z][A-Za-z0-9_-]{0,39})[/:]").fill_null(UNKNOWN)


def count_refusals(quarantine: pl.DataFrame) -> pl.DataFrame:
    """Return ``stage``, ``reason``, ``feature``, ``source``, ``n``, ``whole`` of quarantined rows."""
    return quarantine.group_by("stage", "reason", "feature", source_of().alias("source")).agg(
        pl.len().cast(pl.Int64).alias("n"), pl.col("whole").sum().cast(pl.Int64)
    )


def profile_sources(accepted: Iterable[pl.DataFrame], refusals: pl.DataFrame) -> pl.DataFrame:
    """Return rows accepted and refused by resource type (``Observation``) or table (``chartevents``)."""
    came = pl.concat(accepted).group_by("source").agg(pl.col("n").sum().alias("accepted"))
    refused = refusals.group_by("source").agg(pl.col("n").sum().alias("quarantined"))
    accepted_rows, refused_rows = pl.col("accepted"), pl.col("quarantined")
    return (
        came.join(refused, on="source", how="full", coalesce=True)
        .with_columns(pl.col("accepted", "quarantined").fill_null(0))
        .with_columns(
            pl.when(pl.col("source") != UNKNOWN)  # what has no name was refused, so its share says nothing
            .then(refused_rows / (accepted_rows + refused_rows))
            .alias("quarantined_share")
        )
        .sort("source")
    )


def count_wards(
    events: pl.DataFrame,
    encounters: pl.DataFrame,
    samples: pl.DataFrame,
    recordings: pl.DataFrame,
    images: pl.DataFrame,
) -> pl.DataFrame:
    """Return ``ward``, ``samples`` and how many of them knew each modality at prediction time."""
    asked = (
        samples.with_row_index("sample")
        .join(encounters.select("encounter_id", "ward"), on="encounter_id", how="left")
        .with_columns(pl.col("ward").fill_null(NO_WARD))
    )

    def having(frame: pl.DataFrame) -> pl.Expr:
        first = frame.group_by("subject_id").agg(pl.col("available_time").min().alias("known"))
        found = asked.join(first, on="subject_id").filter(pl.col("known") <= pl.col("prediction_time"))
        return pl.col("sample").is_in(found["sample"].implode())

    return (
        asked.with_columns(
            having(frame).alias(name)
            for name, frame in zip(MODALITIES, (events, recordings, images), strict=True)
        )
        .group_by("ward")
        .agg(pl.len().cast(pl.Int64).alias("samples"), pl.col(MODALITIES).sum().cast(pl.Int64))
    )


def profile_wards(parts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Return which modalities were known at prediction time, ward by ward, small wards together."""
    wards = pl.concat(parts).group_by("ward").agg(pl.all().sum())
    return (
        wards.with_columns(
            pl.when(pl.col("samples") < SMALLEST_WARD)
            .then(pl.lit(SMALL_WARDS))
            .otherwise("ward")
            .alias("ward")
        )
        .group_by("ward")
        .agg(pl.all().sum())
        .with_columns((pl.col(name) / pl.col("samples")).alias(f"{name}_share") for name in MODALITIES)
        .sort("ward")
    )
