"""Tokens on a regular time grid: values, masks and ranges, as recurrent networks read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import ndtri

from modelling.baselines.segments import segment_lengths, segment_starts, segment_sums

Floats = NDArray[np.float32]
KNOTS = 101
TAIL = 0.003
CLIP = 4.0
CHANNELS = 3
"""Channels of each code: mean value in the bin (0 if none), observed or not, range in the bin."""


@dataclass(kw_only=True)
class GridPreparation:
    """What a grid needs that is learnt from training rows.

    Attributes
    ----------
    codes
        Codes with channels of their own.
    step, hours
        Width of a bin and span of the grid in hours before the prediction time.
    knots
        Quantiles of each code's binned values, ``[codes, KNOTS]``.
    centre, spread
        Mean and standard deviation of each code, ``[codes]``.
    static_centre, static_spread
        Of the static columns, ``[statics]``.
    """

    codes: tuple[str, ...]
    step: float
    hours: float
    knots: Floats
    centre: Floats
    spread: Floats
    static_centre: Floats
    static_spread: Floats

    @property
    def bins(self) -> int:
        """Number of time steps."""
        return round(self.hours / self.step)

    @classmethod
    def fit(
        cls,
        tokens: pl.DataFrame,
        static: Floats,
        train: NDArray[np.intp],
        *,
        codes: Sequence[str],
        step: float = 2.0,
        hours: float = 48.0,
    ) -> Self:
        """Learn scales from the tokens and static columns of training rows.

        Parameters
        ----------
        tokens
            Frame of :func:`modelling.baselines.summaries.observed_tokens`.
        static
            ``[rows, statics]``, NaN where unknown.
        train
            Training rows.
        """
        binned = bin_tokens(tokens, codes=codes, step=step, hours=hours)
        binned = binned.filter(pl.col("row").is_in(pl.Series(train, dtype=pl.UInt32).implode()))
        grid = np.linspace(0.0, 1.0, KNOTS)
        knots = np.zeros((len(codes), KNOTS), dtype=np.float32)
        centre, spread = np.zeros(len(codes), np.float32), np.ones(len(codes), np.float32)
        for (position,), values in (
            binned.select("position", "mean").partition_by("position", as_dict=True).items()
        ):
            column = values["mean"].to_numpy().astype(np.float64)
            index = int(position)
            knots[index] = np.quantile(column, grid)
            low, high = np.quantile(column, [0.005, 0.995])
            column = np.clip(column, low, high)
            centre[index], spread[index] = column.mean(), max(column.std(), 1e-6)
        with np.errstate(invalid="ignore"):
            known = np.isfinite(static[train])
            count = np.maximum(known.sum(axis=0), 1)
            middle = np.where(known, static[train], 0.0).sum(axis=0) / count
            scale = np.sqrt(np.where(known, (static[train] - middle) ** 2, 0.0).sum(axis=0) / count)
        return cls(
            codes=tuple(codes),
            step=step,
            hours=hours,
            knots=knots,
            centre=centre,
            spread=spread,
            static_centre=middle.astype(np.float32),
            static_spread=np.maximum(scale, 1e-6).astype(np.float32),
        )

    def _normal(self, value: NDArray[np.float64], position: NDArray[np.int64]) -> Floats:
        """Mix rank-normal and linear scaling: the first tames skew, the second keeps extremes apart."""
        result = np.zeros(len(value), dtype=np.float32)
        grid = np.linspace(0.0, 1.0, KNOTS)
        for index in np.unique(position):
            mine = position == index
            v, knots = value[mine], self.knots[index]
            low = np.searchsorted(knots, v, side="left")
            high = np.searchsorted(knots, v, side="right")
            rank = np.where(high > low, (low + high - 1) / (2 * (KNOTS - 1)), np.interp(v, knots, grid))
            linear = np.clip((v - self.centre[index]) / self.spread[index], -CLIP, CLIP)
            result[mine] = 0.5 * ndtri(np.clip(rank, TAIL, 1 - TAIL)) + 0.5 * linear
        return result

    def transform(self, tokens: pl.DataFrame, static: Floats, *, rows: int) -> tuple[Floats, Floats]:
        """Return the grid ``[rows, bins, CHANNELS * codes]`` and the static inputs ``[rows, 2 * s + codes]``.

        Static inputs are the scaled columns (0 where unknown), their indicators of missingness, and the
        logarithm of 1 + the number of bins in which each code was observed.
        """
        codes, bins = len(self.codes), self.bins
        table = bin_tokens(tokens, codes=self.codes, step=self.step, hours=self.hours)
        row, step, position = (table[name].to_numpy().astype(np.int64) for name in ("row", "bin", "position"))
        value = np.zeros((rows, bins, codes), dtype=np.float32)
        seen = np.zeros((rows, bins, codes), dtype=bool)
        width = np.zeros((rows, bins, codes), dtype=np.float32)
        at = (row, step, position)
        value[at] = self._normal(table["mean"].to_numpy().astype(np.float64), position)
        seen[at] = True
        width[at] = self._normal(table["max"].to_numpy().astype(np.float64), position) - self._normal(
            table["min"].to_numpy().astype(np.float64), position
        )
        unknown = ~np.isfinite(static)
        scaled = np.where(unknown, 0.0, (static - self.static_centre) / self.static_spread)
        counts = np.log1p(seen.sum(axis=1))
        return (
            np.concatenate([value, seen.astype(np.float32), width], axis=2),
            np.concatenate([np.clip(scaled, -CLIP, CLIP), unknown, counts], axis=1).astype(np.float32),
        )

    def tensors(self) -> dict[str, Floats]:
        """Return the learnt arrays for saving."""
        names = ("knots", "centre", "spread", "static_centre", "static_spread")
        return {f"preparation.{name}": getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Return what is not an array."""
        return {
            "codes": list(self.codes),
            "step": self.step,
            "hours": self.hours,
        }

    @classmethod
    def restore(cls, fields: Mapping[str, Any], tensors: Mapping[str, Floats]) -> Self:
        """Build a preparation from :meth:`to_dict` and :meth:`tensors`."""
        arrays = {
            name.removeprefix("preparation."): value
            for name, value in tensors.items()
            if name.startswith("preparation.")
        }
        return cls(
            codes=tuple(fields["codes"]),
            step=fields["step"],
            hours=fields["hours"],
            **arrays,
        )


