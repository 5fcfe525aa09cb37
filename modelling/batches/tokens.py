"""Which observed values a sample may use: one row a token, in a fixed order."""

from __future__ import annotations

import polars as pl

from modelling.cohorts.visibility import visible


def observed_values(samples: pl.DataFrame, events: pl.DataFrame, *, ordered: bool = True) -> pl.DataFrame:
    """Return the numeric events that each sample may use.

    Parameters
    ----------
    ordered
        Whether rows come in a fixed order; without, whoever uses them brings them into one.

    Returns
    -------
    polars.DataFrame
        ``row``, ``code``, ``raw`` (Float64), ``hours``, ``table_row`` (position in ``events``). Events
        without a number carry nothing that a model can read and are left out.
    """
    numbered = events.with_row_index("table_row").filter(pl.col("numeric_value").is_not_null())
    columns = ["subject_id", "time", "available_time", "code", "source_ref", "numeric_value", "table_row"]
    values = visible(numbered.select(columns), samples).select(
        "row",
        pl.col("code").cast(pl.String),
        pl.col("numeric_value").cast(pl.Float64).alias("raw"),
        "hours",
        "table_row",
    )
    if not ordered:
        return values
    # Joins and groups come in any order; sums of floats depend on it, so it is fixed here. The value breaks
    # ties, and the order of the events table has no say.
    return values.sort(
        ["row", "hours", "code", "raw", "table_row"], descending=[False, True, False, False, False]
    )


def windowed(values: pl.DataFrame, *, window_hours: float, categorical: list[str]) -> pl.DataFrame:
    """Merge the values of one feature within a window (counted back from the prediction time) into one.

    A categorical feature keeps its latest level; any other gets the mean. ``hours`` becomes the mean too, and
    ``table_row`` the latest event's.
    """
    latest = pl.col("raw").sort_by("hours", "raw", descending=[True, False]).last()
    return (
        values.with_columns((pl.col("hours") / window_hours).floor().cast(pl.Int32).alias("window"))
        .group_by("row", "code", "window", maintain_order=True)
        .agg(
            pl.when(pl.col("code").first().is_in(categorical))
            .then(latest)
            .otherwise(pl.col("raw").mean())
            .alias("raw"),
            pl.col("table_row").sort_by("hours", "raw", descending=[True, False]).last(),
            pl.col("hours").mean().alias("hours"),
        )
        .drop("window")
    )
