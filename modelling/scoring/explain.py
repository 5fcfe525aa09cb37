"""What moved a score: the change when a modality, or one feature's values, are left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modelling.batches import MODALITIES, Batch, owners
from modelling.scoring.model import ScoringModel

EMBED_CHUNK = 64


def embedded(model: ScoringModel, batch: Batch) -> Batch:
    """Encode recordings and images once, a few at a time."""

    def in_parts(items: Tensor, embed: str) -> Tensor:
        function = getattr(model.network, embed)
        if not len(items):
            return torch.as_tensor(function(items))
        return torch.cat(
            [function(items[start : start + EMBED_CHUNK]) for start in range(0, len(items), EMBED_CHUNK)]
        )

    return replace(
        batch, ecg=in_parts(batch.ecg, "embed_signals"), image=in_parts(batch.image, "embed_images")
    )


def probabilities(model: ScoringModel, batch: Batch) -> NDArray[np.float64]:
    """Return calibrated probabilities ``[n]``."""
    return model.calibration.probability(model.network(batch)[:, 0].double().cpu().numpy())


def modality_contributions(
    model: ScoringModel, batch: Batch, probability: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return ``p - p(without the modality)`` as ``[n, 3]``; NaN where a modality is absent or unused."""
    result = np.full((len(batch), len(MODALITIES)), np.nan)
    for column, modality in enumerate(MODALITIES):
        rows = torch.nonzero(batch.present[:, column]).flatten()
        if modality in model.modalities and len(rows):
            without = probabilities(model, batch.take(rows).without(modality))
            result[rows.cpu().numpy(), column] = probability[rows.cpu().numpy()] - without
    return result


def feature_contributions(
    model: ScoringModel, batch: Batch, probability: NDArray[np.float64], *, token_budget: int
) -> list[list[tuple[float, int]]]:
    """Return ``(p - p(without the feature), position of its latest token)`` of each sample's features.

    All values of one feature are left out together: with one of many heart rates gone, nothing would move.
    """
    result: list[list[tuple[float, int]]] = [[] for _ in range(len(batch))]
    if not batch.feature.numel():
        return result
    owner = owners(batch.token_offsets)
    usable = batch.present[owner, 0]
    pairs = torch.stack([owner[usable], batch.feature[usable]], 1).unique(dim=0)
    position = torch.arange(batch.feature.numel(), device=batch.device)
    lengths = batch.token_offsets.diff()[pairs[:, 0]]
    start = 0
    while start < len(pairs):
        total = lengths[start:].cumsum(0)
        size = max(1, int((total <= token_budget).sum()))
        rows, features = pairs[start : start + size].unbind(1)
        part = batch.take(rows)
        keep = part.feature != features[owners(part.token_offsets)]
        without = probabilities(model, part.keep_tokens(keep))
        for row, feature, value in zip(rows.tolist(), features.tolist(), without.tolist(), strict=True):
            own = slice(int(batch.token_offsets[row]), int(batch.token_offsets[row + 1]))
            latest = int(position[own][batch.feature[own] == feature][-1])
            result[row].append((float(probability[row]) - value, latest))
        start += size
    return result
