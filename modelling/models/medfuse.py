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
from modelling.errors import TrainingError
from modelling.models.base import RiskModel, latest
from modelling.models.encoders import ImageResNet, SignalResNet, StackedLSTM
from modelling.models.grid import Grid


@dataclass(frozen=True, kw_only=True)
class MedFuseConfig:
    """Sizes; the defaults are the paper's.

    Attributes
    ----------
    fusion
        ``lstm`` is MedFuse; its baselines are ``early``, ``joint``, ``unified``, ``mmtm`` and ``daft``
        (:mod:`modelling.models.medfuse_baselines`).
    modalities
        Which encoders there are; ``("ehr",)`` is the paper's LSTM on the EHR alone.
    missing
        What early and joint fusion read in place of an absent modality: ``zeros`` or a ``learnt`` vector.
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
    image_labels
        Labels on which the image encoder is trained before the task; 0 trains it on the task itself.
    outputs
        1, and one for each further target.
    """

    fusion: str = "lstm"
    modalities: tuple[str, ...] = ("ehr", "ecg", "cxr")
    missing: str = "learnt"
    hidden: int = 256
    layers: int = 2
    fusion_hidden: int = 512
    dropout: float = 0.3
    image_layers: tuple[int, ...] = (3, 4, 6, 3)
    image_width: int = 64
    signal_channels: tuple[int, ...] = (64, 128, 196, 256, 320)
    signal_strides: tuple[int, ...] = (1, 2, 2, 4, 2)
    signal_dropout: float = 0.3
    image_labels: int = 0
    outputs: int = 1


