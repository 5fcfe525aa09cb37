"""Bedside quantities from catalogue features: which codes carry them, and quantities of two codes.

An arterial line and a cuff, for instance, are two catalogue features and one quantity, *systolic pressure*.
Ratios of two quantities pair each value with the latest value of the other, if that is recent enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from modelling.baselines.segments import segment_starts, segment_sums
from modelling.errors import BaselineError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Ratio:
    """A quantity made of two others.

    Attributes
    ----------
    first, second
        Names in :data:`QUANTITIES`; each value of ``first`` is paired with the latest of ``second``.
    within
        Hours that ``second`` may be older.
    combine
        Expression of ``first`` and ``second``.
    """

    first: str
    second: str
    within: float
    combine: Callable[[pl.Expr, pl.Expr], pl.Expr]


# Quantity -> catalogue codes, the more reliable first. Units are the catalogue's canonical units.
QUANTITIES: Mapping[str, tuple[str, ...]] = {
    "heart_rate": ("heart_rate",),
    "respiratory_rate": ("respiratory_rate",),
    "temperature": ("temperature",),
    "oxygen_saturation": ("spo2", "sao2"),
    "systolic_pressure": ("systolic_bp_invasive", "systolic_bp"),
    "diastolic_pressure": ("diastolic_bp_invasive", "diastolic_bp"),
    "mean_pressure": ("mean_bp_invasive", "mean_bp"),
    "glasgow_coma_scale": ("gcs_total",),
    "inspired_oxygen": ("fio2",),
    "arterial_oxygen": ("pao2",),
    "arterial_carbon_dioxide": ("paco2",),
    "ventilated": ("mechanical_ventilation",),
    "creatinine": ("creatinine",),
    "urea_nitrogen": ("bun",),
    "bilirubin": ("bilirubin_total",),
    "platelets": ("platelets",),
    "sodium": ("sodium",),
    "bicarbonate": ("bicarbonate",),
    "urine_output": ("urine_output",),
    "weight": ("weight",),
    "height": ("height",),
    "lactate": ("lactate",),
}

# Lowest values that are a measurement: below, a line was flushed, a cuff or a probe was off. The events table
# keeps them (the source said so); summaries such as a minimum would be ruined by them.
LOWEST: Mapping[str, float] = {
    "heart_rate": 10.0,
    "respiratory_rate": 1.0,
    "temperature": 28.0,
    "systolic_bp": 25.0,
    "systolic_bp_invasive": 25.0,
    "diastolic_bp": 8.0,
    "diastolic_bp_invasive": 8.0,
    "mean_bp": 15.0,
    "mean_bp_invasive": 15.0,
    "spo2": 30.0,
    "sao2": 20.0,
}

RATIOS: Mapping[str, Ratio] = {
    "pao2_fio2": Ratio("arterial_oxygen", "inspired_oxygen", 12.0, lambda a, b: a / b.clip(0.21, 1.0)),
    "shock_index": Ratio("heart_rate", "systolic_pressure", 4.0, lambda a, b: a / b),
    "pulse_pressure": Ratio("systolic_pressure", "diastolic_pressure", 0.1, lambda a, b: a - b),
    "urea_creatinine": Ratio("urea_nitrogen", "creatinine", 0.1, lambda a, b: a / b.clip(0.1)),
    "sodium_bicarbonate_gap": Ratio("sodium", "bicarbonate", 0.1, lambda a, b: a - b),
    "carbon_dioxide_bicarbonate": Ratio(
        "arterial_carbon_dioxide", "bicarbonate", 24.0, lambda a, b: a / b.clip(1.0)
    ),
}
MERGED = ("systolic_pressure", "diastolic_pressure", "mean_pressure", "oxygen_saturation")
DERIVED_PREFIX = "derived/"


def measured(tokens: pl.DataFrame) -> pl.DataFrame:
    """Return tokens without values below :data:`LOWEST` of their code."""
    lowest = pl.col("code").replace_strict(dict(LOWEST), default=None, return_dtype=pl.Float64)
    return tokens.filter((pl.col("value") >= lowest).fill_null(value=True))


def quantity(tokens: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return one quantity's values: ``row``, ``hours_before``, ``value``, oldest first in each row.

    Values of several codes at the same time are reduced to that of the first code in :data:`QUANTITIES`.
    """
    if name in RATIOS:
        return _ratio(tokens, RATIOS[name])
    if name not in QUANTITIES:
        raise BaselineError(f"{name!r} is not a quantity")
    codes = QUANTITIES[name]
    return (
        tokens.lazy()
        .filter(pl.col("code").is_in(list(codes)))
        .with_columns(
            pl.col("code").replace_strict({code: n for n, code in enumerate(codes)}, return_dtype=pl.Int8)
        )
        .sort("row", pl.col("hours_before").neg(), "code")
        .unique(["row", "hours_before"], keep="first", maintain_order=True)
        .select("row", "hours_before", "value")
        .collect()
    )


