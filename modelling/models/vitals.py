"""MedM2T's branch of dense numeric vital signs: a fine grid, segments at two scales, attention, ResNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from modelling.batches import Batch, Encoding, owners
from modelling.models.encoders import SignalResNet
from modelling.models.layers import MLP
from modelling.models.transformer import Attention

POINTS = 240
SEGMENTS = 24


class _Segment(nn.Module):
    """One scale: self-attention over the points of a segment, a small ResNet, an MLP."""

    def __init__(self, series: int, points: int, inner: int, width: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(series, 4 if series % 4 == 0 else 1)
        self.norm, self.second_norm = nn.LayerNorm(series), nn.LayerNorm(series)
        self.widen, self.narrow = nn.Linear(series, 4 * series), nn.Linear(4 * series, series)
        self.out = nn.Linear(series, inner)
        self.resnet = SignalResNet(
            (inner, 2 * inner), (1, 2), leads=inner, kernel=3, dropout=dropout, flatten_length=points // 2
        )
        self.mlp = MLP(self.resnet.features, (width,), dropout)

    def forward(self, segments: Tensor) -> Tensor:
        """Map ``[k, points, series]`` to ``[k, width]``."""
        there = segments.new_ones(segments.shape[:2], dtype=torch.bool)
        x = self.norm(segments + self.attention(segments, segments, there))
        x = self.second_norm(x + self.narrow(leaky_relu(self.widen(x))))
        mapped: Tensor = self.mlp(self.resnet(self.out(x).transpose(1, 2)))
        return mapped


class VitalsEncoder(nn.Module):
    """Numeric vitals (MedM2T 2025): 240 grid points, 24 overlapping segments of 12 and of 24 points.

    The paper's eight bedside series on a 6-minute grid over 24 h; here every numeric vital sign of the
    catalogue, mapped linearly to eight series, on 240 points over the encoding's span, last value carried
    forward and the training mean before the first.

    Parameters
    ----------
    encoding
        Scales.
    features
        Vocabulary indices of the vital signs.
    """

    series = 8

    def __init__(self, encoding: Encoding, features: list[int], *, width: int, dropout: float) -> None:
        super().__init__()
        column = torch.full((encoding.n_tokens,), -1, dtype=torch.int64)
        for position, index in enumerate(features):
            column[index] = position
        self.column: Tensor
        self.register_buffer("column", column, persistent=False)
        self.count = len(features)
        self.span = encoding.settings.grid_hours
        self.mix = nn.Linear(max(1, self.count), self.series)
        self.scales = nn.ModuleDict(
            {
                "12": _Segment(self.series, 12, 16 // 2, width // 2, dropout),
                "24": _Segment(self.series, 24, 32 // 2, width, dropout),
            }
        )
        features_all = width // 2 + width
        self.resnet = SignalResNet(
            (features_all, features_all // 2),
            (1, 2),
            leads=features_all,
            kernel=3,
            dropout=dropout,
            flatten_length=SEGMENTS // 2,
        )
        self.mlp = MLP(self.resnet.features, (width,), dropout)
        self.token = nn.Linear(features_all, width)

    def grid(self, batch: Batch) -> Tensor:
        """Return standardised vitals ``[n, 240, series]``, carried forward, oldest point first."""
        n = len(batch)
        column = self.column[batch.feature]
        point = POINTS - 1 - (batch.hours * (POINTS / self.span)).floor().long()
        used = (column >= 0) & (point >= 0)
        last = torch.full((n * POINTS * self.count,), -1, dtype=torch.int64, device=batch.device)
        cell = (owners(batch.token_offsets) * POINTS + point) * self.count + column
        position = torch.arange(cell.numel(), device=batch.device)
        last.scatter_reduce_(0, cell[used], position[used], "amax")
        filled = last.view(n, POINTS, self.count).cummax(dim=1).values
        value = torch.cat([batch.value, batch.value.new_zeros(1)])
        return value[filled]

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return one vector a sample ``[n, width]`` and its segment tokens ``[n, 24, width]``."""
        n = len(batch)
        grid = self.grid(batch) if self.count else batch.value.new_zeros(n, POINTS, 1)
        series = self.mix(grid)
        scales = []
        for name, encoder in self.scales.items():
            points = int(name)
            starts = torch.linspace(0, POINTS - points, SEGMENTS, device=batch.device).round().long()
            index = starts.unsqueeze(1) + torch.arange(points, device=batch.device)
            segments = series[:, index].flatten(0, 1)
            scales.append(encoder(segments).view(n, SEGMENTS, -1))
        segments = torch.cat(scales, dim=-1)
        return self.mlp(self.resnet(segments.transpose(1, 2))), self.token(segments)