class MedFuseEncoders(RiskModel):
    """The encoders of MedFuse 2022, their projections to one size, and a head each: all but the fusion."""

    def __init__(self, encoding: Encoding, config: MedFuseConfig) -> None:
        super().__init__(encoding)
        unknown = set(config.modalities) - set(Modality)
        if unknown or not config.modalities:
            raise TrainingError(
                f"MedFuse reads ehr, ecg and cxr, not {', '.join(sorted(unknown)) or 'nothing'}"
            )
        self.modalities = tuple(modality for modality in Modality if modality in config.modalities)
        self.pretrained = self.modalities
        self.hidden = config.hidden
        self.project = nn.ModuleDict()
        self.sizes: dict[str, int] = {}
        if Modality.EHR in self.modalities:
            self.grid = Grid(encoding)
            self.ehr = self.series_encoder(self.grid.channels, config)
            self.sizes[Modality.EHR] = config.hidden
        if Modality.ECG in self.modalities:
            self.signal = SignalResNet(
                config.signal_channels, config.signal_strides, dropout=config.signal_dropout
            )
            self.sizes[Modality.ECG] = self.signal.features
        if Modality.CXR in self.modalities:
            image = encoding.settings.image
            self.picture = ImageResNet(
                config.image_layers, config.image_width, image.mean, image.standard_deviation
            )
            self.sizes[Modality.CXR] = self.picture.features
            if config.image_labels:
                self.picture_head = nn.Linear(self.picture.features, config.image_labels)
                self.pretrained = tuple(part for part in self.modalities if part is not Modality.CXR)
        for modality in self.modalities:
            if modality is not Modality.EHR:
                self.project[modality] = nn.Linear(self.sizes[modality], config.hidden)
        self.heads = nn.ModuleDict(
            {modality: nn.Linear(config.hidden, config.outputs) for modality in self.modalities}
        )
        self.nothing = nn.Parameter(torch.zeros(config.hidden))

    def series_encoder(self, channels: int, config: MedFuseConfig) -> nn.Module:
        """Return the encoder of the grid."""
        return StackedLSTM(channels, config.hidden, config.layers, config.dropout)

    def embed_signals(self, signals: Tensor) -> Tensor:
        """Encode ECG windows."""
        if signals.ndim == 2 or Modality.ECG not in self.modalities:
            return signals
        return self.signal(signals) if len(signals) else self.nothing.new_zeros(0, self.signal.features)

    def embed_images(self, images: Tensor) -> Tensor:
        """Encode images."""
        if images.ndim == 2 or Modality.CXR not in self.modalities:
            return images
        return self.picture(images) if len(images) else self.nothing.new_zeros(0, self.picture.features)

    def picture_logits(self, images: Tensor) -> Tensor:
        """Map images to logits of radiologists' labels, ``[k, labels]``."""
        logits: Tensor = self.picture_head(self.picture(images))
        return logits

    def picture_parameters(self) -> list[nn.Parameter]:
        """Return the image encoder's parameters and those of its head of labels."""
        return [*self.picture.parameters(), *self.picture_head.parameters()]

    def present(self, batch: Batch) -> Tensor:
        """Return bool ``[n, modalities]``: what each sample has of what this model reads."""
        return torch.stack([batch.has(modality) for modality in self.modalities], dim=1)

    def features(self, batch: Batch, modality: Modality) -> tuple[Tensor, Tensor]:
        """Return ``(rows, features [k, sizes[modality]])`` of the samples that have the modality.

        Only the latest ECG and the latest image of a sample are encoded (MedFuse 2022, section 4.1).
        """
        rows = torch.nonzero(batch.has(modality)).flatten()
        if not len(rows):
            return rows, self.nothing.new_zeros(0, self.sizes[modality.value])
        if modality is Modality.EHR:
            part = batch if len(rows) == len(batch) else batch.take(rows)
            grid, lengths = self.grid(part)
            return rows, self.ehr(grid, lengths)
        if modality is Modality.ECG:
            return rows, self.embed_signals(batch.ecg[latest(batch.ecg_offsets, rows)])
        return rows, self.embed_images(batch.image[latest(batch.image_offsets, rows)])

    def projected(self, features: Tensor, modality: Modality) -> Tensor:
        """Map features ``[k, sizes[modality]]`` to the common size, ``[k, hidden]``."""
        name = modality.value
        return self.project[name](features) if name in self.project else features

    def encode(self, batch: Batch, modality: Modality) -> tuple[Tensor, Tensor]:
        """Return ``(rows, vectors [k, hidden])`` of the samples that have the modality."""
        rows, features = self.features(batch, modality)
        return rows, self.projected(features, modality)

    def encoder_logits(self, batch: Batch, part: str) -> tuple[Tensor, Tensor]:
        """Return outputs of one modality alone."""
        modality = Modality(part)
        rows, vectors = self.encode(batch, modality)
        return rows, self.heads[modality.value](vectors)

    def encoder_parameters(self, part: str) -> list[nn.Parameter]:
        """Return encoder, projection and head of one modality."""
        modality = Modality(part)
        name = {Modality.EHR: "ehr", Modality.ECG: "signal", Modality.CXR: "picture"}[modality]
        parts = [getattr(self, name), self.heads[modality]]
        if modality in self.project:
            parts.append(self.project[modality])
        return [parameter for part in parts for parameter in part.parameters()]


class MedFuse(MedFuseEncoders):
    """Encoders, projections to one size, and a fusion LSTM over present modalities in a fixed order.

    A sample without any modality is read as one learnt vector.
    """

    def __init__(self, encoding: Encoding, config: MedFuseConfig) -> None:
        super().__init__(encoding, config)
        self.fusion = nn.LSTM(config.hidden, config.fusion_hidden, batch_first=True)
        self.head = nn.Linear(config.fusion_hidden, config.outputs)

    def sequence(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the modality sequence ``[n, steps, hidden]``, left-aligned, and lengths ``[n]`` (>= 1)."""
        present = self.present(batch)
        position = present.long().cumsum(1) - 1
        sequence = self.nothing.new_zeros(len(batch), len(self.modalities), self.hidden)
        sequence[~present.any(1), 0] = self.nothing
        for column, modality in enumerate(self.modalities):
            rows, vectors = self.encode(batch, modality)
            sequence = sequence.index_put((rows, position[rows, column]), vectors.to(sequence.dtype))
        return sequence, present.sum(1).clamp(min=1)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits ``[n, outputs]``."""
        sequence, lengths = self.sequence(batch)
        packed = pack_padded_sequence(sequence, lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, (hidden, _) = self.fusion(packed)
        return self.head(hidden[-1])
