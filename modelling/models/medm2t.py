"""MedM2T 2025: sparse series, numeric vitals, ECG at two levels, and bi-modal attention.

"MedM2T: a MultiModal framework for Time-aware modelling" (arXiv 2510.27321, v2). Decisions on the defects
of its released code: both directions of bi-modal attention are added (there, the first twice); attention
runs over the time steps of one patient (there, over the patients of a batch); bins and windows come from
training samples only; encoders are trained inside the fold that fuses them. Chest X-rays are one more
modality, which can be switched off.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modelling.batches import Batch, Encoding, Modality, owners
from modelling.models.base import RiskModel
from modelling.models.bimodal import BimodalFusion, ModalityTokens
from modelling.models.cardiac import RecordingFusion, RecordingHistory, visible_recordings
from modelling.models.encoders import ImageResNet, SignalResNet
from modelling.models.layers import MLP
from modelling.models.sparse import SparseSeriesEncoder
from modelling.models.tokens import pad, visible_tokens
from modelling.models.vitals import VitalsEncoder

PARTS = ("static", "labs", "vitals", "ecg", "cxr")
_MODALITY = {
    "static": None,
    "labs": Modality.EHR,
    "vitals": Modality.EHR,
    "ecg": Modality.ECG,
    "cxr": Modality.CXR,
}


@dataclass(frozen=True, kw_only=True)
class MedM2TConfig:
    """Sizes; the defaults are the paper's for the ICU tasks.

    Attributes
    ----------
    parts
        Which encoders there are, in the order of the fusion.
    width, heads
        Of the fusion (512 and 64).
    static_width, series_width, vitals_width, ecg_width, micro_width
        Of the encoders' vectors.
    signal_channels, signal_strides
        Stages of the signal ResNet.
    image_layers, image_width
        Of the image ResNet.
    """

    parts: tuple[str, ...] = PARTS
    width: int = 512
    heads: int = 64
    static_width: int = 128
    series_width: int = 512
    vitals_width: int = 256
    ecg_width: int = 256
    micro_width: int = 256
    micro_heads: int = 64
    signal_channels: tuple[int, ...] = (64, 128, 196, 256, 320)
    signal_strides: tuple[int, ...] = (1, 2, 2, 4, 2)
    image_layers: tuple[int, ...] = (3, 4, 6, 3)
    image_width: int = 64
    dropout: float = 0.1
    signal_dropout: float = 0.3
    outputs: int = 1


class MedM2T(RiskModel):
    """Encoders of :data:`PARTS`, shared encoder, bi-modal attention of every pair, decoder."""

    uses_all_items = True

    def __init__(self, encoding: Encoding, config: MedM2TConfig) -> None:
        super().__init__(encoding)
        vital = [
            index
            for index, feature in enumerate(encoding.features, start=1)
            if feature.direction == "vital" and not feature.categorical
        ]
        rest = [index for index in range(1, encoding.n_tokens) if index not in set(vital)]
        there = {"static": True, "labs": bool(rest), "vitals": bool(vital), "ecg": True, "cxr": True}
        self.parts = tuple(part for part in PARTS if part in config.parts and there[part])
        self.modalities = tuple(
            modality for modality in Modality if any(_MODALITY[part] is modality for part in self.parts)
        )
        self.pretrained = self.parts
        self.vital: Tensor
        self.register_buffer(
            "vital",
            torch.tensor([index in set(vital) for index in range(encoding.n_tokens)]),
            persistent=False,
        )
        sizes: dict[str, int] = {}
        if "static" in self.parts:
            self.static = MLP(4, (config.static_width, config.static_width), config.dropout)
            sizes["static"] = config.static_width
        if "labs" in self.parts:
            self.labs = SparseSeriesEncoder(encoding, rest, width=config.series_width, dropout=config.dropout)
            sizes["labs"] = config.series_width
        if "vitals" in self.parts:
            self.vitals = VitalsEncoder(encoding, vital, width=config.vitals_width, dropout=config.dropout)
            sizes["vitals"] = config.vitals_width
        if "ecg" in self.parts:
            length = encoding.settings.signal.length
            for stride in config.signal_strides:
                length = -(-length // stride)
            self.signal = SignalResNet(
                config.signal_channels,
                config.signal_strides,
                dropout=config.signal_dropout,
                flatten_length=length,
            )
            self.micro = RecordingFusion(
                encoding,
                self.signal.features,
                width=config.micro_width,
                heads=config.micro_heads,
                dropout=config.dropout,
            )
            self.macro = RecordingHistory(
                encoding, self.micro.features, width=config.ecg_width, dropout=config.signal_dropout
            )
            sizes["ecg"] = config.ecg_width
        if "cxr" in self.parts:
            image = encoding.settings.image
            self.picture = ImageResNet(
                config.image_layers, config.image_width, image.mean, image.standard_deviation
            )
            sizes["cxr"] = self.picture.features
        self.heads = nn.ModuleDict({part: nn.Linear(size, config.outputs) for part, size in sizes.items()})
        self.fusion = BimodalFusion(sizes, width=config.width, heads=config.heads, dropout=config.dropout)
        half = self.fusion.features // 2
        self.decode = MLP(self.fusion.features, (half,), config.dropout)
        self.out = nn.Linear(half, config.outputs)

    def part_modality(self, part: str) -> Modality | None:
        """Return the modality that a part reads; None for what every sample has."""
        return _MODALITY[part]

    def embed_signals(self, signals: Tensor) -> Tensor:
        """Encode ECG windows."""
        if signals.ndim == 2 or "ecg" not in self.parts:
            return signals
        return self.signal(signals) if len(signals) else signals.new_zeros(0, self.signal.features)

    def embed_images(self, images: Tensor) -> Tensor:
        """Encode images."""
        if images.ndim == 2 or "cxr" not in self.parts:
            return images
        weight = self.out.weight
        return self.picture(images) if len(images) else weight.new_zeros(0, self.picture.features)

    def _series(self, batch: Batch, part: str) -> ModalityTokens:
        """Encode the EHR tokens of one branch; a sample without any of them lacks the branch."""
        seen = visible_tokens(batch)
        of_part = self.vital[seen.feature] if part == "vitals" else ~self.vital[seen.feature]
        own = seen.keep_tokens(of_part)
        present = own.token_offsets.diff() > 0
        vector, tokens = self.vitals(own) if part == "vitals" else self.labs(own)
        return ModalityTokens(vector, tokens, torch.ones_like(tokens[..., 0], dtype=torch.bool), present)

    def _recordings(self, batch: Batch) -> ModalityTokens:
        own = visible_recordings(batch)
        micro = self.micro(self.embed_signals(own.ecg), own.ecg_features, own.ecg_terms)
        return self.macro(micro, own)

    def _images(self, batch: Batch) -> ModalityTokens:
        present = batch.has(Modality.CXR)
        own = batch.keep_images(present[owners(batch.image_offsets)])
        tokens = pad(self.embed_images(own.image), own.image_offsets)
        if not tokens.vectors.shape[1]:
            empty = tokens.vectors.new_zeros(len(batch), self.picture.features)
            return ModalityTokens(empty, tokens.vectors, tokens.there, present)
        weight = tokens.there / tokens.there.sum(1, keepdim=True).clamp(min=1)
        vector = (tokens.vectors * weight.unsqueeze(-1).to(tokens.vectors.dtype)).sum(1)
        return ModalityTokens(vector, tokens.vectors, tokens.there, present)

    def encode(self, batch: Batch, part: str) -> ModalityTokens:
        """Encode one part for all samples of a batch."""
        if part == "static":
            vector = self.static(batch.static)
            always = torch.ones(len(batch), dtype=torch.bool, device=batch.device)
            return ModalityTokens(vector, vector.unsqueeze(1), always.unsqueeze(1), always)
        if part == "ecg":
            return self._recordings(batch)
        return self._images(batch) if part == "cxr" else self._series(batch, part)

    def encoder_logits(self, batch: Batch, part: str) -> tuple[Tensor, Tensor]:
        """Return outputs of one part alone, for the samples that have it."""
        encoded = self.encode(batch, part)
        rows = torch.nonzero(encoded.present).flatten()
        return rows, self.heads[part](encoded.vector[rows])

    def encoder_parameters(self, part: str) -> list[nn.Parameter]:
        """Return encoder and head of one part."""
        modules: dict[str, list[str]] = {"ecg": ["signal", "micro", "macro"], "cxr": ["picture"]}
        parts = [getattr(self, name) for name in modules.get(part, [part])]
        return [parameter for module in (*parts, self.heads[part]) for parameter in module.parameters()]

    def forward(self, batch: Batch) -> Tensor:
        """Return logits ``[n, outputs]``."""
        encoded = {part: self.encode(batch, part) for part in self.parts}
        logits: Tensor = self.out(self.decode(self.fusion(encoded)))
        return logits
