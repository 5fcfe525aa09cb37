"""Ranking and probability metrics, computed for one sample or for many resamples at once.

Every resample of a bootstrap draws the same scores with other multiplicities. The scores are therefore
sorted once, and a resample is a vector of integer weights over the sorted groups of tied scores; all
metrics are sums over those groups. This makes 1,000 resamples of 10,000 scores a matter of a second or
two, and ties are treated exactly as scikit-learn treats them.

References
----------
AUROC with ties as the Mann-Whitney statistic: Hanley and McNeil, Radiology 1982. Average precision and
the (optimistic) trapezoid of the precision-recall curve: Davis and Goadrich, ICML 2006; MedM2T reports the
latter, scikit-learn's ``average_precision_score`` the former.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from modelling.errors import EvaluationError

Floats = NDArray[np.float64]


def checked(labels: NDArray[np.generic], scores: NDArray[np.generic]) -> tuple[NDArray[np.int64], Floats]:
    """Return labels as 0/1 and scores as float64.

    Raises
    ------
    EvaluationError
        If shapes differ, a label is neither 0 nor 1, or a score is not finite.
    """
    y = np.asarray(labels)
    s = np.asarray(scores, dtype=np.float64)
    if y.ndim != 1 or y.shape != s.shape:
        raise EvaluationError(f"labels of shape {y.shape} do not fit scores of shape {s.shape}")
    if y.size == 0:
        raise EvaluationError("there is no sample to evaluate")
    if not np.isin(y, (0, 1)).all():
        raise EvaluationError("labels must be 0 or 1")
    if not np.isfinite(s).all():
        raise EvaluationError(f"{int((~np.isfinite(s)).sum())} score(s) are not finite")
    return y.astype(np.int64), s


@dataclass(frozen=True)
class RankedScores:
    """Scores sorted once, so that weighted metrics of many resamples are matrix products.

    Attributes
    ----------
    order
        Positions of samples by descending score, shape ``[n]``.
    starts
        First position of each group of tied scores in ``order``, shape ``[groups]``.
    positive
        1.0 where the label is 1, in sorted order, shape ``[n]``.
    """

    order: NDArray[np.intp]
    starts: NDArray[np.intp]
    positive: Floats

    @classmethod
    def of(cls, labels: NDArray[np.generic], scores: NDArray[np.generic]) -> Self:
        """Sort scores and find their ties."""
        y, s = checked(labels, scores)
        order = np.argsort(-s, kind="stable")
        ranked = s[order]
        starts = np.flatnonzero(np.concatenate(([True], ranked[1:] != ranked[:-1])))
        return cls(order=order, starts=starts, positive=y[order].astype(np.float64))

    def counts(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return cumulative true and false positives after each group, each ``[resamples, groups]``.

        Parameters
        ----------
        weights
            Multiplicity of each sample, ``[resamples, n]`` in the samples' own order.
        """
        ranked = np.atleast_2d(weights)[:, self.order]
        true = np.add.reduceat(ranked * self.positive, self.starts, axis=1)
        false = np.add.reduceat(ranked * (1.0 - self.positive), self.starts, axis=1)
        return true.cumsum(axis=1), false.cumsum(axis=1)


def auroc_of(true: Floats, false: Floats) -> Floats:
    """Area under the ROC curve from cumulative counts, NaN where a resample holds one class only."""
    before = np.concatenate([np.zeros((true.shape[0], 1)), true[:, :-1]], axis=1)
    steps = np.diff(false, axis=1, prepend=0.0)
    area = (steps * (true + before) / 2.0).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return area / (true[:, -1] * false[:, -1])


def _precision_recall(true: Floats, false: Floats) -> tuple[Floats, Floats]:
    total = true + false
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(total > 0, true / total, 1.0)
        recall = true / true[:, -1:]
    return precision, recall


def average_precision_of(true: Floats, false: Floats) -> Floats:
    """Step-wise area under the precision-recall curve (average precision); NaN without positives."""
    precision, recall = _precision_recall(true, false)
    return (np.diff(recall, axis=1, prepend=0.0) * precision).sum(axis=1)


def auprc_trapezoid_of(true: Floats, false: Floats) -> Floats:
    """Trapezoidal area under the precision-recall curve, started at (recall 0, precision 1)."""
    precision, recall = _precision_recall(true, false)
    before = np.concatenate([np.ones((precision.shape[0], 1)), precision[:, :-1]], axis=1)
    return (np.diff(recall, axis=1, prepend=0.0) * (precision + before) / 2.0).sum(axis=1)


def roc_curve(labels: NDArray[np.generic], scores: NDArray[np.generic]) -> tuple[Floats, Floats]:
    """Return false and true positive rates, starting at (0, 0)."""
    ranked = RankedScores.of(labels, scores)
    true, false = ranked.counts(np.ones(len(ranked.order)))
    if true[0, -1] == 0 or false[0, -1] == 0:
        raise EvaluationError("a ROC curve needs both classes")
    rates = false[0] / false[0, -1], true[0] / true[0, -1]
    return np.concatenate(([0.0], rates[0])), np.concatenate(([0.0], rates[1]))


def precision_recall_curve(labels: NDArray[np.generic], scores: NDArray[np.generic]) -> tuple[Floats, Floats]:
    """Return recall and precision after each distinct score, starting at (0, 1)."""
    ranked = RankedScores.of(labels, scores)
    true, false = ranked.counts(np.ones(len(ranked.order)))
    if true[0, -1] == 0:
        raise EvaluationError("a precision-recall curve needs a positive label")
    precision, recall = _precision_recall(true, false)
    return np.concatenate(([0.0], recall[0])), np.concatenate(([1.0], precision[0]))
