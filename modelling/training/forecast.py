"""Self-supervised material: what was measured before a moment, and what was measured soon after."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from modelling.batches import Batch, owners

AHEAD_HOURS = 2.0
LEAST_HOURS = 12.0


def cut_for_forecast(
    batch: Batch, generator: torch.Generator, *, ahead: float = AHEAD_HOURS, least: float = LEAST_HOURS
) -> tuple[Batch, Tensor, Tensor]:
    """Cut each sample's look-back at a random hour into a past and what to forecast.

    The past spans at least ``least`` hours where the look-back allows it; the target is the mean
    standardised value of each feature in the ``ahead`` hours after the cut (STraTS, Tipirneni and Reddy
    2022, doi 10.1145/3516367, section 3.4). The past's hours count from the cut.

    Returns
    -------
    past, values, known
        A batch, float ``[n, n_tokens]`` and bool ``[n, n_tokens]``.
    """
    owner = owners(batch.token_offsets)
    room = (batch.lookback - least - ahead).clamp(min=0.0).cpu()
    cut = (ahead + torch.rand(len(batch), generator=generator) * room).to(batch.device)
    since = batch.hours - cut[owner]
    past = replace(batch, lookback=(batch.lookback - cut).clamp(min=0.0), hours=since).keep_tokens(since >= 0)
    coming = (since < 0) & (since >= -ahead)
    features = int(batch.feature.max()) + 1 if batch.feature.numel() else 1
    return past, *_means(batch, owner, coming, features)


def _means(batch: Batch, owner: Tensor, chosen: Tensor, features: int) -> tuple[Tensor, Tensor]:
    cell = owner[chosen] * features + batch.feature[chosen]
    total = batch.value.new_zeros(len(batch) * features).index_add_(0, cell, batch.value[chosen])
    count = batch.value.new_zeros(len(batch) * features).index_add_(
        0, cell, torch.ones_like(batch.value[chosen])
    )
    return (total / count.clamp(min=1)).view(-1, features), (count > 0).view(-1, features)
