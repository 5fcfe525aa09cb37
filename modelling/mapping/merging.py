"""Rows that say the same: corrections, repeats, and volumes of several outlets at one time."""

from __future__ import annotations

from datetime import datetime

import polars as pl

CORRECTED = ("corrected", "amended")


def superseded(rows: pl.DataFrame, as_of: datetime | None) -> pl.Series:
    """Return which rows a correction of the same subject, coding and time replaces.

    Without ``as_of`` a correction replaces only what became known no earlier than itself: a value that was
    known first must stay for prediction times in between (invariant 4). With it, everything that a
    correction known by then replaces.
    """
    corrected = pl.col("status").is_in(list(CORRECTED))
    if not rows.select(corrected.any()).item():
        return pl.repeat(value=False, n=rows.height, dtype=pl.Boolean, eager=True).alias("superseded")
    known = pl.when(corrected).then(pl.col("available_time"))
    if as_of is not None:
        known = pl.when(pl.col("available_time") <= as_of).then(known)
    earliest = known.min().over("subject_id", "coding", "component", "time")
    if as_of is None:
        replaced = pl.col("available_time") >= earliest
    else:
        replaced = earliest.is_not_null()
    return rows.select((~corrected & replaced).fill_null(value=False).alias("superseded"))["superseded"]


def merge_repeats(rows: pl.DataFrame) -> pl.DataFrame:
    """Keep one row of each subject, feature, time and value: the one known first.

    A stated time of knowledge goes before an assumed one, though it is later: of a laboratory value
    charted again at its collection time only the laboratory's own row says when it was known. Features
    that are summed (urine output) repeat only within one coding: equal volumes of two outlets are two
    volumes.
    """
    keys = ["subject_id", "time", "feature", "numeric_value"]
    repeated = rows.select(pl.struct(keys).is_duplicated().alias("repeated"))["repeated"]
    outlet = pl.when(pl.col("combine") == "sum").then(pl.col("coding"))
    kept = (
        rows.filter(repeated)
        .with_columns(outlet.alias("outlet"))
        .sort(*keys, "outlet", "assumed", "available_time", "row")
        .unique([*keys, "outlet"], keep="first", maintain_order=True)
        .drop("outlet")
    )
    return pl.concat([rows.filter(~repeated), kept])


def sum_outlets(rows: pl.DataFrame) -> pl.DataFrame:
    """Add up the values of summed features at one time; the sum is known when its last part is."""
    summed = pl.col("combine") == "sum"
    parts = rows.filter(summed)
    if parts.is_empty():
        return rows
    totals = parts.group_by("subject_id", "feature", "time", maintain_order=True).agg(
        pl.col("numeric_value").cast(pl.Float64).sum().cast(pl.Float32),
        pl.col("available_time").max(),
        pl.all().exclude("numeric_value", "available_time").first(),
    )
    return pl.concat([rows.filter(~summed), totals.select(rows.columns)])
