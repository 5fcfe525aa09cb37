"""MedM2T's fusion: one shared encoder, and attention between every two modalities of one patient."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from modelling.models.transformer import Attention


@dataclass(frozen=True)
class ModalityTokens:
    """What one encoder gives for all samples of a batch.

    Attributes
    ----------
    vector
        ``[n, d]``: the modality as one vector.
    tokens, there
        ``[n, steps, d]`` and bool ``[n, steps]``: its time steps, for attention.
    present
        bool ``[n]``: which samples have the modality at all.
    """

    vector: Tensor
    tokens: Tensor
    there: Tensor
    present: Tensor


class _CrossBlock(nn.Module):
    """``x1 <- x2``: attention, residual, norm, feed-forward with LeakyReLU, residual, norm."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.first_norm = nn.LayerNorm(width, eps=1e-6)
        self.second_norm = nn.LayerNorm(width, eps=1e-6)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, first: ModalityTokens, second: ModalityTokens) -> Tensor:
        """Return ``[n, width]``: the mean of the first modality's steps after they have read the second's."""
        x = first.tokens
        x = self.first_norm(x + self.dropout(self.attention(x, second.tokens, second.there)))
        x = self.second_norm(x + self.dropout(self.narrow(leaky_relu(self.widen(x)))))
        weight = first.there / first.there.sum(1, keepdim=True).clamp(min=1)
        return (x * weight.unsqueeze(-1).to(x.dtype)).sum(1)


class BimodalFusion(nn.Module):
    """Shared encoder and bi-modal attention over any number of modalities (MedM2T 2025).

    ``e_i = S(W_i h_i + b_i)`` with one ``S`` (linear, ReLU, dropout) for all; for each pair, attention
    in both directions is added. The released code adds the first direction to itself, and lets
    attention run over the patients of a batch; here both directions count and each patient attends to
    their own time steps. An absent modality is a learnt vector, and what a pair with it would say is
    zero.

    The result is ``[e_1 ... e_N, r_12, r_13, ...]`` of width ``d (N + N (N - 1) / 2)``.
    """

    def __init__(
        self, sizes: dict[str, int], *, width: int, heads: int, dropout: float, shared_dropout: float = 0.05
    ) -> None:
        super().__init__()
        self.names = list(sizes)
        self.pairs = list(combinations(self.names, 2))
        self.project = nn.ModuleDict({name: nn.Linear(size, width) for name, size in sizes.items()})
        self.project_tokens = nn.ModuleDict({name: nn.Linear(size, width) for name, size in sizes.items()})
        self.shared = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(shared_dropout))
        self.missing = nn.ParameterDict({name: nn.Parameter(torch.zeros(width)) for name in sizes})
        self.cross = nn.ModuleDict()
        for one, two in self.pairs:
            self.cross[f"{one}<-{two}"] = _CrossBlock(width, heads, dropout)
            self.cross[f"{two}<-{one}"] = _CrossBlock(width, heads, dropout)
        self.features = width * (len(self.names) + len(self.pairs))

    def forward(self, modalities: dict[str, ModalityTokens]) -> Tensor:
        """Map the modalities' vectors and tokens to ``[n, features]``."""
        encoded: dict[str, ModalityTokens] = {}
        parts = []
        for name in self.names:
            given = modalities[name]
            vector = self.shared(self.project[name](given.vector))
            vector = torch.where(given.present.unsqueeze(1), vector, self.missing[name].to(vector.dtype))
            tokens = self.shared(self.project_tokens[name](given.tokens))
            there = given.there & given.present.unsqueeze(1)
            encoded[name] = ModalityTokens(vector, tokens, there, given.present)
            parts.append(vector)
        for one, two in self.pairs:
            first, second = encoded[one], encoded[two]
            read = self.cross[f"{one}<-{two}"](first, second) + self.cross[f"{two}<-{one}"](second, first)
            parts.append(read * (first.present & second.present).unsqueeze(1))
        return torch.cat(parts, dim=1)
