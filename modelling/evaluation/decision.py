"""Decision curve: what acting on a score is worth, at each threshold of probability.

References
----------
Vickers and Elkin, Medical Decision Making 2006, doi 10.1177/0272989X06295361: net benefit =
TP/n - FP/n * t/(1-t).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelling.evaluation.discrimination import Floats, RankedScores, checked

THRESHOLDS = tuple(round(0.01 * step, 2) for step in range(1, 61))


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit per patient, in units of true positives.

    Attributes
    ----------
    threshold
        Probability at and above which one would act.
    model, treat_all
        Net benefit of acting by the model and of acting on everybody; acting on nobody is 0.
    """

    threshold: Floats
    model: Floats
    treat_all: Floats


def decision_curve(
    labels: NDArray[np.generic],
    probability: NDArray[np.generic],
    thresholds: tuple[float, ...] = THRESHOLDS,
) -> DecisionCurve:
    """Return the decision curve of calibrated probabilities."""
    y, p = checked(labels, probability)
    at = np.asarray(thresholds, dtype=np.float64)
    odds = at / (1.0 - at)
    acted = p[:, None] >= at[None, :]
    true = (acted & (y[:, None] == 1)).mean(axis=0)
    false = (acted & (y[:, None] == 0)).mean(axis=0)
    prevalence = y.mean()
    return DecisionCurve(at, true - false * odds, prevalence - (1.0 - prevalence) * odds)


def operating_points(
    labels: NDArray[np.generic], score: NDArray[np.generic], shares: tuple[float, ...] = (0.05, 0.1, 0.2)
) -> list[dict[str, float]]:
    """Return sensitivity and positive predictive value when the top share of patients is flagged.

    The threshold is the score of the last flagged patient; all patients tied with it are flagged too,
    and ``flagged`` is the share really flagged.
    """
    y, s = checked(labels, score)
    ranked = RankedScores.of(y, s)
    true, false = (counts[0] for counts in ranked.counts(np.ones(len(y))))
    total = true + false
    positives = max(float(true[-1]), 1.0)
    rows = []
    for share in shares:
        group = int(np.searchsorted(total, share * len(y), side="left"))
        group = min(group, len(total) - 1)
        rows.append(
            {
                "share": share,
                "flagged": float(total[group] / len(y)),
                "threshold": float(s[ranked.order][ranked.starts][group]),
                "sensitivity": float(true[group] / positives),
                "positive_predictive_value": float(true[group] / total[group]),
            }
        )
    return rows


def best_min_sensitivity_ppv(labels: NDArray[np.generic], score: NDArray[np.generic]) -> float:
    """Return the largest ``min(sensitivity, positive predictive value)`` over thresholds.

    This is "event 1" of the PhysioNet/CinC Challenge 2012 with the threshold chosen on the same samples.
    """
    y, s = checked(labels, score)
    true, false = (counts[0] for counts in RankedScores.of(y, s).counts(np.ones(len(y))))
    if true[-1] == 0:
        return float("nan")
    return float(np.minimum(true / true[-1], true / (true + false)).max())
