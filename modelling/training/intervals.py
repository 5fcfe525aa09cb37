"""Conformal intervals: for a probability by Venn-Abers prediction, for a number by split conformal prediction.

References
----------
Venn-Abers predictors: Vovk and Petej, UAI 2014; fast and inductive form: Vovk, Petej and Fedorova, NeurIPS
2015. Split conformal intervals: Papadopoulos et al. 2002; Lei et al., JASA 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import isotonic_regression

Floats = NDArray[np.float64]

GRID = 128
SMALLEST_SPLIT = 30
"""Fewest tuning samples from which an interval is made."""


@dataclass(frozen=True, kw_only=True)
class ProbabilityInterval:
    """Lower and upper bound of a calibrated probability.

    The isotonic fit of the tuning split with the sample added as a non-event, and as an event: one of the two is
    the fit that holds the truth, so that the pair is calibrated whatever the distribution. The pair is
    tabulated on a grid of probabilities and straight between.

    Attributes
    ----------
    grid, lower, upper
        Ascending, of one length.
    """

    grid: Sequence[float]
    lower: Sequence[float]
    upper: Sequence[float]

    def bounds(self, probability: Floats) -> tuple[Floats, Floats]:
        """Return lower and upper bounds, widened where needed to hold the reported probability."""
        p = np.asarray(probability, dtype=np.float64)
        low, high = np.interp(p, self.grid, self.lower), np.interp(p, self.grid, self.upper)
        return np.minimum(low, p), np.maximum(high, p)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {"kind": "venn-abers", **{key: list(value) for key, value in asdict(self).items()}}


@dataclass(frozen=True, kw_only=True)
class ValueInterval:
    """Interval around a predicted number.

    Attributes
    ----------
    margin
        Added on either side, in the unit of the prediction.
    coverage
        Share of new patients whose value lies inside, at least, if they are exchangeable with those of the
        tuning split.
    """

    margin: float
    coverage: float

    def bounds(self, prediction: Floats, *, lowest: float | None = None) -> tuple[Floats, Floats]:
        """Return lower and upper bounds; ``lowest`` is the least value that is possible at all."""
        values = np.asarray(prediction, dtype=np.float64)
        low, high = values - self.margin, values + self.margin
        if lowest is not None:
            low = np.maximum(low, lowest)
        return low, np.maximum(high, low)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {"kind": "split-conformal", **asdict(self)}


def fit_probability_interval(probability: Floats, labels: Floats) -> ProbabilityInterval | None:
    """Fit Venn-Abers bounds on the tuning split; None where it is too small or holds one class only.

    Parameters
    ----------
    probability, labels
        ``[n]``; any score that ranks as the reported probability does gives the same bounds.
    """
    p, y = np.asarray(probability, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if p.size < SMALLEST_SPLIT or y.sum() in (0.0, float(y.size)):
        return None
    order = np.argsort(p, kind="stable")
    p, y = p[order], y[order]
    grid = np.unique(np.round(np.quantile(p, np.linspace(0, 1, min(GRID, p.size))), 8))
    lower, upper = np.empty_like(grid), np.empty_like(grid)
    for position, point in enumerate(grid):
        # Ties stand on the far side of the new point, so that they can pull it neither up nor down for free.
        left, right = np.searchsorted(p, point, "left"), np.searchsorted(p, point, "right")
        lower[position] = isotonic_regression(np.insert(y, left, 0.0))[left]
        upper[position] = isotonic_regression(np.insert(y, right, 1.0))[right]
    return ProbabilityInterval(
        grid=grid.tolist(),
        lower=np.round(np.maximum.accumulate(lower), 6).tolist(),
        upper=np.round(np.maximum.accumulate(upper), 6).tolist(),
    )


def fit_value_interval(observed: Floats, predicted: Floats, *, coverage: float = 0.9) -> ValueInterval | None:
    """Fit a split conformal interval on the tuning split; None where it is too small for the coverage."""
    error = np.sort(np.abs(np.asarray(observed, dtype=np.float64) - predicted))
    rank = int(np.ceil((error.size + 1) * coverage))
    if error.size < SMALLEST_SPLIT or rank > error.size:
        return None
    return ValueInterval(margin=float(error[rank - 1]), coverage=coverage)


def interval_from_dict(fields: dict[str, Any] | None) -> ProbabilityInterval | ValueInterval | None:
    """Build an interval from its dict; None stays None.

    Raises
    ------
    KeyError
        If the kind is unknown.
    """
    if fields is None:
        return None
    kinds: dict[str, type[ProbabilityInterval] | type[ValueInterval]] = {
        "venn-abers": ProbabilityInterval,
        "split-conformal": ValueInterval,
    }
    values = {key: value for key, value in fields.items() if key != "kind"}
    return kinds[fields["kind"]](**values)
