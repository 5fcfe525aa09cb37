"""Attention with dropout on a CPU, in pieces that stay in its cache.

PyTorch's fast attention for CPUs has no dropout: with it, the whole table of weights is written, masked and
drawn for several times over. Here a few samples are done at a time, their weights are computed again for the
gradient (Dao et al. 2022, FlashAttention, section 3.1), and only the places that are dropped are drawn.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CACHED = 1 << 18
"""Attention weights done at a time: 1 MiB, which the second-level cache of a core holds."""


def dropped_places(count: int, rate: float) -> Tensor:
    """Return the places, ascending int64, of ``count`` that are dropped, each alone with probability ``rate``.

    Gaps between successes of independent trials are geometric, so one draw a dropped place suffices.
    """
    expected = count * rate
    draws = int(expected + 6 * math.sqrt(expected)) + 16
    places = torch.full((1,), -1)
    while int(places[-1]) < count:
        gaps = torch.empty(draws, dtype=torch.float64).geometric_(rate).long()
        places = torch.cat([places, places[-1] + gaps.cumsum(0)])
    return places[1 : int(torch.searchsorted(places, count))]


class _DroppedAttention(torch.autograd.Function):
    """Softmax attention with dropout on its weights; see :func:`dropped_attention`."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, there: Tensor, rate: float) -> Tensor:
        scaled = query * query.shape[-1] ** -0.5
        bias = torch.zeros(there.shape, dtype=query.dtype).masked_fill_(~there, float("-inf"))
        read = torch.empty_like(query)
        each = query.shape[1] * query.shape[2] * key.shape[2]
        pieces = range(0, len(query), max(1, CACHED // max(1, each)))
        places = []
        for start in pieces:
            part = slice(start, start + pieces.step)
            weight = _weights(scaled[part], key[part], bias[part])
            places.append(dropped_places(weight.numel(), rate))
            weight.view(-1)[places[-1]] = 0
            torch.matmul(weight, value[part], out=read[part])
        read /= 1 - rate
        ctx.save_for_backward(scaled, key, value, bias, read, *places)
        ctx.rate, ctx.pieces = rate, pieces
        return read

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scaled, key, value, bias, read, *places = ctx.saved_tensors
        to_query, to_key, to_value = (torch.empty_like(tensor) for tensor in (scaled, key, value))
        # What the softmax takes off every weight's gradient: its mean under the weights.
        mean = (gradient * read).sum(-1, keepdim=True)
        gradient = gradient / (1 - ctx.rate)
        for start, gone in zip(ctx.pieces, places, strict=True):
            part = slice(start, start + ctx.pieces.step)
            weight = _weights(scaled[part], key[part], bias[part])
            change = gradient[part] @ value[part].transpose(-1, -2)
            change.view(-1)[gone] = 0
            change.sub_(mean[part]).mul_(weight)
            weight.view(-1)[gone] = 0
            torch.matmul(weight.transpose(-1, -2), gradient[part], out=to_value[part])
            torch.matmul(change, key[part], out=to_query[part])
            torch.matmul(change.transpose(-1, -2), scaled[part], out=to_key[part])
        return to_query.mul_(scaled.shape[-1] ** -0.5), to_key, to_value, None, None


def _weights(scaled: Tensor, key: Tensor, bias: Tensor) -> Tensor:
    return torch.softmax((scaled @ key.transpose(-1, -2)).add_(bias[:, None, None, :]), -1)


def dropped_attention(query: Tensor, key: Tensor, value: Tensor, there: Tensor, rate: float) -> Tensor:
    """Return what ``scaled_dot_product_attention`` returns with this mask and dropout, on a CPU.

    Parameters
    ----------
    query, key, value
        ``[n, heads, q, d]``, ``[n, heads, k, d]``, ``[n, heads, k, d]``.
    there
        bool ``[n, k]``: keys that may be read, at least one a sample.
    rate
        Above 0 and below 1; what is dropped follows from torch's default generator.
    """
    read: Tensor = _DroppedAttention.apply(query, key, value, there, rate)
    return read
