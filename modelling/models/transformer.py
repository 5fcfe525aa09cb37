"""Transformer encoder layers over tokens of which some are not there."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from modelling.models.attention import dropped_attention


class Attention(nn.Module):
    """Multi-head attention; queries read those keys that are there.

    Parameters
    ----------
    width, heads
        ``heads`` divides ``width``.
    dropout
        On attention weights.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.keys = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        for layer in (self.query, self.keys, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, queries: Tensor, keys: Tensor, there: Tensor) -> Tensor:
        """Map ``[n, q, d]`` and ``[n, k, d]`` with bool ``[n, k]`` to ``[n, q, d]``.

        A sample without any key reads zeros.
        """
        n, q, width = queries.shape
        k = keys.shape[1]
        if n == 0 or k == 0:
            return self.out(torch.zeros_like(queries))
        key, value = self.keys(keys).view(n, k, 2, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query = self.query(queries).view(n, q, self.heads, width // self.heads).transpose(1, 2)
        some = there.any(1)
        # Attention over no key is undefined: such samples look at the first place and the result is cleared.
        first = torch.arange(k, device=there.device) == 0
        mask = there | (first & ~some.unsqueeze(1))
        rate = self.dropout if self.training else 0.0
        if rate and query.device.type == "cpu":
            read = dropped_attention(query, key, value, mask, rate)
        else:
            read = scaled_dot_product_attention(
                query, key, value, attn_mask=mask[:, None, None, :], dropout_p=rate
            )
        read = read.transpose(1, 2).reshape(n, q, width) * some[:, None, None]
        return self.out(read)


class EncoderLayer(nn.Module):
    """Post-norm layer: attention, residual, norm, GELU feed-forward, residual, norm (MuFuse's order).

    ``pre_norm`` puts the norms before each part.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int,
        *,
        dropout: float,
        attention_dropout: float,
        pre_norm: bool = False,
    ) -> None:
        super().__init__()
        self.attention = Attention(width, heads, attention_dropout)
        self.first_norm, self.second_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, inner), nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)
        self.pre_norm = pre_norm

    def _feed(self, x: Tensor) -> Tensor:
        return self.dropout(self.narrow(self.dropout(gelu(self.widen(x)))))

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        """Map ``[n, k, d]``; only places where ``there`` is true are read."""
        if self.pre_norm:
            y = self.first_norm(x)
            x = x + self.dropout(self.attention(y, y, there))
            return x + self._feed(self.second_norm(x))
        x = self.first_norm(x + self.dropout(self.attention(x, x, there)))
        return self.second_norm(x + self._feed(x))
