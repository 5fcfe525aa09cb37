"""Windowed summaries of a sample's observed values: the table that the simple baselines read.

A *token* is one observed value of one sample: the sample's row number, a catalogue code, the hours
between the observation and the prediction time, and the value. Everything below works on such a long
frame as a whole; no loop runs over patients.

References
----------
Windowed minima, maxima, means and last values of vital signs and laboratory tests are the usual inputs
of severity scores and of strong tabular baselines on ICU data (Johnson et al., Computing in Cardiology
2012; Harutyunyan et al., Scientific Data 2019, doi 10.1038/s41597-019-0103-9, "logistic regression").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from modelling.baselines.arrays import FeatureTable
from modelling.baselines.segments import segment_moments, segment_starts
from modelling.errors import BaselineError

MICROSECONDS_PER_HOUR = 3_600_000_000


@dataclass(frozen=True, kw_only=True)
class Window:
    """Hours before the prediction time: ``newest <= hours_before < oldest`` (``oldest`` included at the end).

    Attributes
    ----------
    name
        Part of the column names.
    newest, oldest
        Bounds in hours before the prediction time; ``oldest`` may be infinite.
    statistics
        Names out of :data:`STATISTICS` and :data:`MOMENTS`.
    """

    name: str
    newest: float
    oldest: float
    statistics: tuple[str, ...]


# Each statistic of the values of one code of one sample in one window; rows are sorted by time. These choose
# values; what adds them up is in MOMENTS.
STATISTICS: dict[str, pl.Expr] = {
    "last": pl.col("value").last(),
    "first": pl.col("value").first(),
    "min": pl.col("value").min(),
    "max": pl.col("value").max(),
    "median": pl.col("value").median(),
    "range": pl.col("value").max() - pl.col("value").min(),
    "change": pl.col("value").last() - pl.col("value").first(),
    "count": pl.len().cast(pl.Float64),
    "hours_since_last": pl.col("hours_before").last(),
    "hours_since_first": pl.col("hours_before").first(),
}
MOMENTS = ("mean", "std", "sum", "slope")

ALL_STATISTICS = (
    "last", "first", "min", "max", "mean", "median", "std", "range", "change", "slope", "count",
    "hours_since_last", "hours_since_first",
)  # fmt: skip
SHORT_STATISTICS = ("min", "max", "mean", "std", "slope", "count")

WINDOWS: tuple[Window, ...] = (
    Window(name="all", newest=0.0, oldest=float("inf"), statistics=ALL_STATISTICS),
    Window(name="24h", newest=0.0, oldest=24.0, statistics=SHORT_STATISTICS),
    Window(name="12h", newest=0.0, oldest=12.0, statistics=SHORT_STATISTICS),
)


def observed_tokens(samples: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Pair each sample with the values that its prediction time allows.

    Parameters
    ----------
    samples
        Table ``samples``; its row order numbers the samples.
    events
        Table ``events``.

    Returns
    -------
    polars.DataFrame
        ``row`` (UInt32, position in ``samples``), ``code``, ``hours_before`` (Float32, >= 0), ``value``
        (Float32), sorted by row, code and time. Values with ``available_time`` or ``time`` after the
        prediction time, or before ``lookback_start``, are left out, as are events without a number.
    """
    keys = samples.with_row_index("row").select("row", "subject_id", "prediction_time", "lookback_start")
    return (
        events.lazy()
        .filter(pl.col("numeric_value").is_not_null() & pl.col("numeric_value").is_finite())
        .select("subject_id", "time", "available_time", "code", "numeric_value")
        .join(keys.lazy(), on="subject_id", how="inner")
        .filter(
            (pl.col("available_time") <= pl.col("prediction_time"))
            & (pl.col("time") <= pl.col("prediction_time"))
            & (pl.col("time") >= pl.col("lookback_start"))
        )
        .select(
            "row",
            pl.col("code").cast(pl.String),
            ((pl.col("prediction_time") - pl.col("time")).dt.total_microseconds() / MICROSECONDS_PER_HOUR)
            .cast(pl.Float32)
            .alias("hours_before"),
            pl.col("numeric_value").cast(pl.Float32).alias("value"),
        )
        .sort("row", "code", pl.col("hours_before"), descending=[False, False, True], maintain_order=True)
        .collect()
    )


