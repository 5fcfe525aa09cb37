"""What every feature did over the look-back, in a few numbers: what boosting does well, inside a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modelling.batches import Batch, Encoding, owners
from modelling.models.layers import MLP

STATISTICS = ("seen", "count", "last", "first", "mean", "minimum", "maximum", "deviation", "recency")


def feature_summaries(batch: Batch, n_features: int) -> Tensor:
    """Return :data:`STATISTICS` of every feature's standardised values, ``[n, n_features, 9]``.

    A feature that was not seen is all zeros. ``count`` is ``log1p`` of the number of values, ``recency`` is
    ``exp(-hours / 12)`` of the latest one.

    Parameters
    ----------
    batch
        Tokens of a sample run from old to new.
    n_features
        Size of the vocabulary without index 0.
    """
    n = len(batch)
    cells = n * n_features
    cell = owners(batch.token_offsets) * n_features + batch.feature - 1
    value = batch.value
    zeros = value.new_zeros(cells)
    count = zeros.index_add(0, cell, torch.ones_like(value))
    seen = count > 0
    mean = zeros.index_add(0, cell, value) / count.clamp(min=1)
    square = zeros.index_add(0, cell, (value - mean[cell]) ** 2) / count.clamp(min=1)
    low = zeros.scatter_reduce(0, cell, value, "amin", include_self=False)
    high = zeros.scatter_reduce(0, cell, value, "amax", include_self=False)
    position = torch.arange(value.numel(), device=batch.device)
    none = torch.zeros(cells, dtype=torch.int64, device=batch.device)
    last = none.scatter_reduce(0, cell, position, "amax", include_self=False)
    first = none.scatter_reduce(0, cell, position, "amin", include_self=False)
    padded = torch.cat([value, value.new_zeros(1)])
    hours = torch.cat([batch.hours, batch.hours.new_zeros(1)])
    outside = value.numel()  # where an unseen feature points
    last, first = torch.where(seen, last, outside), torch.where(seen, first, outside)
    statistics = [
        seen.to(value.dtype),
        count.log1p(),
        padded[last],
        padded[first],
        mean,
        low,
        high,
        square.clamp(min=1e-12).sqrt() * seen,
        torch.exp(-hours[last] / 12.0) * seen,
    ]
    return torch.stack(statistics, dim=1).view(n, n_features, len(STATISTICS))


class SummaryEncoder(nn.Module):
    """Summaries of all features and the static inputs through two layers."""

    def __init__(self, encoding: Encoding, *, width: int, dropout: float) -> None:
        super().__init__()
        self.n_features = encoding.n_tokens - 1
        self.mlp = MLP(self.n_features * len(STATISTICS) + 4, (width, width), dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Return ``[n, width]``."""
        summaries = feature_summaries(batch, self.n_features).flatten(1)
        mapped: Tensor = self.mlp(torch.cat([summaries, batch.static], dim=1))
        return mapped
