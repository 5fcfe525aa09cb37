"""From triplets (feature, value, time) to vectors: multiplicative, scaled and additive embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from modelling.batches import Batch, Encoding, owners
from modelling.errors import TrainingError

EmbeddingKind = Literal["mufuse", "scane", "additive"]


@dataclass(frozen=True)
class Tokens:
    """Padded token vectors of a batch.

    Attributes
    ----------
    vectors
        ``[n, length, d]``; zero where there is no token.
    there
        bool ``[n, length]``: where a token stands.
    """

    vectors: Tensor
    there: Tensor


def sinusoid(position: Tensor, width: int) -> Tensor:
    """Return the fixed sinusoidal code ``[..., width]`` of positions (Vaswani et al. 2017, section 3.5)."""
    half = (width + 1) // 2
    steps = torch.arange(half, device=position.device, dtype=position.dtype)
    angle = position.unsqueeze(-1) * torch.exp(-math.log(10_000.0) * 2 * steps / width)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)[..., :width]


def pad(flat: Tensor, offsets: Tensor) -> Tokens:
    """Lay the flat tokens of samples (``[total, d]``, bounds ``[n + 1]``) side by side."""
    lengths = offsets.diff()
    n, longest = lengths.numel(), int(lengths.max()) if lengths.numel() else 0
    owner = owners(offsets)
    place = torch.arange(flat.shape[0], device=flat.device) - offsets[:-1][owner]
    vectors = flat.new_zeros(n, longest, flat.shape[1]).index_put((owner, place), flat)
    there = torch.arange(longest, device=flat.device) < lengths.unsqueeze(1)
    return Tokens(vectors, there)


class ContinuousEmbedding(nn.Module):
    """One number to ``d``: linear to the square root of d, tanh, linear without bias (STraTS)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(2, round(math.sqrt(width)))
        self.layers = nn.Sequential(nn.Linear(1, inner), nn.Tanh(), nn.Linear(inner, width, bias=False))

    def forward(self, value: Tensor) -> Tensor:
        """Map ``[...]`` to ``[..., d]``."""
        embedded: Tensor = self.layers(value.unsqueeze(-1))
        return embedded


class TokenEmbedding(nn.Module):
    """Embed feature and value of every token; categorical features have a branch of their own.

    Parameters
    ----------
    encoding
        Vocabulary.
    kind
        ``mufuse`` (MuFuse 2025, section 3): ``e_f`` times, block by block, the modulated value
        ``gamma_f * z(v) + beta_f``, where ``z`` is a two-layer perceptron shared by all features and the
        d' entries of the value each multiply d / d' entries of ``e_f``. ``scane``: ``v e_f``, the case
        d' = 1 with the identity for ``z``. ``additive``: ``e_f + cve(v)`` (STraTS).
    width, value_width, hidden
        d, d' (a divisor of d) and p.
    """

    def __init__(
        self,
        encoding: Encoding,
        *,
        kind: EmbeddingKind,
        width: int,
        value_width: int,
        hidden: int,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if kind not in ("mufuse", "scane", "additive"):
            raise TrainingError(f"no embedding {kind!r}; there are mufuse, scane, additive")
        if width % value_width:
            raise TrainingError(f"value width {value_width} does not divide token width {width}")
        self.kind, self.blocks = kind, width // value_width
        # Age and sex are features of their own, after those of the encoding.
        self.age = encoding.n_tokens
        self.sex = encoding.n_tokens + 1
        self.first_sex_level = encoding.n_levels
        self.feature = nn.Embedding(encoding.n_tokens + 2, width, padding_idx=0)
        nn.init.normal_(self.feature.weight[1:])
        self.level = nn.Embedding(encoding.n_levels + 2, width)
        nn.init.normal_(self.level.weight)
        self.categorical = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)
        if kind == "mufuse":
            self.value: nn.Module = nn.Sequential(
                nn.Linear(1, hidden), nn.Tanh(), nn.Linear(hidden, value_width)
            )
            self.gamma = nn.Embedding(encoding.n_tokens + 2, value_width)
            self.beta = nn.Embedding(encoding.n_tokens + 2, value_width)
            nn.init.ones_(self.gamma.weight)
            nn.init.zeros_(self.beta.weight)
        elif kind == "additive":
            self.value = ContinuousEmbedding(width)

    def forward(self, feature: Tensor, value: Tensor, level: Tensor) -> Tensor:
        """Map ``[k]`` features, values and levels (0: a number) to ``[k, d]``."""
        name = self.feature(feature)
        if self.kind == "scane":
            numeric = name * value.unsqueeze(-1)
        elif self.kind == "additive":
            numeric = name + self.value(value)
        else:
            modulated = self.gamma(feature) * self.value(value.unsqueeze(-1)) + self.beta(feature)
            numeric = name * modulated.repeat_interleave(self.blocks, dim=-1)
        named = level > 0
        if not bool(named.any()):
            return numeric
        pair = torch.cat([name[named], self.level(level[named])], dim=-1)
        return numeric.index_put((named,), torch.tanh(self.dropout(self.categorical(pair))).to(numeric.dtype))

    def static(self, static: Tensor) -> Tokens:
        """Return age and sex of ``[n, 4]`` (see ``Batch.static``) as two tokens a sample."""
        n = static.shape[0]
        zeros = torch.zeros(n, dtype=torch.int64, device=static.device)
        age = self(zeros + self.age, static[:, 0], zeros)
        female = static[:, 3] > 0
        sex = self(zeros + self.sex, static.new_zeros(n), self.first_sex_level + female.long())
        there = torch.stack([static[:, 1] > 0, (static[:, 2] > 0) | female], dim=1)
        return Tokens(torch.stack([age, sex], dim=1) * there.unsqueeze(-1), there)


def visible_tokens(batch: Batch) -> Batch:
    """Return the batch without the tokens of samples whose EHR is left out."""
    there = batch.present[owners(batch.token_offsets), 0]
    return batch if bool(there.all()) else batch.keep_tokens(there)
