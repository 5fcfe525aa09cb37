"""Nightingale's own model: MuFuse's tokens, MedM2T's ECG over time, MedFuse's sequence of modalities.

The EHR vector joins the masked mean of multiplicative tokens after a transformer (MuFuse) with summaries of
every feature, which is where tree ensembles get their strength. Recordings are fused at the micro and macro
level (MedM2T); images are averaged in the same way, weighted by how recent they are. The modalities that a
sample has are a sequence that an LSTM reads (MedFuse), and one head gives all outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from modelling.batches import COLUMNS, Batch, Encoding, Modality, owners
from modelling.models.base import RiskModel
from modelling.models.cardiac import RecordingFusion, RecordingHistory, visible_recordings
from modelling.models.encoders import ImageResNet, SignalResNet
from modelling.models.layers import MLP
from modelling.models.mufuse import MuFuseConfig, RiskHead, TokenEncoder
from modelling.models.summaries import SummaryEncoder
from modelling.models.tokens import visible_tokens


@dataclass(frozen=True, kw_only=True)
class NightingaleConfig:
    """Sizes.

    Attributes
    ----------
    width
        Of tokens and of every modality's vector.
    heads, layers, inner, hidden, value_width, window_hours
        Of the token encoder (see :class:`modelling.models.mufuse.MuFuseConfig`).
    summaries
        Whether the EHR vector also reads feature summaries; ``tokens`` whether it reads tokens.
    ecg, cxr
        Whether there are encoders for them.
    """

    width: int = 96
    heads: int = 4
    layers: int = 1
    inner: int = 192
    hidden: int = 16
    value_width: int = 48
    window_hours: float = 1.0
    tokens: bool = True
    summaries: bool = True
    ecg: bool = True
    cxr: bool = True
    fusion_hidden: int = 128
    micro_width: int = 64
    signal_channels: tuple[int, ...] = (32, 48, 64, 96, 128)
    signal_strides: tuple[int, ...] = (1, 2, 2, 4, 2)
    image_layers: tuple[int, ...] = (2, 2, 2, 2)
    image_width: int = 32
    dropout: float = 0.2
    attention_dropout: float = 0.05
    head_dropout: float = 0.3
    signal_dropout: float = 0.3
    outputs: int = 1


class Nightingale(RiskModel):
    """Token and summary encoder, ECG at two levels, images, an LSTM over present modalities, one head."""

    uses_all_items = True

    def __init__(self, encoding: Encoding, config: NightingaleConfig) -> None:
        super().__init__(encoding)
        self.width = config.width
        there = {Modality.EHR: True, Modality.ECG: config.ecg, Modality.CXR: config.cxr}
        self.modalities = tuple(modality for modality in Modality if there[modality])
        self.pretrained = self.modalities
        size = 0
        if config.tokens:
            self.tokens = TokenEncoder(
                encoding,
                MuFuseConfig(
                    width=config.width,
                    heads=config.heads,
                    layers=config.layers,
                    inner=config.inner,
                    hidden=config.hidden,
                    value_width=config.value_width,
                    window_hours=config.window_hours,
                    dropout=config.dropout,
                    attention_dropout=config.attention_dropout,
                    pooling="attention",
                ),
            )
            self.forecast = nn.Linear(config.width, encoding.n_tokens)
            size += config.width
        if config.summaries:
            self.summaries = SummaryEncoder(encoding, width=config.width, dropout=config.dropout)
            size += config.width
        self.join = MLP(size, (config.width,), config.dropout)
        if config.ecg:
            self.signal = SignalResNet(
                config.signal_channels, config.signal_strides, dropout=config.signal_dropout
            )
            self.micro = RecordingFusion(
                encoding,
                self.signal.features,
                width=config.micro_width,
                heads=4,
                dropout=config.dropout,
            )
            self.macro = RecordingHistory(
                encoding, self.micro.features, width=config.width, dropout=config.signal_dropout
            )
        if config.cxr:
            image = encoding.settings.image
            self.picture = ImageResNet(
                config.image_layers, config.image_width, image.mean, image.standard_deviation
            )
            self.image = MLP(self.picture.features, (config.width,), config.dropout)
            self.fading = nn.Parameter(torch.tensor(-3.0))  # log of the rate at which images age, per hour
        self.heads = nn.ModuleDict(
            {modality: nn.Linear(config.width, config.outputs) for modality in self.modalities}
        )
        self.nothing = nn.Parameter(torch.zeros(config.width))
        self.fusion = nn.LSTM(config.width, config.fusion_hidden, batch_first=True)
        self.head = RiskHead(config.fusion_hidden, 1, config.head_dropout, config.outputs)

    def embed_signals(self, signals: Tensor) -> Tensor:
        """Encode ECG windows."""
        if signals.ndim == 2 or Modality.ECG not in self.modalities:
            return signals
        return self.signal(signals) if len(signals) else signals.new_zeros(0, self.signal.features)

    def embed_images(self, images: Tensor) -> Tensor:
        """Encode images."""
        if images.ndim == 2 or Modality.CXR not in self.modalities:
            return images
        return self.picture(images) if len(images) else self.nothing.new_zeros(0, self.picture.features)

    def _records(self, batch: Batch) -> Tensor:
        seen = visible_tokens(batch)
        parts = []
        if hasattr(self, "tokens"):
            parts.append(self.tokens.pooled(seen))
        if hasattr(self, "summaries"):
            parts.append(self.summaries(seen))
        joined: Tensor = self.join(torch.cat(parts, dim=1))
        return joined

    def _cardiac(self, batch: Batch) -> Tensor:
        own = visible_recordings(batch)
        micro = self.micro(self.embed_signals(own.ecg), own.ecg_features, own.ecg_terms)
        vector: Tensor = self.macro(micro, own).vector
        return vector

    def _images(self, batch: Batch) -> Tensor:
        own = batch.keep_images(batch.has(Modality.CXR)[owners(batch.image_offsets)])
        vectors = self.image(self.embed_images(own.image))
        weight = torch.exp(-own.image_hours * self.fading.exp()).to(vectors.dtype).clamp(min=1e-6)
        owner = owners(own.image_offsets)
        total = vectors.new_zeros(len(own), self.width).index_add(0, owner, vectors * weight.unsqueeze(1))
        mass = vectors.new_zeros(len(own)).index_add(0, owner, weight)
        return total / mass.clamp(min=1e-6).unsqueeze(1)

    def encode(self, batch: Batch, modality: Modality) -> tuple[Tensor, Tensor]:
        """Return ``(rows, vectors [k, width])`` of the samples that have the modality."""
        rows = torch.nonzero(batch.has(modality)).flatten()
        if not len(rows):
            return rows, self.nothing.new_zeros(0, self.width)
        own = batch if len(rows) == len(batch) else batch.take(rows)
        encode = {"ehr": self._records, "ecg": self._cardiac, "cxr": self._images}[modality.value]
        return rows, encode(own)

    def encoder_logits(self, batch: Batch, part: str) -> tuple[Tensor, Tensor]:
        """Return outputs of one modality alone."""
        rows, vectors = self.encode(batch, Modality(part))
        return rows, self.heads[part](vectors)

    def encoder_parameters(self, part: str) -> list[nn.Parameter]:
        """Return encoder and head of one modality."""
        names = {
            Modality.EHR: ("tokens", "summaries", "join"),
            Modality.ECG: ("signal", "micro", "macro"),
            Modality.CXR: ("picture", "image"),
        }[Modality(part)]
        modules = [getattr(self, name) for name in names if hasattr(self, name)]
        found = [parameter for module in (*modules, self.heads[part]) for parameter in module.parameters()]
        return [*found, self.fading] if part == Modality.CXR else found

    def sequence(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the vectors of present modalities ``[n, steps, width]``, left-aligned, and their number."""
        columns = [COLUMNS[modality.value] for modality in self.modalities]
        present = batch.present[:, columns]
        position = present.long().cumsum(1) - 1
        sequence = self.nothing.new_zeros(len(batch), len(columns), self.width)
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

    def forecast_values(self, batch: Batch) -> Tensor:
        """Return the expected standardised value of every feature in the hours to come."""
        forecast: Tensor = self.forecast(self.tokens.pooled(batch))
        return forecast

    def forecast_parameters(self) -> list[nn.Parameter]:
        """Return what forecasting trains; nothing without tokens."""
        if not hasattr(self, "tokens"):
            return []
        return [*self.tokens.parameters(), *self.forecast.parameters()]
