"""MedM2T's encoder of sparse series: values as binned tokens, times as cumulative windows."""

from __future__ import annotations

from bisect import bisect_right

import torch
from torch import Tensor, nn

from modelling.batches import Batch, Encoding, owners
from modelling.models.layers import MLP


class SparseSeriesEncoder(nn.Module):
    """Sparse Time Series Encoder (MedM2T 2025): (feature, bin) and feature embeddings, windows, BiLSTM.

    A value becomes the bin of its feature in which it falls; edges are percentiles of the training
    subjects' means. A categorical value is its level. Times fall into windows whose edges are quantiles of
    the training tokens' times before prediction. The bag of a window holds every token up to it, so the last
    window knows all. A window's embedding is the mean over its bag of ``E_value(token) * E_source(feature)``;
    an empty bag is the None token of both vocabularies.

    Parameters
    ----------
    encoding
        Bins and windows, fitted on training samples.
    features
        Vocabulary indices of the features that this encoder reads.
    width
        E; the BiLSTM has E / 2 a direction.
    """

    def __init__(self, encoding: Encoding, features: list[int], *, width: int, dropout: float) -> None:
        super().__init__()
        sizes = [0] * encoding.n_tokens
        for index in features:
            feature = encoding.features[index - 1]
            # Level 0 of a categorical feature stands for a level that training never named.
            sizes[index] = len(feature.levels) + 1 if feature.categorical else len(feature.bins) + 1
        starts = [0]
        for size in sizes:
            starts.append(starts[-1] + size)
        most = max((len(feature.bins) for feature in encoding.features), default=0)
        edges = torch.full((encoding.n_tokens, max(most, 1)), float("inf"))
        level_start = torch.zeros(encoding.n_tokens, dtype=torch.int64)
        for index, feature in enumerate(encoding.features, start=1):
            edges[index, : len(feature.bins)] = torch.tensor(feature.bins)
            level_start[index] = encoding.level_offsets[index - 1]
        self.start: Tensor
        self.used: Tensor
        self.edges: Tensor
        self.categorical: Tensor
        self.level_start: Tensor
        self.window_edges: Tensor
        self.register_buffer("start", torch.tensor(starts[:-1]) + 1, persistent=False)
        self.register_buffer("used", torch.tensor([size > 0 for size in sizes]), persistent=False)
        categorical = [False, *(feature.categorical for feature in encoding.features)]
        self.register_buffer("categorical", torch.tensor(categorical), persistent=False)
        self.register_buffer("edges", edges, persistent=False)
        self.register_buffer("level_start", level_start, persistent=False)
        self.register_buffer("window_edges", torch.tensor(encoding.window_edges).float(), persistent=False)
        self.windows = len(encoding.window_edges) + 1
        self.value = nn.Embedding(starts[-1] + 1, width)
        self.source = nn.Embedding(encoding.n_tokens, width)
        self.lstm = nn.LSTM(width, width // 2, 2, batch_first=True, bidirectional=True)
        self.mlp = MLP(width, (width,), dropout)
        self.width = width

    def bins(self, batch: Batch) -> Tensor:
        """Return the bin (or level) of every token within its feature, int64 ``[tokens]``."""
        number = (batch.raw.unsqueeze(1) >= self.edges[batch.feature].to(batch.raw.dtype)).sum(1)
        named = torch.where(batch.level > 0, batch.level - self.level_start[batch.feature] + 1, 0)
        return torch.where(self.categorical[batch.feature], named, number)

    def window_vectors(self, batch: Batch) -> Tensor:
        """Return the mean of every cumulative window's bag, ``[n, windows, width]``, oldest window first."""
        n = len(batch)
        kept = self.used[batch.feature]
        token = (self.start[batch.feature] + self.bins(batch))[kept]
        product = self.value(token) * self.source(batch.feature[kept])
        # bucketize counts the edges at or below; the newest window is the last.
        window = (
            self.windows
            - 1
            - torch.bucketize(batch.hours[kept], self.window_edges.to(batch.hours.dtype), right=True)
        )
        cell = owners(batch.token_offsets)[kept] * self.windows + window
        total = product.new_zeros(n * self.windows, self.width).index_add(0, cell, product)
        count = product.new_zeros(n * self.windows).index_add(0, cell, torch.ones_like(product[:, 0]))
        total = total.view(n, self.windows, -1).cumsum(1)
        count = count.view(n, self.windows, 1).cumsum(1)
        none = self.value.weight[0] * self.source.weight[0]
        return torch.where(count > 0, total / count.clamp(min=1), none.to(total.dtype))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return one vector a sample ``[n, width]`` and its window tokens ``[n, windows, width]``.

        The vector comes from the last step of the BiLSTM's output, as in the paper.
        """
        steps, _ = self.lstm(self.window_vectors(batch))
        return self.mlp(steps[:, -1]), steps


def bin_of(value: float, edges: tuple[float, ...]) -> int:
    """Return the bin of one value: the number of edges at or below it.

    Examples
    --------
    >>> [bin_of(value, (1.0, 2.0)) for value in (0.0, 1.0, 1.5, 9.0)]
    [0, 1, 1, 2]
    """
    return bisect_right(edges, value)
