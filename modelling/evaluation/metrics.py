"""The named metrics of an evaluation and their intervals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from modelling.errors import EvaluationError
from modelling.evaluation.bootstrap import Interval, draw, intervals, percentile_interval
from modelling.evaluation.calibration import brier_of, calibration_line, expected_calibration_error_of
from modelling.evaluation.discrimination import (
    Floats,
    RankedScores,
    auprc_trapezoid_of,
    auroc_of,
    average_precision_of,
    checked,
)

CLASSIFICATION_METRICS = {
    "auroc": "Area under the ROC curve",
    "auprc_average_precision": "AUPRC, average precision (step-wise)",
    "auprc_trapezoid": "AUPRC, trapezoid (slightly optimistic)",
    "brier": "Brier score",
    "calibration_slope": "Calibration slope",
    "calibration_intercept": "Calibration intercept (joint with the slope)",
    "calibration_in_the_large": "Calibration in the large (slope held at 1)",
    "expected_calibration_error": "Expected calibration error, ten equal-mass bins",
}
REGRESSION_METRICS = {
    "mae": "Mean absolute error",
    "rmse": "Root mean squared error",
    "bias": "Mean of predicted minus observed",
}


def classification_statistics(
    labels: NDArray[np.int64], probability: Floats, weights: Floats, *, calibration: bool = True
) -> dict[str, Floats]:
    """Return every classification metric of each resample; ``weights`` is ``[resamples, n]``.

    Without ``calibration`` only the ranking metrics are given, for scores that are not probabilities.
    """
    true, false = RankedScores.of(labels, probability).counts(weights)
    result = {
        "auroc": auroc_of(true, false),
        "auprc_average_precision": average_precision_of(true, false),
        "auprc_trapezoid": auprc_trapezoid_of(true, false),
    }
    if calibration:
        slope, intercept, large = calibration_line(labels, probability, weights)
        result |= {
            "brier": brier_of(labels, probability, weights),
            "calibration_slope": slope,
            "calibration_intercept": intercept,
            "calibration_in_the_large": large,
            "expected_calibration_error": expected_calibration_error_of(labels, probability, weights),
        }
    return result


def classification_metrics(
    labels: NDArray[np.generic],
    probability: NDArray[np.generic],
    *,
    resamples: int = 1000,
    seed: int = 0,
    clusters: NDArray[np.generic] | None = None,
    calibration: bool = True,
) -> dict[str, Interval]:
    """Return all classification metrics with bootstrap intervals.

    Parameters
    ----------
    labels
        0 or 1, shape ``[n]``.
    probability
        Predicted probability of 1, shape ``[n]``; any score if ``calibration`` is False.
    resamples
        Bootstrap resamples.
    seed
        Seed of the bootstrap.
    clusters
        Subject of each sample; its samples are drawn together.
    calibration
        Whether to compute the metrics that need probabilities.

    Raises
    ------
    EvaluationError
        If shapes or values are wrong, or probabilities lie outside [0, 1].
    """
    y, p = checked(labels, probability)
    if calibration and (p.min() < 0.0 or p.max() > 1.0):
        raise EvaluationError("probabilities must lie in [0, 1]")
    return intervals(
        lambda weights: classification_statistics(y, p, weights, calibration=calibration),
        len(y),
        resamples=resamples,
        rng=np.random.default_rng(seed),
        clusters=clusters,
    )


def regression_metrics(
    observed: NDArray[np.generic],
    predicted: NDArray[np.generic],
    *,
    resamples: int = 1000,
    seed: int = 0,
    clusters: NDArray[np.generic] | None = None,
) -> dict[str, Interval]:
    """Return MAE, RMSE and bias, in the unit of the label, with bootstrap intervals."""
    y = np.asarray(observed, dtype=np.float64)
    p = np.asarray(predicted, dtype=np.float64)
    if y.ndim != 1 or y.shape != p.shape or y.size == 0:
        raise EvaluationError(f"labels of shape {y.shape} do not fit predictions of shape {p.shape}")
    if not (np.isfinite(y).all() and np.isfinite(p).all()):
        raise EvaluationError("labels and predictions must be finite")
    error = p - y

    def statistic(weights: Floats) -> dict[str, Floats]:
        total = weights.sum(axis=1)
        return {
            "mae": weights @ np.abs(error) / total,
            "rmse": np.sqrt(weights @ error**2 / total),
            "bias": weights @ error / total,
        }

    return intervals(
        statistic, len(y), resamples=resamples, rng=np.random.default_rng(seed), clusters=clusters
    )


def paired_difference(
    labels: NDArray[np.generic],
    first: NDArray[np.generic],
    second: NDArray[np.generic],
    *,
    resamples: int = 1000,
    seed: int = 0,
    clusters: NDArray[np.generic] | None = None,
) -> dict[str, dict[str, float | int | None]]:
    """Compare two models on the same samples by a paired bootstrap.

    Both models see the same resamples, so that what the two have in common cancels.

    Returns
    -------
    dict
        For AUROC, average precision and (if both are probabilities) Brier score: the difference ``first -
        second`` with its 95 % interval, and ``p_value``, two-sided: twice the smaller share of resamples
        on either side of zero, at least ``1 / resamples``.
    """
    y, a = checked(labels, first)
    _, b = checked(labels, second)
    probabilities = min(a.min(), b.min()) >= 0.0 and max(a.max(), b.max()) <= 1.0

    def statistic(weights: Floats) -> dict[str, Floats]:
        left = classification_statistics(y, a, weights, calibration=False)
        right = classification_statistics(y, b, weights, calibration=False)
        result = {name: left[name] - right[name] for name in ("auroc", "auprc_average_precision")}
        if probabilities:
            result["brier"] = brier_of(y, a, weights) - brier_of(y, b, weights)
        return result

    point, draws = draw(
        statistic, len(y), resamples=resamples, rng=np.random.default_rng(seed), clusters=clusters
    )
    answer: dict[str, dict[str, float | int | None]] = {}
    for name, drawn in draws.items():
        defined = drawn[np.isfinite(drawn)]
        p_value: float | None = None
        if defined.size:
            share = min(float((defined <= 0).mean()), float((defined >= 0).mean()))
            p_value = min(1.0, max(2.0 * share, 1.0 / defined.size))
        answer[name] = {**percentile_interval(point[name], drawn).to_dict(), "p_value": p_value}
    return answer
