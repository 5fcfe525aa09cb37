"""Encoders that stand alone: stacked LSTM, two-dimensional ResNet for images, one-dimensional for ECGs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence


class StackedLSTM(nn.Module):
    """LSTM over a grid; the hidden state after each sample's last bin.

    MedFuse 2022: two layers of 256. Xavier, orthogonal and zero initialisation as in its code; unlike there,
    dropout between the layers takes effect.
    """

    def __init__(self, inputs: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)
        for name, weight in self.lstm.named_parameters():
            if "weight_ih" in name:
                nn.init.xavier_uniform_(weight)
            elif "weight_hh" in name:
                nn.init.orthogonal_(weight)
            else:
                nn.init.zeros_(weight)

    def forward(self, grid: Tensor, lengths: Tensor) -> Tensor:
        """Map ``[n, steps, inputs]`` and lengths ``[n]`` to ``[n, hidden]``."""
        packed = pack_padded_sequence(grid, lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, (hidden, _) = self.lstm(packed)
        return self.dropout(hidden[-1])


class _BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ImageResNet(nn.Module):
    """ResNet of basic blocks (He et al. 2016); layers (3, 4, 6, 3) at width 64 is ResNet-34.

    Names of parameters are torchvision's, so that its weights fit when ``channels`` is 3; grey images
    are then repeated.

    Parameters
    ----------
    layers
        Blocks a stage.
    width
        Channels of the first stage; each stage doubles them.
    mean, standard_deviation
        Normalisation of grey levels in 0-1.
    channels
        Input channels.
    """

    def __init__(
        self, layers: Sequence[int], width: int, mean: float, standard_deviation: float, channels: int = 1
    ) -> None:
        super().__init__()
        self.mean, self.standard_deviation, self.channels = mean, standard_deviation, channels
        self.conv1 = nn.Conv2d(channels, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        stages, inputs = [], width
        for stage, blocks in enumerate(layers):
            outputs = width * 2**stage
            parts = []
            for block in range(blocks):
                parts.append(_BasicBlock(inputs, outputs, 2 if stage and not block else 1))
                inputs = outputs
            stages.append(nn.Sequential(*parts))
        self.stages = len(stages)
        for number, module in enumerate(stages, start=1):
            setattr(self, f"layer{number}", module)
        self.features = inputs
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def maps(self, images: Tensor) -> Tensor:
        """Map bytes or floats 0-255 ``[k, 1, size, size]`` to feature maps ``[k, features, h, w]``."""
        x = (images.to(self.conv1.weight.dtype) / 255.0 - self.mean) / self.standard_deviation
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x.expand(-1, self.channels, -1, -1)))))
        for number in range(1, self.stages + 1):
            x = getattr(self, f"layer{number}")(x)
        return x

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``[k, 1, size, size]`` to pooled features ``[k, features]``."""
        return self.maps(images).mean(dim=(2, 3))


class _SignalBlock(nn.Module):
    """Residual unit with two streams (Ribeiro et al. 2020, doi 10.1038/s41467-020-15432-4)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm1d(outputs)
        self.conv2 = nn.Conv1d(outputs, outputs, kernel, stride, kernel // 2, bias=False)
        pool: list[nn.Module] = [nn.MaxPool1d(stride, ceil_mode=True)] if stride > 1 else []
        mix: list[nn.Module] = [nn.Conv1d(inputs, outputs, 1, bias=False)] if inputs != outputs else []
        self.skip = nn.Sequential(*pool, *mix)
        self.bn2 = nn.BatchNorm1d(outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        z = self.conv2(self.dropout(torch.relu(self.bn1(self.conv1(x)))))
        z = z + self.skip(y)
        return self.dropout(torch.relu(self.bn2(z))), z


class SignalResNet(nn.Module):
    """One-dimensional ResNet over a twelve-lead window (MedM2T's signal encoder).

    The paper's stages are (64, 640), (128, 320), (196, 160), (256, 40), (320, 20) for 640 samples, kernel 5,
    dropout 0.3; ``channels`` and ``strides`` express them. Features are averaged over time by default and
    flattened, as in the paper, with ``flatten_length`` samples left.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        leads: int = 12,
        kernel: int = 5,
        dropout: float = 0.3,
        flatten_length: int | None = None,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv1d(leads, channels[0], kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm1d(channels[0]),
            nn.ReLU(),
        )
        sizes = [channels[0], *channels]
        self.blocks = nn.ModuleList(
            _SignalBlock(before, after, kernel, stride, dropout)
            for before, after, stride in zip(sizes, channels, strides, strict=False)
        )
        self.flatten = flatten_length is not None
        self.features = channels[-1] * (flatten_length or 1)

    def forward(self, signals: Tensor) -> Tensor:
        """Map ``[k, leads, length]`` to ``[k, features]``."""
        x = y = self.stem(signals)
        for block in self.blocks:
            x, y = block(x, y)
        return x.flatten(1) if self.flatten else x.mean(dim=2)
