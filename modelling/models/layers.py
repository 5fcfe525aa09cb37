"""Small parts that several models share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class MLP(nn.Module):
    """Linear, norm, ReLU and dropout a layer.

    MedM2T has BatchNorm here. LayerNorm takes its place: it behaves alike in training and evaluation, needs
    no minimum batch, and gradient accumulation and data parallelism leave the result as it is.
    """

    def __init__(self, inputs: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for before, after in zip([inputs, *widths], widths, strict=False):
            parts += [nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*parts)
        self.features = widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., inputs]`` to ``[..., widths[-1]]``."""
        mapped: Tensor = self.layers(x)
        return mapped
