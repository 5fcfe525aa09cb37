"""A search for inputs that give the label away before a model is trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from modelling.baselines.summaries import observed_tokens
from modelling.evaluation.discrimination import RankedScores, auroc_of

FEWEST = 10
"""Events and non-events that must have an input before its AUROC means anything."""


@dataclass(frozen=True, kw_only=True)
class Leak:
    """An input that gives the label away.

    Attributes
    ----------
    input
        Catalogue code, or the name of a table.
    why
        What gave it away, with numbers.
    """

    input: str
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)


def find_leaks(
    samples: pl.DataFrame,
    events: pl.DataFrame,
    *,
    recordings: pl.DataFrame,
    images: pl.DataFrame,
    highest_auroc: float = 0.95,
) -> list[Leak]:
    """Search labelled samples for inputs that no honest measurement could be.

    Does one feature alone (its last value, the number of its values, its being there), or the number of
    recordings or images alone, separate the classes better than ``highest_auroc``? What a sample may see is
    already bounded by its prediction time, so that a leak can only come dressed as an earlier measurement.

    Parameters
    ----------
    samples
        With ``boolean_value``.
    events, recordings, images
        The tables that the samples read; only what was known at a sample's prediction time is looked at.

    Returns
    -------
    list of Leak
        By input.
    """
    labelled = samples.drop_nulls("boolean_value")
    y = labelled["boolean_value"].cast(pl.Int64).to_numpy()
    leaks = []
    tokens = observed_tokens(labelled, events)
    for (code,), rows in tokens.group_by("code", maintain_order=True):
        by_sample = rows.sort("hours_before", descending=True).group_by("row", maintain_order=True)
        table = by_sample.agg(pl.col("value").last().alias("last"), pl.len().alias("count"))
        leaks += _separating(str(code), table, y, highest_auroc)
    for name, table in (("recordings", recordings), ("images", images)):
        leaks += _presence(name, labelled, table, y, highest_auroc)
    return sorted(leaks, key=lambda leak: leak.input)


def _separating(code: str, table: pl.DataFrame, labels: NDArray[np.int64], highest: float) -> list[Leak]:
    rows = table["row"].to_numpy()
    present = np.zeros(len(labels))
    present[rows] = 1.0
    count = np.zeros(len(labels))
    count[rows] = table["count"].to_numpy()
    asked = {
        "last value": (labels[rows], table["last"].to_numpy().astype(np.float64)),
        "number of values": (labels, count),
        "being there": (labels, present),
    }
    for what, (y, values) in asked.items():
        strength = _strength(y, values)
        if strength is not None and strength > highest:
            return [Leak(input=code, why=f"its {what} alone has AUROC {strength:.3f}")]
    return []


def _presence(
    name: str, samples: pl.DataFrame, table: pl.DataFrame, labels: NDArray[np.int64], highest: float
) -> list[Leak]:
    known = (
        samples.with_row_index("row")
        .join(table.select("subject_id", "time", "available_time"), on="subject_id")
        .filter(
            (pl.col("available_time") <= pl.col("prediction_time"))
            & pl.col("time").is_between("lookback_start", "prediction_time")
        )
        .group_by("row")
        .len()
    )
    count = np.zeros(len(labels))
    count[known["row"].to_numpy()] = known["len"].to_numpy()
    strength = _strength(labels, count)
    if strength is None or strength <= highest:
        return []
    return [Leak(input=name, why=f"their number alone has AUROC {strength:.3f}")]


def _strength(labels: NDArray[np.int64], values: NDArray[np.float64]) -> float | None:
    finite = np.isfinite(values)
    y, x = labels[finite], values[finite]
    if min(int(y.sum()), int(len(y) - y.sum())) < FEWEST or np.ptp(x) == 0:
        return None
    area = float(auroc_of(*RankedScores.of(y, x).counts(np.ones(len(y))))[0])
    return max(area, 1.0 - area)


def as_dicts(leaks: Sequence[Leak]) -> list[dict[str, Any]]:
    """Return leaks as JSON-ready dicts."""
    return [leak.to_dict() for leak in leaks]