def _ratio(tokens: pl.DataFrame, ratio: Ratio) -> pl.DataFrame:
    clock = pl.col("hours_before").neg().alias("clock")
    first = quantity(tokens, ratio.first).with_columns(clock).sort("clock")
    second = (
        quantity(tokens, ratio.second).with_columns(clock).sort("clock").select("row", "clock", other="value")
    )
    return (
        first.join_asof(
            second,
            on="clock",
            by="row",
            strategy="backward",
            tolerance=ratio.within,
            check_sortedness=False,
        )
        .filter(pl.col("other").is_not_null())
        .select("row", "hours_before", ratio.combine(pl.col("value"), pl.col("other")).alias("value"))
        .filter(pl.col("value").is_finite())
        .sort("row", pl.col("hours_before").neg())
    )


def derived_codes() -> tuple[str, ...]:
    """Return the codes that :func:`with_derived` may add."""
    return tuple(DERIVED_PREFIX + name for name in (*MERGED, *RATIOS))


def with_derived(tokens: pl.DataFrame) -> pl.DataFrame:
    """Return tokens with the merged quantities and ratios as further codes, sorted as before."""
    added = [
        quantity(tokens, name).select(
            "row",
            pl.lit(DERIVED_PREFIX + name).alias("code"),
            pl.col("hours_before").cast(pl.Float32),
            pl.col("value").cast(pl.Float32),
        )
        for name in (*MERGED, *RATIOS)
    ]
    return pl.concat([tokens.select("row", "code", "hours_before", "value"), *added]).sort(
        "row", "code", "hours_before", descending=[False, False, True], maintain_order=True
    )


def _column(table: pl.DataFrame, rows: int) -> Array:
    result = np.full(rows, np.nan)
    result[table["row"].to_numpy()] = table["value"].to_numpy()
    return result


def latest(tokens: pl.DataFrame, *, rows: int, hours: float) -> Callable[[str], Array]:
    """Return a function from a quantity to each sample's latest value of the last ``hours``, ``[rows]``."""
    recent = tokens.filter(pl.col("hours_before") <= hours)

    def value(name: str) -> Array:
        table = quantity(recent, name).group_by("row").agg(pl.col("value").last())
        return _column(table, rows)

    return value


def worst(tokens: pl.DataFrame, *, rows: int, hours: float, direction: str) -> Callable[[str], Array]:
    """Return a function from a quantity to each sample's ``min`` or ``max`` of the last ``hours``."""
    recent = tokens.filter(pl.col("hours_before") <= hours)
    extreme = {"min": pl.col("value").min(), "max": pl.col("value").max()}[direction]

    def value(name: str) -> Array:
        return _column(quantity(recent, name).group_by("row").agg(extreme), rows)

    return value


def row_sums(tokens: pl.DataFrame, *, rows: int) -> Array:
    """Return the sum of each sample's values, ``[rows]``; NaN where it has none."""
    ordered = tokens.sort("row", maintain_order=True)
    starts = segment_starts(ordered["row"])
    result = np.full(rows, np.nan)
    result[ordered["row"].to_numpy()[starts]] = segment_sums(ordered["value"], starts)
    return result


def total(tokens: pl.DataFrame, *, rows: int, hours: float, quantity: str) -> tuple[Array, Array]:
    """Return the sum of a quantity over the last ``hours`` and the hours between its first and last value."""
    codes = list(QUANTITIES[quantity])
    recent = tokens.filter((pl.col("hours_before") <= hours) & pl.col("code").is_in(codes))
    spans = recent.group_by("row").agg(
        (pl.col("hours_before").max() - pl.col("hours_before").min()).alias("span")
    )
    span = np.zeros(rows)
    span[spans["row"].to_numpy()] = spans["span"].to_numpy()
    return row_sums(recent, rows=rows), span
