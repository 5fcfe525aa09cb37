"""Labels of a task as numbers to learn, and how good predictions of them are, by kind of task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from modelling.batches import Dataset
from modelling.errors import TrainingError
from modelling.training.config import TrainingConfig

KINDS = ("binary", "regression", "multiclass", "multilabel")
KEYS = ("encounter_id", "prediction_time")
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the task's outputs stand for.

    Attributes
    ----------
    kind
        One of :data:`KINDS`.
    names
        Of the outputs: the task, its labels, or its classes.
    mean, standard_deviation
        Of a regression's training labels, in the label's unit; outputs are standardised.
    """

    kind: str
    names: tuple[str, ...]
    mean: float = 0.0
    standard_deviation: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)

    def fitted(self, values: Floats) -> Target:
        """Return the target with the scale of a regression's training labels ``[n, 1]``."""
        if self.kind != "regression":
            return self
        return replace(self, mean=float(values.mean()), standard_deviation=float(values.std()) or 1.0)

    def attach(self, dataset: Dataset, values: Floats, further: Floats) -> Dataset:
        """Return a dataset with these labels ``[n, targets or 1]`` and further targets as what is learnt."""
        if self.kind == "multilabel":
            both = np.concatenate([values[:, 1:], further], axis=1)
            return dataset.with_targets(label=values[:, 0], auxiliary=both)
        label = (values[:, 0] - self.mean) / self.standard_deviation
        return dataset.with_targets(label=label, auxiliary=further)

    def answers(self, outputs: Floats) -> Floats:
        """Return predictions from a model's outputs ``[n, >= targets]``.

        Probabilities of the labels, or of the classes (``[n, targets]``), or values in the label's unit
        (``[n, 1]``).
        """
        found = outputs[:, : len(self.names)]
        if self.kind == "regression":
            return found * self.standard_deviation + self.mean
        if self.kind == "multiclass":
            raised = np.exp(found - found.max(axis=1, keepdims=True))
            shares: Floats = raised / raised.sum(axis=1, keepdims=True)
            return shares
        return 1.0 / (1.0 + np.exp(-np.clip(found, -50, 50)))


def labelled_rows(
    samples: pl.DataFrame,
    *,
    kind: str,
    task: str,
    labels: pl.DataFrame | None = None,
    names: Sequence[str] = (),
) -> tuple[pl.DataFrame, Floats, Target]:
    """Return samples with a label, their labels as numbers, and what these are.

    Parameters
    ----------
    samples
        ``boolean_value`` holds the label of a binary task, ``float_value`` that of a regression or the number
        of a class.
    labels
        Of a multi-label task: ``encounter_id``, ``prediction_time`` and one Boolean column a label.
    names
        Of the classes of a multi-class task.

    Returns
    -------
    samples, values, target
        In ``samples``, ``boolean_value`` is what splits are stratified by: the label itself, or whether a
        number lies above its median, or the label that is closest to half of all. ``values`` is ``[n, 1]``,
        or ``[n, labels]``.

    Raises
    ------
    TrainingError
        If the kind is unknown or no sample has a label.
    """
    if kind not in KINDS:
        raise TrainingError(f"no kind of task {kind!r}; there are {', '.join(KINDS)}")
    order = ["subject_id", "prediction_time", "encounter_id"]
    if kind == "multilabel":
        if labels is None or labels.is_empty():
            raise TrainingError(f"task {task!r} needs a table of labels")
        columns = [name for name in labels.columns if name not in KEYS]
        rows = samples.join(labels, on=list(KEYS), how="inner").sort(order)
        values = rows.select(pl.col(columns).cast(pl.Float64)).to_numpy()
        varying = np.flatnonzero((values.min(axis=0, initial=1) == 0) & (values.max(axis=0, initial=0) == 1))
        columns = [columns[k] for k in varying]
        values = values[:, varying]
        stratum = values[:, np.abs(values.mean(axis=0) - 0.5).argmin()] > 0 if columns else np.zeros(0)
        rows = rows.select(samples.columns)
    else:
        column = "boolean_value" if kind == "binary" else "float_value"
        rows = samples.drop_nulls(column).sort(order)
        columns = [task] if kind != "multiclass" else list(names)
        values = rows[column].cast(pl.Float64).to_numpy().reshape(-1, 1)
        stratum = values[:, 0] > (np.median(values) if kind == "regression" and len(values) else 0)
    if rows.is_empty():
        raise TrainingError("no sample has a label")
    if not columns:
        raise TrainingError(f"no label of task {task!r} varies in these samples")
    rows = rows.with_columns(pl.Series("boolean_value", stratum, dtype=pl.Boolean))
    return rows, values, Target(kind=kind, names=tuple(columns))


