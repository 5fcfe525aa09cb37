"""Do predicted probabilities mean what they say?

References
----------
Calibration intercept (in the large) and slope: Cox 1958; Van Calster et al., BMC Medicine 2019,
doi 10.1186/s12916-019-1466-7. Expected calibration error with equal-mass bins: Nixon et al. 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelling.evaluation.discrimination import Floats, checked

EDGE = 1e-6


def logit(probability: NDArray[np.generic]) -> Floats:
    """Return log-odds, with probabilities kept ``1e-6`` away from 0 and 1."""
    p = np.clip(np.asarray(probability, dtype=np.float64), EDGE, 1.0 - EDGE)
    return np.log(p / (1.0 - p))


def brier_of(labels: NDArray[np.int64], probability: Floats, weights: Floats) -> Floats:
    """Return the Brier score of each resample; ``weights`` is ``[resamples, n]``."""
    error = (probability - labels) ** 2
    return np.atleast_2d(weights) @ error / np.atleast_2d(weights).sum(axis=1)


def _newton(x: Floats, y: Floats, offset: Floats, weights: Floats, *, steps: int = 50) -> Floats:
    """Maximise weighted logistic likelihoods of many resamples together; columns of ``x`` are few.

    A step that lowers a likelihood is halved: with predictions near 0 and 1 the likelihood is almost flat, and
    Newton's own steps would jump over its top for ever. A resample that has arrived is left alone.
    """
    resamples, columns = weights.shape[0], x.shape[1]
    kept, step = np.zeros((resamples, columns)), np.zeros((resamples, columns))
    best = np.full(resamples, -np.inf)
    outer = np.einsum("ni,nj->nij", x, x).reshape(len(y), -1)
    moving = np.arange(resamples)
    for _ in range(steps):
        w, beta = weights[moving], kept[moving] + step[moving]
        eta = np.clip(beta @ x.T + offset, -35, 35)
        p = 1.0 / (1.0 + np.exp(-eta))
        likelihood = (w * (y * eta - np.logaddexp(0.0, eta))).sum(axis=1)
        lower = likelihood < best[moving] - 1e-9 * np.abs(best[moving])
        hessian = ((w * p * (1.0 - p)) @ outer).reshape(-1, columns, columns) + 1e-9 * np.eye(columns)
        ahead = np.linalg.solve(hessian, ((w * (y - p)) @ x)[..., None])[..., 0]
        kept[moving] = np.where(lower[:, None], kept[moving], beta)
        best[moving] = np.where(lower, best[moving], likelihood)
        step[moving] = np.where(lower[:, None], step[moving] / 2, np.clip(ahead, -4.0, 4.0))
        moving = moving[np.abs(step[moving]).max(axis=1) > 1e-8]
        if not moving.size:
            break
    return kept


def calibration_line(
    labels: NDArray[np.int64], probability: Floats, weights: Floats
) -> tuple[Floats, Floats, Floats]:
    """Fit ``logit P(y=1) = a + b logit p`` for each resample.

    Returns
    -------
    slope, intercept, in_the_large
        Each ``[resamples]``. ``intercept`` is ``a`` of the joint fit; ``in_the_large`` is ``a`` with the
        slope held at 1 (0 when the mean prediction fits the mean outcome). NaN where a resample holds one
        class only, or where all predictions are equal (slope and intercept).
    """
    w = np.atleast_2d(np.asarray(weights, dtype=np.float64))
    y = labels.astype(np.float64)
    z = logit(probability)
    ones = np.ones_like(z)
    events = w @ y
    both = (events > 0) & (events < w.sum(axis=1))
    slope, intercept, large = (np.full(w.shape[0], np.nan) for _ in range(3))
    large[both] = _newton(ones[:, None], y, z, w[both])[:, 0]
    if np.ptp(z) >= 1e-9:
        line = _newton(np.stack([ones, z], axis=1), y, np.zeros_like(z), w[both])
        intercept[both], slope[both] = line.T
    return slope, intercept, large


@dataclass(frozen=True)
class ReliabilityBins:
    """Groups of similar predictions.

    Attributes
    ----------
    predicted, observed
        Mean prediction and share of events of each bin.
    lower, upper
        95 % Wilson interval of ``observed``.
    count
        Samples of each bin.
    """

    predicted: Floats
    observed: Floats
    lower: Floats
    upper: Floats
    count: NDArray[np.int64]


def reliability(
    labels: NDArray[np.generic], probability: NDArray[np.generic], bins: int = 10
) -> ReliabilityBins:
    """Group predictions into bins of equal size; ties never straddle two bins."""
    y, p = checked(labels, probability)
    edges = np.unique(np.quantile(p, np.linspace(0.0, 1.0, bins + 1)[1:-1]))
    group = np.searchsorted(edges, p, side="left")
    count = np.bincount(group, minlength=len(edges) + 1)
    kept = count > 0
    n = count[kept].astype(np.float64)
    predicted = np.bincount(group, weights=p, minlength=len(edges) + 1)[kept] / n
    observed = np.bincount(group, weights=y.astype(np.float64), minlength=len(edges) + 1)[kept] / n
    z = 1.959963984540054
    centre = (observed + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(observed * (1 - observed) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    # Rounding must not put a share of exactly 0 or 1 outside its own interval.
    lower = np.clip(centre - half, 0, observed)
    upper = np.clip(centre + half, observed, 1)
    return ReliabilityBins(predicted, observed, lower, upper, count[kept])


def expected_calibration_error_of(
    labels: NDArray[np.int64], probability: Floats, weights: Floats, bins: int = 10
) -> Floats:
    """Mean absolute gap between predicted and observed risk over ten equal-mass bins, ``[resamples]``.

    The bins are those of the full sample; a resample only reweights them.
    """
    w = np.atleast_2d(weights)
    edges = np.unique(np.quantile(probability, np.linspace(0.0, 1.0, bins + 1)[1:-1]))
    group = np.searchsorted(edges, probability, side="left")
    member = np.eye(len(edges) + 1)[group]
    gap = np.abs(w @ (member * (probability - labels)[:, None]))
    return gap.sum(axis=1) / w.sum(axis=1)
