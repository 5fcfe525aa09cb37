"""Invariant 4: what a sample may see. Every path from tables to models goes through this module."""

from __future__ import annotations

import polars as pl

MICROSECONDS_PER_HOUR = 3_600_000_000


def hours_between(later: pl.Expr, earlier: pl.Expr) -> pl.Expr:
    """Return ``later - earlier`` in hours (Float64)."""
    return (later - earlier).dt.total_microseconds() / MICROSECONDS_PER_HOUR


def sample_keys(samples: pl.DataFrame) -> pl.DataFrame:
    """Number the samples by their position: ``row``, subject, prediction time and look-back start."""
    return samples.with_row_index("row").select("row", "subject_id", "prediction_time", "lookback_start")


def visible(
    table: pl.DataFrame | pl.LazyFrame, samples: pl.DataFrame, *, extra_lookback_hours: float | None = None
) -> pl.DataFrame:
    """Pair samples with the rows of a timed table that were known at their prediction time.

    A row is visible when its clinical time lies within the look-back window and it was known
    (``available_time``) no later than the prediction time. Of several versions of one source resource's
    value (same ``source_ref``, ``code`` and ``time``) the latest known one is seen.

    Parameters
    ----------
    table
        ``events``, ``recordings`` or ``images``: ``subject_id``, ``time``, ``available_time`` and more.
    samples
        Rows of the ``Samples`` contract.
    extra_lookback_hours
        Also allow rows up to this many hours before the prediction time, even before ``lookback_start``.

    Returns
    -------
    polars.DataFrame
        The table's columns, ``row`` (position of the sample, UInt32) and ``hours`` (before the prediction
        time, Float64, >= 0). A table row appears once for each sample that may see it.
    """
    start = pl.col("lookback_start")
    if extra_lookback_hours is not None:
        extra = pl.duration(microseconds=int(extra_lookback_hours * MICROSECONDS_PER_HOUR))
        start = pl.min_horizontal(start, pl.col("prediction_time") - extra)
    frame = table.lazy()
    names = frame.collect_schema().names()
    seen = (
        frame.join(sample_keys(samples).lazy(), on="subject_id", how="inner")
        .filter(
            (pl.col("available_time") <= pl.col("prediction_time"))
            & (pl.col("time") <= pl.col("prediction_time"))
            & (pl.col("time") >= start)
        )
        .with_columns(hours_between(pl.col("prediction_time"), pl.col("time")).alias("hours"))
        .drop("prediction_time", "lookback_start")
    )
    if {"source_ref", "code"} <= set(names) and _has_versions(frame):
        version = ["row", "source_ref", "code", "time"]
        seen = seen.filter(pl.col("available_time") == pl.col("available_time").max().over(version))
    return seen.collect()


def _has_versions(table: pl.LazyFrame) -> bool:
    """Tell whether a value may have several versions; cheap, since most tables have none.

    Two values whose hashes happen to agree only make the exact comparison run.
    """
    key = pl.struct("source_ref", "code", "time").hash()
    return table.select(key.n_unique() < pl.len()).collect().item() is True
