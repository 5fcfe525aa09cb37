"""Percentile bootstrap: 1,000 resamples as one matrix of multiplicities.

Samples of one subject are resampled together when subjects are given (cluster bootstrap), since a
patient's stays are not independent.

References
----------
Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13 (percentile interval).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelling.evaluation.discrimination import Floats

BLOCK_CELLS = 4_000_000
"""Most multiplicities held at once (32 MB of float64): memory stays bounded for any sample size."""

Statistic = Callable[[Floats], dict[str, Floats]]
"""Maps multiplicities ``[resamples, n]`` to named statistics ``[resamples]``."""


@dataclass(frozen=True)
class Interval:
    """A statistic with its percentile interval.

    Attributes
    ----------
    value
        Statistic of the full sample; NaN if it is not defined there.
    lower, upper
        Bounds of the interval.
    resamples
        Resamples in which the statistic was defined.
    """

    value: float
    lower: float
    upper: float
    resamples: int

    def to_dict(self) -> dict[str, float | int | None]:
        """Return a JSON-ready dict; NaN becomes null."""
        numbers = {"value": self.value, "lower": self.lower, "upper": self.upper}
        return {
            **{name: (float(x) if np.isfinite(x) else None) for name, x in numbers.items()},
            "resamples": self.resamples,
        }


def multiplicities(
    n: int, *, resamples: int, rng: np.random.Generator, clusters: NDArray[np.generic] | None = None
) -> Iterator[Floats]:
    """Yield blocks ``[some resamples, n]`` of how often each sample was drawn, ``resamples`` rows in all.

    Parameters
    ----------
    n
        Number of samples.
    resamples
        Number of resamples over all blocks.
    rng
        Source of randomness.
    clusters
        Cluster of each sample, e.g. the subject, shape ``[n]``; None draws samples one by one.
    """
    if clusters is None:
        units, member = n, np.arange(n)
    else:
        distinct, member = np.unique(clusters, return_inverse=True)
        units = len(distinct)
    size = max(1, BLOCK_CELLS // max(n, units))
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        draws = rng.integers(0, units, size=(rows, units)) + units * np.arange(rows)[:, None]
        counts = np.bincount(draws.ravel(), minlength=rows * units).reshape(rows, units)
        yield counts[:, member].astype(np.float64)


def draw(
    statistic: Statistic,
    n: int,
    *,
    resamples: int,
    rng: np.random.Generator,
    clusters: NDArray[np.generic] | None = None,
) -> tuple[dict[str, float], dict[str, Floats]]:
    """Return each statistic of the full sample, and of every resample (``[resamples]``)."""
    point = {name: float(values[0]) for name, values in statistic(np.ones((1, n))).items()}
    parts: dict[str, list[Floats]] = {name: [] for name in point}
    for block in multiplicities(n, resamples=resamples, rng=rng, clusters=clusters):
        for name, values in statistic(block).items():
            parts[name].append(values)
    return point, {name: np.concatenate(drawn) if drawn else np.empty(0) for name, drawn in parts.items()}


def percentile_interval(point: float, drawn: Floats, *, level: float = 0.95) -> Interval:
    """Return the percentile interval of the resamples in which the statistic was defined."""
    tail = (1.0 - level) / 2.0
    defined = drawn[np.isfinite(drawn)]
    lower, upper = np.quantile(defined, [tail, 1.0 - tail]) if defined.size else (np.nan, np.nan)
    return Interval(point, float(lower), float(upper), int(defined.size))


def intervals(
    statistic: Statistic,
    n: int,
    *,
    resamples: int = 1000,
    rng: np.random.Generator,
    clusters: NDArray[np.generic] | None = None,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Return each statistic with its percentile interval."""
    point, drawn = draw(statistic, n, resamples=resamples, rng=rng, clusters=clusters)
    return {name: percentile_interval(point[name], drawn[name], level=level) for name in point}
