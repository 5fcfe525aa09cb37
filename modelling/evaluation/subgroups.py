"""Groups of patients in which a model must hold too."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import polars as pl

AGE_BANDS = (18.0, 45.0, 65.0, 75.0, 85.0)
SUBGROUPS = ("age_band", "sex", "unit", "modalities")
UNKNOWN = "unknown"


def age_band(age_years: pl.Expr) -> pl.Expr:
    """Return ``<18``, ``18-44``, ``45-64``, ``65-74``, ``75-84``, ``85+`` or ``unknown``."""
    label = pl.lit(f"{AGE_BANDS[-1]:.0f}+")
    for low, high in reversed(list(pairwise(AGE_BANDS))):
        label = pl.when(age_years < high).then(pl.lit(f"{low:.0f}-{high - 1:.0f}")).otherwise(label)
    label = pl.when(age_years < AGE_BANDS[0]).then(pl.lit(f"<{AGE_BANDS[0]:.0f}")).otherwise(label)
    return pl.when(age_years.is_null()).then(pl.lit(UNKNOWN)).otherwise(label)


def sample_groups(
    samples: pl.DataFrame, encounters: pl.DataFrame, modalities: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Return the subgroups of each sample, in the order of ``samples``.

    Parameters
    ----------
    samples
        Table ``samples``.
    encounters
        Table ``encounters``.
    modalities
        ``encounter_id``, ``prediction_time`` and ``modalities_present`` (list of strings), for instance the
        table ``scores``; None leaves that group ``unknown``.

    Returns
    -------
    polars.DataFrame
        Text columns ``age_band``, ``sex``, ``unit``, ``modalities``; never null.
    """
    joined = (
        samples.select("encounter_id", "prediction_time")
        .with_row_index("row")
        .join(
            encounters.select("encounter_id", "birth_date", "sex", "ward").unique("encounter_id"),
            on="encounter_id",
            how="left",
        )
    )
    if modalities is None:
        joined = joined.with_columns(modalities=pl.lit(UNKNOWN))
    else:
        present = modalities.select(
            "encounter_id",
            "prediction_time",
            pl.col("modalities_present").list.sort().list.join("+").alias("modalities"),
        ).unique(["encounter_id", "prediction_time"])
        joined = joined.join(present, on=["encounter_id", "prediction_time"], how="left")
    years = (pl.col("prediction_time").dt.date() - pl.col("birth_date")).dt.total_days() / 365.2425
    return joined.sort("row").select(
        age_band(years).alias("age_band"),
        pl.col("sex").fill_null(UNKNOWN),
        pl.col("ward").fill_null(UNKNOWN).alias("unit"),
        pl.when(pl.col("modalities") == "")
        .then(pl.lit("none"))
        .otherwise(pl.col("modalities"))
        .fill_null(UNKNOWN)
        .alias("modalities"),
    )


def group_rows(groups: pl.DataFrame, names: Sequence[str] = SUBGROUPS) -> list[tuple[str, str, pl.Series]]:
    """Return (subgroup, level, boolean mask) for each level of each named column that exists."""
    return [
        (name, str(level), groups[name] == level)
        for name in names
        if name in groups.columns
        for level in groups[name].drop_nulls().unique().sort()
    ]
