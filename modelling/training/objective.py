"""What a model of a task minimises and is judged by, for every kind of task.

The first outputs of a model answer the task; further ones are auxiliary. Which outputs are which follows
from the settings alone, so that every model trains on every kind.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score
from torch import Tensor
from torch.nn.functional import cross_entropy

from modelling.batches import Batch
from modelling.training.config import TrainingConfig
from modelling.training.losses import binary_loss, focal_loss


def outputs_of(config: TrainingConfig) -> int:
    """Return how many outputs a model needs: those of the task and one a further target."""
    return config.targets + len(config.auxiliary)


def task_labels(config: TrainingConfig, batch: Batch) -> Tensor:
    """Return the labels of a batch: ``[n, targets]`` of a multi-label task, else ``[n]``.

    The label is ``batch.label`` (0-1, a standardised number, or the number of a class); the second and
    further labels of a multi-label task are the first columns of ``batch.auxiliary``.
    """
    if config.kind != "multilabel":
        return batch.label
    return torch.cat([batch.label.unsqueeze(1), batch.auxiliary[:, : config.targets - 1]], dim=1)


def task_loss(config: TrainingConfig, outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of the task's outputs, summed over samples.

    Parameters
    ----------
    outputs
        ``[n, >= targets]``; what follows the task's outputs is not looked at.
    labels
        From :func:`task_labels`. Labels of a multi-label task are averaged, as MedFuse 2022 does.
    """
    found = outputs[:, : config.targets]
    if config.kind == "regression":
        return ((found[:, 0] - labels) ** 2).sum()
    if config.kind == "multiclass":
        return cross_entropy(found, labels.long(), reduction="sum")
    each = (
        partial(focal_loss, alpha=config.focal_alpha, gamma=config.focal_gamma)
        if config.loss == "focal"
        else binary_loss
    )
    if config.kind == "multilabel":
        return each(found, labels) / config.targets
    return each(found[:, 0], labels)


def auxiliary_loss(config: TrainingConfig, outputs: Tensor, batch: Batch) -> Tensor:
    """Return the weighted sum of the further targets' losses; unknown ones (NaN) count nothing.

    Parameters
    ----------
    outputs
        ``[n, targets + len(config.auxiliary)]``, those of ``config.auxiliary`` last.
    """
    total = outputs.new_zeros(())
    first = config.targets - 1 if config.kind == "multilabel" else 0
    for column, auxiliary in enumerate(config.auxiliary):
        target = batch.auxiliary[:, first + column]
        known = ~target.isnan()
        output, target = outputs[known, config.targets + column], target[known]
        each = binary_loss(output, target) if auxiliary.kind == "binary" else ((output - target) ** 2).sum()
        total = total + auxiliary.weight * each
    return total


def ranking_score(labels: NDArray[np.float64], logits: NDArray[np.float64]) -> float:
    """Return average precision, or minus the cross entropy when only one class is there."""
    y = labels.astype(np.float64)
    if 0 < y.sum() < y.size:
        return float(average_precision_score(y, np.nan_to_num(logits, nan=-1e9)))
    return -float(np.mean(np.logaddexp(0.0, logits) - y * logits)) if y.size else 0.0


def task_score(config: TrainingConfig, outputs: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """Return what early stopping follows; higher is better.

    Average precision; its mean over labels, or over classes one against the rest, that occur and are not
    everybody's; minus the mean absolute error of a regression, in its standardised unit.
    """
    if config.kind == "regression":
        return -float(np.mean(np.abs(outputs[:, 0] - labels))) if labels.size else 0.0
    if config.kind == "binary":
        return ranking_score(labels.round(), outputs[:, 0])
    if config.kind == "multiclass":
        labels = (labels[:, None] == np.arange(config.targets)).astype(np.float64)
        outputs = outputs[:, : config.targets] - outputs[:, : config.targets].max(axis=1, keepdims=True)
        outputs = outputs - np.log(np.exp(outputs).sum(axis=1, keepdims=True))
    usable = [k for k in range(config.targets) if 0 < labels[:, k].sum() < len(labels)]
    if not usable:
        return 0.0
    return float(np.mean([ranking_score(labels[:, k], outputs[:, k]) for k in usable]))