def further_values(
    further: pl.DataFrame, samples: pl.DataFrame, config: TrainingConfig, training: NDArray[np.int64]
) -> Floats:
    """Return the values of ``config.auxiliary`` ``[n, k]``, NaN where unknown.

    Parameters
    ----------
    further
        ``encounter_id`` and one column a further target.
    samples
        Rows to fill.
    training
        Positions that a number's scale is learnt from.

    Raises
    ------
    TrainingError
        If a target has no column.
    """
    names = [auxiliary.name for auxiliary in config.auxiliary]
    if not names:
        return np.zeros((samples.height, 0))
    if lacking := [name for name in names if name not in further.columns]:
        raise TrainingError(f"no values of the further target {', '.join(lacking)}")
    found = samples.select("encounter_id").join(
        further.unique("encounter_id", keep="first", maintain_order=True),
        on="encounter_id",
        how="left",
        maintain_order="left",
    )
    values = found.select(pl.col(names).cast(pl.Float64).fill_null(float("nan"))).to_numpy().copy()
    for column, auxiliary in enumerate(config.auxiliary):
        known = values[training, column]
        known = known[np.isfinite(known)]
        if auxiliary.kind == "regression" and known.size:
            values[:, column] = (values[:, column] - known.mean()) / (known.std() or 1.0)
    return values


def _discrimination(labels: Floats, predicted: Floats) -> tuple[float | None, float | None]:
    if not 0 < labels.sum() < labels.size:
        return None, None
    return (
        round(float(roc_auc_score(labels, predicted)), 4),
        round(float(average_precision_score(labels, predicted)), 4),
    )


def split_metrics(target: Target, labels: Floats, answers: Floats) -> dict[str, Any]:
    """Return metrics of one split; what is undefined there is None.

    Parameters
    ----------
    labels
        ``[n, 1]`` or ``[n, labels]``, in the label's unit.
    answers
        From :meth:`Target.answers`.

    Returns
    -------
    dict
        ``samples`` and: AUROC, average precision, Brier score and ``events`` (binary); their macro means and
        ``outputs`` by name (multi-class one against the rest, multi-label); ``mae`` and ``rmse`` (regression).
    """
    n = len(labels)
    if target.kind == "regression":
        error = answers[:, 0] - labels[:, 0]
        return {
            "samples": n,
            "mae": round(float(np.abs(error).mean()), 4) if n else None,
            "rmse": round(float(np.sqrt((error**2).mean())), 4) if n else None,
        }
    if target.kind == "binary":
        auroc, precision = _discrimination(labels[:, 0], answers[:, 0])
        return {
            "samples": n,
            "events": int(labels.sum()),
            "auroc": auroc,
            "average_precision": precision,
            "brier": round(float(np.mean((answers[:, 0] - labels[:, 0]) ** 2)), 4) if n else None,
        }
    if target.kind == "multiclass":
        labels = (labels == np.arange(len(target.names))).astype(np.float64)
    each = {
        name: dict(
            zip(
                ("auroc", "average_precision"),
                _discrimination(labels[:, column], answers[:, column]),
                strict=True,
            ),
            events=int(labels[:, column].sum()),
        )
        for column, name in enumerate(target.names)
    }
    macro = {}
    for metric in ("auroc", "average_precision"):
        found = [value for entry in each.values() if (value := entry[metric]) is not None]
        macro[metric] = round(float(np.mean(found)), 4) if found else None
    return {"samples": n, **macro, "outputs": each}