def static_columns(samples: pl.DataFrame, encounters: pl.DataFrame) -> pl.DataFrame:
    """Return age in years, sex and unit of each sample, in the order of ``samples``.

    Age is taken at the prediction time from the birth date (null when unknown); ``male`` is 1, 0 or null;
    ``ward`` is the encounter's ward as text or null.
    """
    return (
        samples.select("encounter_id", "prediction_time")
        .with_row_index("row")
        .join(encounters.select("encounter_id", "birth_date", "sex", "ward"), on="encounter_id", how="left")
        .sort("row")
        .select(
            "row",
            ((pl.col("prediction_time").dt.date() - pl.col("birth_date")).dt.total_days() / 365.2425).alias(
                "age_years"
            ),
            pl.when(pl.col("sex") == "male")
            .then(1.0)
            .when(pl.col("sex") == "female")
            .then(0.0)
            .alias("male"),
            "ward",
        )
    )


def _statistics(tokens: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Return one row a row and code, in the order of the tokens, with the named statistics."""
    chosen = [STATISTICS[name].cast(pl.Float64).alias(name) for name in names if name in STATISTICS]
    table = tokens.lazy().group_by("row", "code", maintain_order=True).agg(chosen).collect()
    starts = segment_starts(tokens["row"], tokens["code"].rle_id())
    if len(starts) != table.height:
        raise BaselineError("tokens are not sorted by row and code")
    moments = segment_moments(tokens["hours_before"], tokens["value"], starts)
    return table.with_columns(pl.Series(name, moments[name]) for name in names if name in MOMENTS)


def summarise(
    tokens: pl.DataFrame, *, rows: int, codes: Sequence[str], windows: Sequence[Window] = WINDOWS
) -> FeatureTable:
    """Summarise tokens into one wide row a sample.

    Parameters
    ----------
    tokens
        Frame of :func:`observed_tokens`, sorted as it is there.
    rows
        Number of samples; a sample without tokens gets a row of NaN and zero counts.
    codes
        Codes to summarise, in column order; others are ignored. Passing the codes of the training set
        keeps the columns the same when scoring.
    windows
        Windows and their statistics.

    Returns
    -------
    FeatureTable
        ``values`` float32 ``[rows, len(codes) * statistics]``; missing is NaN, a missing count is 0.

    Raises
    ------
    BaselineError
        If tokens of one row and code do not stand together.
    """
    order = {code: position for position, code in enumerate(codes)}
    known = tokens.filter(pl.col("code").is_in(list(codes)))
    blocks: list[np.ndarray] = []
    names: list[str] = []
    for window in windows:
        inside = (pl.col("hours_before") >= window.newest) & (pl.col("hours_before") < window.oldest)
        table = _statistics(known.filter(inside), window.statistics)
        block = np.full((rows, len(codes), len(window.statistics)), np.nan, dtype=np.float32)
        if "count" in window.statistics:
            block[:, :, window.statistics.index("count")] = 0.0
        if table.height:
            row = table["row"].to_numpy()
            column = table["code"].replace_strict(order, return_dtype=pl.Int64).to_numpy()
            block[row, column] = table.select(window.statistics).to_numpy()
        blocks.append(block.reshape(rows, -1))
        names += [f"{code}|{window.name}|{name}" for code in codes for name in window.statistics]
    values = np.concatenate(blocks, axis=1) if blocks else np.zeros((rows, 0), dtype=np.float32)
    values[~np.isfinite(values)] = np.nan
    return FeatureTable(names=tuple(names), values=values)
