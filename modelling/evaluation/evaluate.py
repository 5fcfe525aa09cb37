"""One evaluation of one set of predictions, with all that a reader needs to judge it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from modelling.errors import EvaluationError
from modelling.evaluation.bootstrap import Interval
from modelling.evaluation.calibration import ReliabilityBins, reliability
from modelling.evaluation.decision import (
    DecisionCurve,
    best_min_sensitivity_ppv,
    decision_curve,
    operating_points,
)
from modelling.evaluation.discrimination import precision_recall_curve, roc_curve
from modelling.evaluation.metrics import classification_metrics, paired_difference, regression_metrics
from modelling.evaluation.subgroups import group_rows

SMALLEST_GROUP = 10
"""Groups with fewer samples are listed with their size only: metrics would be noise, and could identify."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything measured on one set of predictions; aggregates only, no row of any patient.

    Attributes
    ----------
    task, model
        Names shown in the report.
    kind
        ``classification`` or ``regression``.
    samples, subjects, events
        Counts; ``events`` is the number of positive labels, None for a regression.
    metrics
        Name to interval.
    subgroups
        One dict a group level: ``subgroup``, ``level``, ``samples``, ``events``, ``metrics`` (None if the
        group is too small or holds one class only).
    comparisons
        Other model's name to its metrics and the paired differences (this model minus the other).
    curves
        ``roc``, ``precision_recall``, ``reliability``, ``decision`` as lists of numbers.
    skipped
        Samples without a score, by reason.
    notes
        Sentences that limit what may be concluded.
    """

    task: str
    model: str
    kind: str
    samples: int
    subjects: int | None
    events: int | None
    metrics: dict[str, Interval]
    subgroups: list[dict[str, Any]] = field(default_factory=list)
    comparisons: dict[str, dict[str, Any]] = field(default_factory=dict)
    operating_points: list[dict[str, float]] = field(default_factory=list)
    min_sensitivity_ppv: float | None = None
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    resamples: int = 1000
    seed: int = 0
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        fields["metrics"] = {name: interval.to_dict() for name, interval in self.metrics.items()}
        return fields


def _curve_lists(reliable: ReliabilityBins, decision: DecisionCurve) -> dict[str, dict[str, list[float]]]:
    return {
        "reliability": {
            name: getattr(reliable, name).tolist()
            for name in ("predicted", "observed", "lower", "upper", "count")
        },
        "decision": {name: getattr(decision, name).tolist() for name in ("threshold", "model", "treat_all")},
    }


def _thinned(x: NDArray[np.float64], y: NDArray[np.float64], points: int = 400) -> dict[str, list[float]]:
    """Keep the curve readable and the file small; also keeps single patients out of the report."""
    kept = np.unique(np.linspace(0, len(x) - 1, min(points, len(x))).round().astype(int))
    return {"x": np.round(x[kept], 5).tolist(), "y": np.round(y[kept], 5).tolist()}


def evaluate(
    labels: NDArray[np.generic],
    predictions: NDArray[np.generic],
    *,
    task: str,
    model: str,
    kind: str = "classification",
    probabilities: bool = True,
    groups: pl.DataFrame | None = None,
    subjects: NDArray[np.generic] | None = None,
    others: Mapping[str, NDArray[np.generic]] | None = None,
    skipped: Mapping[str, int] | None = None,
    notes: tuple[str, ...] = (),
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Evaluate predictions against labels.

    Parameters
    ----------
    labels
        ``[n]``; 0 or 1, or a number for a regression.
    predictions
        ``[n]`` probabilities of 1, or predicted numbers in the unit of the label.
    kind
        ``classification`` or ``regression``.
    probabilities
        False for scores such as NEWS2 that only rank.
    groups
        Frame of ``n`` rows with text columns, from :func:`modelling.evaluation.subgroups.sample_groups`.
    subjects
        ``[n]``; samples of one subject are resampled together.
    others
        Scores of other models on the same samples, compared with this one by a paired bootstrap.
    skipped
        Samples that got no score, by reason: shown, never hidden.
    resamples, seed
        Of the bootstrap.

    Raises
    ------
    EvaluationError
        If shapes do not fit, values are not finite, or only one class is present.

    Examples
    --------
    >>> import numpy as np
    >>> labels, risks = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    >>> result = evaluate(labels, risks, task="mortality", model="demo", resamples=50)
    >>> result.metrics["auroc"].value
    0.75
    """
    n = len(labels)
    if groups is not None and groups.height != n:
        raise EvaluationError(f"{groups.height} rows of groups for {n} samples")
    common: dict[str, Any] = {
        "task": task,
        "model": model,
        "kind": kind,
        "samples": n,
        "subjects": None if subjects is None else len(np.unique(subjects)),
        "skipped": dict(skipped or {}),
        "resamples": resamples,
        "seed": seed,
    }
    if kind == "regression":
        overall = regression_metrics(labels, predictions, resamples=resamples, seed=seed, clusters=subjects)
        table = []
        for name, level, mask in group_rows(groups) if groups is not None else []:
            rows = mask.to_numpy()
            metrics = None
            if rows.sum() >= SMALLEST_GROUP:
                part = None if subjects is None else subjects[rows]
                metrics = regression_metrics(
                    labels[rows], predictions[rows], resamples=resamples, seed=seed, clusters=part
                )
            table.append(_group(name, level, int(rows.sum()), None, metrics))
        return Evaluation(**common, events=None, metrics=overall, subgroups=table, notes=list(notes))
    if kind != "classification":
        raise EvaluationError(f"kind {kind!r} is neither classification nor regression")

    y = np.asarray(labels).astype(np.int64)
    p = np.asarray(predictions, dtype=np.float64)
    if len(np.unique(y)) < 2:
        raise EvaluationError("all labels are the same: discrimination is not defined")
    overall = classification_metrics(
        y, p, resamples=resamples, seed=seed, clusters=subjects, calibration=probabilities
    )
    curves: dict[str, dict[str, list[float]]] = {
        "roc": _thinned(*roc_curve(y, p)),
        "precision_recall": _thinned(*precision_recall_curve(y, p)),
    }
    if probabilities:
        curves |= _curve_lists(reliability(y, p), decision_curve(y, p))
    table = []
    for name, level, mask in group_rows(groups) if groups is not None else []:
        rows = mask.to_numpy()
        positive = int(y[rows].sum())
        metrics = None
        if rows.sum() >= SMALLEST_GROUP and 0 < positive < rows.sum():
            metrics = classification_metrics(
                y[rows],
                p[rows],
                resamples=resamples,
                seed=seed,
                clusters=None if subjects is None else subjects[rows],
                calibration=probabilities,
            )
        table.append(_group(name, level, int(rows.sum()), positive, metrics))
    comparisons = {}
    for name, scores in (others or {}).items():
        other = np.asarray(scores, dtype=np.float64)
        comparisons[name] = {
            "metrics": {
                metric: interval.to_dict()
                for metric, interval in classification_metrics(
                    y, other, resamples=resamples, seed=seed, clusters=subjects, calibration=False
                ).items()
            },
            "difference": paired_difference(y, p, other, resamples=resamples, seed=seed, clusters=subjects),
        }
    return Evaluation(
        **common,
        events=int(y.sum()),
        metrics=overall,
        subgroups=table,
        comparisons=comparisons,
        operating_points=operating_points(y, p),
        min_sensitivity_ppv=best_min_sensitivity_ppv(y, p),
        curves=curves,
        notes=list(notes),
    )


def _group(
    name: str, level: str, samples: int, events: int | None, metrics: dict[str, Interval] | None
) -> dict[str, Any]:
    shown = None if metrics is None else {metric: value.to_dict() for metric, value in metrics.items()}
    few = samples < SMALLEST_GROUP
    return {
        "subgroup": name,
        "level": level,
        "samples": samples,
        "events": None if few else events,
        "metrics": shown,
    }
