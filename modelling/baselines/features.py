"""The summary features of a sample: one function for training and for scoring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import polars as pl

from modelling.baselines.arrays import FeatureTable
from modelling.baselines.quantities import (
    QUANTITIES,
    derived_codes,
    measured,
    quantity,
    row_sums,
    with_derived,
)
from modelling.baselines.summaries import (
    ALL_STATISTICS,
    SHORT_STATISTICS,
    Window,
    observed_tokens,
    static_columns,
    summarise,
)

HOURS = 48.0
WINDOWS: tuple[Window, ...] = (
    Window(name="all", newest=0.0, oldest=float("inf"), statistics=(*ALL_STATISTICS, "sum")),
    Window(name="24h", newest=0.0, oldest=24.0, statistics=SHORT_STATISTICS),
    Window(name="12h", newest=0.0, oldest=12.0, statistics=SHORT_STATISTICS),
    Window(name="6h", newest=0.0, oldest=6.0, statistics=("mean", "min", "max", "count")),
    Window(name="12-24h", newest=12.0, oldest=24.0, statistics=("mean", "min", "max")),
    Window(name="24-36h", newest=24.0, oldest=36.0, statistics=("mean", "min", "max")),
    Window(name="36h-", newest=36.0, oldest=float("inf"), statistics=("mean", "min", "max")),
)
AGED = ("glasgow_coma_scale", "urea_nitrogen", "lactate", "bicarbonate")
"""Quantities whose latest value is also given times age."""


@dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """What the columns are.

    Attributes
    ----------
    codes
        Catalogue codes to summarise, in column order, those of the training data.
    wards
        Ward names with a column each; empty leaves the ward out, as a model for other hospitals must.
    """

    codes: tuple[str, ...]
    wards: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {"codes": list(self.codes), "wards": list(self.wards)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Build settings from :meth:`to_dict`'s result."""
        return cls(codes=tuple(fields["codes"]), wards=tuple(fields["wards"]))

    @classmethod
    def fit(cls, events: pl.DataFrame, encounters: pl.DataFrame, *, wards: bool, minimum: int = 50) -> Self:
        """Take the codes that at least ``minimum`` subjects of the training data have."""
        codes = (
            events.filter(pl.col("numeric_value").is_not_null())
            .group_by(pl.col("code").cast(pl.String))
            .agg(pl.col("subject_id").n_unique())
            .filter(pl.col("subject_id") >= minimum)["code"]
            .sort()
        )
        names = encounters["ward"].drop_nulls().unique().sort().to_list() if wards else []
        return cls(codes=tuple(codes), wards=tuple(names))


def feature_table(
    samples: pl.DataFrame, events: pl.DataFrame, encounters: pl.DataFrame, settings: FeatureSettings
) -> FeatureTable:
    """Return the summary features of each sample, in the order of ``samples``.

    A row depends on its own sample only. Missing is NaN.
    """
    tokens = measured(observed_tokens(samples, events))
    return features_of_tokens(tokens, static_columns(samples, encounters), settings, rows=samples.height)


def features_of_tokens(
    tokens: pl.DataFrame, static: pl.DataFrame, settings: FeatureSettings, *, rows: int
) -> FeatureTable:
    """Return the features from tokens and static columns (see :mod:`modelling.baselines.summaries`)."""
    known = tokens.filter(pl.col("code").is_in(list(settings.codes)))
    codes = (*settings.codes, *derived_codes())
    table = summarise(with_derived(known), rows=rows, codes=codes, windows=WINDOWS)
    return table.beside(_extras(known, static, settings, table))


def _latest(tokens: pl.DataFrame, name: str, rows: int) -> np.ndarray:
    result = np.full(rows, np.nan, dtype=np.float32)
    found = quantity(tokens, name).group_by("row").agg(pl.col("value").last())
    result[found["row"].to_numpy()] = found["value"].to_numpy()
    return result


def _extras(
    tokens: pl.DataFrame, static: pl.DataFrame, settings: FeatureSettings, table: FeatureTable
) -> FeatureTable:
    rows = static.height
    age = static["age_years"].cast(pl.Float32).to_numpy()
    columns: dict[str, np.ndarray] = {
        "age_years": age,
        "male": static["male"].cast(pl.Float32).to_numpy(),
    }
    for ward in settings.wards:
        columns[f"ward={ward}"] = (static["ward"] == ward).fill_null(value=False).cast(pl.Float32).to_numpy()
    weight = _latest(tokens, "weight", rows)
    height = _latest(tokens, "height", rows)
    columns["body_mass_index"] = weight / (height / 100.0) ** 2
    urine = tokens.filter(pl.col("code").is_in(list(QUANTITIES["urine_output"])))
    for hours in (12.0, 24.0, HOURS):
        amount = row_sums(urine.filter(pl.col("hours_before") < hours), rows=rows).astype(np.float32)
        columns[f"urine_{hours:.0f}h"] = amount
        columns[f"urine_{hours:.0f}h_per_kg"] = amount / weight
    for name in AGED:
        columns[f"age_times_{name}"] = age * _latest(tokens, name, rows)
    counts = np.stack([table.column(f"{code}|all|count") for code in settings.codes], axis=1)
    columns["observations"] = np.nansum(counts, axis=1)
    columns["features_observed"] = (np.nan_to_num(counts) > 0).sum(axis=1)
    values = np.stack([np.asarray(column, dtype=np.float32) for column in columns.values()], axis=1)
    values[~np.isfinite(values)] = np.nan
    return FeatureTable(tuple(columns), values)
