"""What moved a score: exact changes without a modality, and shares of the features that add up."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modelling.batches import MODALITIES, Batch, owners
from modelling.batches.batch import spans
from modelling.scoring.model import ScoringModel


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
    """Return ``(contribution, position of the latest token)`` of each sample's features.

    Contributions are Shapley values estimated from one order of the features and its reverse (antithetic
    sampling: Mitchell et al., JMLR 2022): features join one after another, and each gets the mean change of
    the probability that its joining makes. Whatever the order, the changes of a sample add up to
    ``p - p(without any event)``, its contribution of the EHR, exactly. The order is that of a digest of the
    codes, so that it depends neither on the batch nor on the model. All values of one feature join together:
    with one of many heart rates gone, nothing would move.

    References
    ----------
    Shapley values of features: Lundberg and Lee, NeurIPS 2017.
    """
    result: list[list[tuple[float, int]]] = [[] for _ in range(len(batch))]
    if not batch.feature.numel():
        return result
    owner = owners(batch.token_offsets)
    usable = batch.present[owner, 0]
    order = _feature_order(model.encoding.codes).to(batch.device)
    ranked = torch.stack([owner[usable], order[batch.feature[usable]]], 1)
    pairs, of_pair = ranked.unique(dim=0, return_inverse=True)
    counts = torch.bincount(pairs[:, 0], minlength=len(batch))
    first = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    place = torch.full_like(owner, -1)
    place[usable] = of_pair - first[owner[usable]]
    latest = torch.zeros(len(pairs), dtype=torch.int64, device=batch.device).scatter_reduce(
        0, of_pair, torch.nonzero(usable).flatten(), "amax"
    )
    coalitions = _coalitions(counts)
    worth = _worth(model, batch, coalitions, place, token_budget)
    for row in torch.nonzero(counts).flatten().tolist():
        n = int(counts[row])
        own = slice(int(first[row]), int(first[row]) + n)
        start = 2 * int(first[row]) - int((counts[:row] > 0).sum())
        nothing, joined, left = (
            worth[start],
            worth[start + 1 : start + n],
            worth[start + n : start + 2 * n - 1],
        )
        forward = np.diff(np.concatenate([[nothing], joined, [probability[row]]]))
        backward = -np.diff(np.concatenate([[probability[row]], left, [nothing]]))
        result[row] = list(zip(((forward + backward) / 2).tolist(), latest[own].tolist(), strict=True))
    return result


def _feature_order(codes: Sequence[str]) -> Tensor:
    """Return the rank of each feature number (0 is padding) by the digest of its code."""
    digests = [b"", *(sha256(code.encode()).digest() for code in codes)]
    ranks = torch.empty(len(digests), dtype=torch.int64)
    ranks[torch.tensor(sorted(range(len(digests)), key=digests.__getitem__))] = torch.arange(len(digests))
    return ranks


def _coalitions(counts: Tensor) -> Tensor:
    """Return ``(sample, lowest place, one above the highest)`` of every set of features to be scored.

    For a sample with n features: none; the first 1, ..., n - 1; all but the first 1, ..., n - 1.
    """
    rows = []
    for row, n in enumerate(counts.tolist()):
        if n:
            rows += [(row, 0, 0), *((row, 0, k) for k in range(1, n)), *((row, k, n) for k in range(1, n))]
    return torch.tensor(rows, dtype=torch.int64, device=counts.device).reshape(-1, 3)


def _worth(
    model: ScoringModel, batch: Batch, coalitions: Tensor, place: Tensor, token_budget: int
) -> NDArray[np.float64]:
    """Return the probability of each coalition, with the sample's other modalities left as they are."""
    lengths = batch.token_offsets.diff()[coalitions[:, 0]]
    parts = []
    start = 0
    while start < len(coalitions):
        total = lengths[start:].cumsum(0)
        size = max(1, int((total <= token_budget).sum()))
        rows, low, high = coalitions[start : start + size].unbind(1)
        token, offsets = spans(batch.token_offsets, rows)
        at, of = place[token], owners(offsets)
        keep = (at >= low[of]) & (at < high[of])
        parts.append(probabilities(model, batch.take(rows).keep_tokens(keep)))
        start += size
    return np.concatenate(parts) if parts else np.zeros(0)
