"""Attention with dropout on a CPU against PyTorch's own, value by value and gradient by gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from modelling.models import attention
from modelling.models.attention import dropped_attention, dropped_places


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(n: int, heads: int, queries: int, keys: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    query = drawn(n, queries, heads, width, seed=1).transpose(1, 2).requires_grad_()
    key = drawn(n, keys, heads, width, seed=2).transpose(1, 2).requires_grad_()
    value = drawn(n, keys, heads, width, seed=3).transpose(1, 2).requires_grad_()
    there = drawn(n, keys, seed=4) > 0
    there[:, keys // 2] = True
    return query, key, value, there


@pytest.mark.parametrize("rate", [0.025, 0.5, 0.99])
@pytest.mark.parametrize("cached", [1, 200, 1 << 18])
def test_values_and_gradients_equal_the_plain_formula_with_the_same_places_dropped(
    rate: float, cached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "CACHED", cached)
    drops: list[Tensor] = []

    def remember(count: int, rate: float) -> Tensor:
        drops.append(torch.zeros(count, dtype=torch.float64))
        places = dropped_places(count, rate)
        drops[-1][places] = 1
        return places

    monkeypatch.setattr(attention, "dropped_places", remember)
    query, key, value, there = inputs(5, 2, 7, 9, 4)
    weights = drawn(5, 2, 7, 4, seed=5)
    torch.manual_seed(7)
    found = dropped_attention(query, key, value, there, rate)
    gradients = torch.autograd.grad((found * weights).sum(), (query, key, value))

    kept = 1 - torch.cat(drops).view(5, 2, 7, 9)
    assert 0 < kept.mean() < 1
    score = (query @ key.transpose(-1, -2) / 2).masked_fill(~there[:, None, None, :], float("-inf"))
    expected = (torch.softmax(score, -1) * kept / (1 - rate)) @ value
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad((expected * weights).sum(), (query, key, value))
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_with_next_to_no_dropout_it_is_pytorchs_attention() -> None:
    query, key, value, there = inputs(3, 4, 11, 11, 8)
    found = dropped_attention(query, key, value, there, 1e-12)
    expected = scaled_dot_product_attention(query, key, value, attn_mask=there[:, None, None, :])
    torch.testing.assert_close(found, expected)


def test_the_mean_over_draws_is_attention_without_dropout() -> None:
    query, key, value, there = inputs(2, 1, 3, 6, 2)
    expected = scaled_dot_product_attention(query, key, value, attn_mask=there[:, None, None, :])
    torch.manual_seed(0)
    mean = torch.stack([dropped_attention(query, key, value, there, 0.2) for _ in range(4_000)]).mean(0)
    torch.testing.assert_close(mean, expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("rate", [0.025, 0.3, 0.9])
def test_each_place_is_dropped_alone_and_at_the_rate(rate: float) -> None:
    torch.manual_seed(1)
    count, draws = 50, 4_000
    gone = torch.zeros(draws, count)
    for draw in range(draws):
        places = dropped_places(count, rate)
        assert (places.diff() > 0).all()
        gone[draw, places] = 1
    error = (rate * (1 - rate) / draws) ** 0.5
    assert (gone.mean(0) - rate).abs().max() < 5 * error
    # Neighbours know nothing of each other.
    together = (gone[:, 1:] * gone[:, :-1]).mean(0)
    assert (together - rate**2).abs().max() < 5 * (rate**2 / draws) ** 0.5 + 1e-3


def test_nothing_to_drop_from() -> None:
    assert dropped_places(0, 0.5).numel() == 0