def bin_tokens(tokens: pl.DataFrame, *, codes: Sequence[str], step: float, hours: float) -> pl.DataFrame:
    """Return ``row``, ``bin`` (0 is the oldest), ``position`` in ``codes``, ``mean``, ``min``, ``max``.

    The newest bin ends at the prediction time, which it includes; older values than ``hours`` count to the
    oldest bin.
    """
    bins = round(hours / step)
    order = {code: position for position, code in enumerate(codes)}
    placed = (
        tokens.lazy()
        .filter(pl.col("code").is_in(list(codes)))
        .select(
            "row",
            pl.col("code").replace_strict(order, return_dtype=pl.Int32).alias("position"),
            (bins - 1 - (pl.col("hours_before") / step).floor().cast(pl.Int32))
            .clip(0, bins - 1)
            .alias("bin"),
            "value",
        )
        .sort("row", "bin", "position", maintain_order=True)
        .collect()
    )
    starts = segment_starts(placed["row"], placed["bin"], placed["position"])
    means = segment_sums(placed["value"], starts) / segment_lengths(starts, placed.height)
    return (
        placed.group_by("row", "bin", "position", maintain_order=True)
        .agg(pl.col("value").min().alias("min"), pl.col("value").max().alias("max"))
        .select(
            "row", "bin", "position", pl.Series("mean", means, dtype=placed.schema["value"]), "min", "max"
        )
    )
