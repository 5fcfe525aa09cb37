"""MedFuse 2022: an LSTM over the sequence of the modalities that a sample has.

Hayat, Geras, Shamout, "MedFuse: Multi-modal fusion with clinical time-series data and chest X-ray images",
Machine Learning for Healthcare 2022. The ECG is a third step of the same sequence, as the paper's remark on
more modalities allows. Where its released code differs from its text, we follow the text: an absent image is
skipped, never encoded as a picture of zeros (which would shift BatchNorm's statistics).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from modelling.batches import Batch, Encoding, Modality
from modelling.models.base import RiskModel, latest
from modelling.models.encoders import ImageResNet, SignalResNet, StackedLSTM
from modelling.models.grid import Grid


@dataclass(frozen=True, kw_only=True)
class MedFuseConfig:
    """Sizes; the defaults are the paper's.

    Attributes
    ----------
    hidden, layers
        Of the EHR LSTM; ``hidden`` is also the size of a modality's vector.
    fusion_hidden
        Of the fusion LSTM.
    dropout
        On the EHR vector.
    image_layers, image_width
        (3, 4, 6, 3) at 64 is ResNet-34.
    signal_channels, signal_strides, signal_dropout
        Stages of the ECG encoder.
    outputs
        1, and one for each further target.
    """

    hidden: int = 256
    layers: int = 2
    fusion_hidden: int = 512
    dropout: float = 0.3
    image_layers: tuple[int, ...] = (3, 4, 6, 3)
    image_width: int = 64
    signal_channels: tuple[int, ...] = (64, 128, 196, 256, 320)
    signal_strides: tuple[int, ...] = (1, 2, 2, 4, 2)
    signal_dropout: float = 0.3
    outputs: int = 1


class MedFuse(RiskModel):
    """Encoders, projections to one size, and a fusion LSTM over present modalities in a fixed order.

    A sample without any modality is read as one learnt vector.
    """

    pretrained = tuple(Modality)

    def __init__(self, encoding: Encoding, config: MedFuseConfig) -> None:
        super().__init__(encoding)
        image = encoding.settings.image
        self.grid = Grid(encoding)
        self.ehr = StackedLSTM(self.grid.channels, config.hidden, config.layers, config.dropout)
        self.signal = SignalResNet(
            config.signal_channels, config.signal_strides, dropout=config.signal_dropout
        )
        self.picture = ImageResNet(
            config.image_layers, config.image_width, image.mean, image.standard_deviation
        )
        self.project = nn.ModuleDict(
            {
                Modality.ECG: nn.Linear(self.signal.features, config.hidden),
                Modality.CXR: nn.Linear(self.picture.features, config.hidden),
            }
        )
        self.heads = nn.ModuleDict(
            {modality: nn.Linear(config.hidden, config.outputs) for modality in Modality}
        )
        self.nothing = nn.Parameter(torch.zeros(config.hidden))
        self.fusion = nn.LSTM(config.hidden, config.fusion_hidden, batch_first=True)
        self.head = nn.Linear(config.fusion_hidden, config.outputs)

    def embed_signals(self, signals: Tensor) -> Tensor:
        """Encode ECG windows."""
        if signals.ndim == 2:
            return signals
        return self.signal(signals) if len(signals) else signals.new_zeros(0, self.signal.features)

    def embed_images(self, images: Tensor) -> Tensor:
        """Encode images."""
        if images.ndim == 2:
            return images
        weight = self.head.weight
        return self.picture(images) if len(images) else weight.new_zeros(0, self.picture.features)

    def encode(self, batch: Batch, modality: Modality) -> tuple[Tensor, Tensor]:
        """Return ``(rows, vectors [k, hidden])`` of the samples that have the modality.

        Only the latest ECG and the latest image of a sample are encoded (MedFuse 2022, section 4.1).
        """
        rows = torch.nonzero(batch.has(modality)).flatten()
        if not len(rows):
            return rows, self.nothing.new_zeros(0, self.nothing.numel())
        if modality is Modality.EHR:
            part = batch if len(rows) == len(batch) else batch.take(rows)
            grid, lengths = self.grid(part)
            return rows, self.ehr(grid, lengths)
        if modality is Modality.ECG:
            vectors = self.embed_signals(batch.ecg[latest(batch.ecg_offsets, rows)])
        else:
            vectors = self.embed_images(batch.image[latest(batch.image_offsets, rows)])
        return rows, self.project[modality](vectors)

    def encoder_logits(self, batch: Batch, part: str) -> tuple[Tensor, Tensor]:
        """Return outputs of one modality alone."""
        modality = Modality(part)
        rows, vectors = self.encode(batch, modality)
        return rows, self.heads[modality](vectors)

    def encoder_parameters(self, part: str) -> list[nn.Parameter]:
        """Return encoder, projection and head of one modality."""
        modality = Modality(part)
        encoder: nn.Module = {Modality.EHR: self.ehr, Modality.ECG: self.signal, Modality.CXR: self.picture}[
            modality
        ]
        parts = [encoder, self.heads[modality]]
        if modality in self.project:
            parts.append(self.project[modality])
        return [parameter for part in parts for parameter in part.parameters()]

    def sequence(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the modality sequence ``[n, steps, hidden]``, left-aligned, and lengths ``[n]`` (>= 1)."""
        n = len(batch)
        position = batch.present.long().cumsum(1) - 1
        lengths = batch.present.sum(1).clamp(min=1)
        sequence = self.nothing.new_zeros(n, len(Modality), self.nothing.numel())
        empty = ~batch.present.any(1)
        sequence[empty, 0] = self.nothing
        for column, modality in enumerate(Modality):
            rows, vectors = self.encode(batch, modality)
            sequence = sequence.index_put((rows, position[rows, column]), vectors.to(sequence.dtype))
        return sequence, lengths

    def forward(self, batch: Batch) -> Tensor:
        """Return logits ``[n, outputs]``."""
        sequence, lengths = self.sequence(batch)
        packed = pack_padded_sequence(sequence, lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, (hidden, _) = self.fusion(packed)
        return self.head(hidden[-1])
