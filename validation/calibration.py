"""Calibration to date: do the risks that were written agree with what happened?"""

from __future__ import annotations

import polars as pl

SMALLEST_BIN = 10
"""Stays needed behind a bin before it is shown: fewer would tell of single patients."""


def known_outcomes(scores: pl.DataFrame, outcomes: pl.DataFrame) -> pl.DataFrame:
    """Return ``encounter_id``, ``probability`` and ``outcome`` of the scores whose stays have ended.

    Parameters
    ----------
    scores
        Rows of the ``Scores`` contract of an in-hospital mortality task, of any number of nights.
    outcomes
        Rows of the ``Outcomes`` contract.
    """
    ended = outcomes.select(
        "encounter_id", pl.col("died_in_hospital").cast(pl.Float64).alias("outcome")
    ).drop_nulls()
    return (
        scores.select("encounter_id", "probability")
        .drop_nulls()
        .join(ended, on="encounter_id")
        .select("encounter_id", "probability", "outcome")
    )


def calibrate(pairs: pl.DataFrame, *, bins: int = 10) -> pl.DataFrame:
    """Return predicted and observed risk in bins of equal numbers.

    Parameters
    ----------
    pairs
        ``encounter_id``, ``probability`` and ``outcome`` (0 or 1); a stay that was scored on several
        nights has several rows.

    Returns
    -------
    polars.DataFrame
        ``low``, ``high`` (edges of the bin, two digits), ``n``, ``predicted``, ``observed``; no row for
        bins of fewer than :data:`SMALLEST_BIN` stays.
    """
    bins = max(1, min(bins, pairs["encounter_id"].n_unique() // SMALLEST_BIN))
    place = (pl.col("probability").rank("ordinal").cast(pl.Int64) - 1) * bins // max(1, pairs.height)
    return (
        pairs.with_columns(place.alias("bin"))
        .group_by("bin")
        .agg(
            pl.col("probability").min().round(2).alias("low"),
            pl.col("probability").max().round(2).alias("high"),
            pl.len().cast(pl.Int64).alias("n"),
            pl.col("probability").mean().round(4).alias("predicted"),
            pl.col("outcome").mean().round(4).alias("observed"),
            pl.col("encounter_id").n_unique().alias("stays"),
        )
        .filter(pl.col("stays") >= SMALLEST_BIN)
        .sort("bin")
        .drop("bin", "stays")
    )
