"""Rows that say the same: corrections, repeats, and volumes of several outlets at one time."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl

CORRECTED = ("corrected", "amended")
KEY = ("subject_id", "time", "feature", "numeric_value")
"""What an event says, in the order in which events are sorted."""


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


def sort_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows sorted by :data:`KEY`; ``feature`` is an Enum, values are not null.

    Sources give their rows mostly by patient and time, of which NumPy's sort makes use. Feature and value
    then fit beside the number of the moment into one integer, which sorts several times faster than columns.
    """
    if rows.is_empty():
        return rows
    subject, time = rows["subject_id"].to_numpy(), rows["time"].to_physical().to_numpy()
    by_moment = np.lexsort((time, subject))
    subject, time = subject[by_moment], time[by_moment]
    moment = np.zeros(rows.height, dtype=np.int64)
    np.cumsum((subject[1:] != subject[:-1]) | (time[1:] != time[:-1]), out=moment[1:])
    feature = rows["feature"].to_physical().to_numpy()[by_moment].astype(np.int64)
    if moment[-1] >= 1 << 23 or feature.max() >= 1 << 8:
        return rows.sort(KEY)
    # Adding zero makes -0.0 and 0.0 the same; the exclusive or turns the order of negative numbers round.
    bits = (rows["numeric_value"].to_numpy()[by_moment] + np.float32(0)).view(np.int32)
    value = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64) + (1 << 31)
    return rows[by_moment[np.argsort(moment << 40 | feature << 32 | value)]]


def merge_repeats(rows: pl.DataFrame) -> pl.DataFrame:
    """Keep one row of each subject, feature, time and value: the one known first; sort by these.

    A stated time of knowledge goes before an assumed one, though it is later: of a laboratory value
    charted again at its collection time only the laboratory's own row says when it was known. Features
    that are summed (urine output) repeat only within one ``outlet`` (null for other features): equal volumes
    of two outlets are two volumes.
    """
    ordered = sort_rows(rows)
    again = pl.all_horizontal(pl.col(name) == pl.col(name).shift() for name in KEY).fill_null(value=False)
    repeated = ordered.select((again | again.shift(-1, fill_value=False)).alias("repeated"))["repeated"]
    if not repeated.any():
        return ordered
    first = (
        ordered.filter(repeated)
        .sort(*KEY, "outlet", "assumed", "available_time", "row")
        .unique([*KEY, "outlet"], keep="first")
    )
    return ordered.filter(~repeated | ordered["row"].is_in(first["row"].implode()))


def sum_outlets(rows: pl.DataFrame) -> pl.DataFrame:
    """Add up the values of summed features at one time; the sum is known when its last part is.

    Rows are sorted by :data:`KEY`, and stay so: a sum takes the place of the part that the source gave first.
    """
    summed = rows["outlet"].is_not_null()
    if not summed.any():
        return rows
    totals = (
        rows.with_row_index("place")
        .filter(summed)
        .group_by("subject_id", "feature", "time")
        .agg(
            pl.col("place").sort_by("row").first(),
            pl.col("numeric_value").cast(pl.Float64).sum().cast(pl.Float32),
            pl.col("available_time").max(),
        )
    )
    place = totals["place"]
    first = pl.repeat(value=False, n=rows.height, dtype=pl.Boolean, eager=True).scatter(place, values=True)
    return rows.with_columns(
        rows[name].scatter(place, totals[name]) for name in ("numeric_value", "available_time")
    ).filter(~summed | first)
