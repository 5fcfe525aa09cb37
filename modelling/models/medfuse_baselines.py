"""The fusions that MedFuse 2022 compares itself with, over the same encoders.

Early and joint fusion concatenate (Hayat et al. 2022, section 4.3), the unified classifier is shared by all
modalities (Hayat et al. 2021), MMTM gates each modality's channels by all of them (Joze et al. 2020, doi
10.1109/CVPR42600.2020.01330), and DAFT scales and shifts the EHR's channels by the others (Poelsterl et al.
2021, doi 10.1007/978-3-030-87240-3_66). An absent modality is never encoded: early and joint fusion put
zeros or a learnt vector in its place, the others leave it out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from modelling.batches import Batch, Encoding, Modality
from modelling.errors import TrainingError
from modelling.models.base import RiskModel, scatter_rows
from modelling.models.encoders import StackedLSTM
from modelling.models.medfuse import MedFuse, MedFuseConfig, MedFuseEncoders


class Concatenated(MedFuseEncoders):
    """Early or joint fusion: the modalities' vectors side by side, then one linear layer.

    Early fusion leaves the pre-trained encoders as they are; joint fusion trains all of it.
    """

    def __init__(self, encoding: Encoding, config: MedFuseConfig) -> None:
        super().__init__(encoding, config)
        if config.missing not in ("zeros", "learnt"):
            raise TrainingError(f"a missing modality is zeros or learnt, not {config.missing!r}")
        self.frozen = config.fusion == "early"
        self.absent = nn.ParameterDict(
            {
                modality: nn.Parameter(torch.zeros(config.hidden), requires_grad=config.missing == "learnt")
                for modality in self.modalities
            }
        )
        self.head = nn.Linear(config.hidden * len(self.modalities), config.outputs)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits ``[n, outputs]``."""
        present = self.present(batch)
        parts = []
        for column, modality in enumerate(self.modalities):
            rows, vectors = self.encode(batch, modality)
            filled = scatter_rows(vectors, rows, len(batch))
            parts.append(
                torch.where(present[:, column, None], filled, self.absent[modality.value].to(filled.dtype))
            )
        logits: Tensor = self.head(torch.cat(parts, dim=1))
        return logits

    def fusion_parameters(self) -> list[nn.Parameter]:
        """Return what the fusion stage trains."""
        if not self.frozen:
            return super().fusion_parameters()
        return [*self.head.parameters(), *(p for p in self.absent.parameters() if p.requires_grad)]


class Unified(MedFuseEncoders):
    """One classifier for every modality and for their mean, so that any of them alone is enough.

    Training with ``modality_dropout`` shows it single modalities of samples that have several.
    """

    def __init__(self, encoding: Encoding, config: MedFuseConfig) -> None:
        super().__init__(encoding, config)
        self.head = nn.Linear(config.hidden, config.outputs)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits ``[n, outputs]``."""
        n = len(batch)
        count = self.present(batch).sum(1, keepdim=True)
        total = sum(
            (scatter_rows(vectors, rows, n) for rows, vectors in self._encoded(batch)),
            self.nothing.new_zeros(n, self.hidden),
        )
        mean = torch.where(count > 0, total / count.clamp(min=1), self.nothing.to(total.dtype))
        logits: Tensor = self.head(mean)
        return logits

    def _encoded(self, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        return [self.encode(batch, modality) for modality in self.modalities]


class Transferred(MedFuseEncoders):
    """MMTM after the last stage of the encoders, and the mean of the present modalities' heads.

    The module gates channels of feature maps. What follows here is the mean over positions, which is linear,
    so the gates are applied to the pooled features: the result is the same.
    """

    ratio = 4

    def __init__(self, encoding: Encoding, config: MedFuseConfig) -> None:
        super().__init__(encoding, config)
        width = sum(self.sizes.values())
        self.squeeze = nn.Linear(width, 2 * width // self.ratio)
        self.excite = nn.ModuleDict(
            {modality: nn.Linear(2 * width // self.ratio, size) for modality, size in self.sizes.items()}
        )

    def forward(self, batch: Batch) -> Tensor:
        """Return logits ``[n, outputs]``."""
        n = len(batch)
        found = {modality: self.features(batch, modality) for modality in self.modalities}
        joint = torch.cat([scatter_rows(features, rows, n) for rows, features in found.values()], dim=1)
        code = torch.relu(self.squeeze(joint))
        several = (self.present(batch).sum(1) > 1).unsqueeze(1)
        empty = self.heads[self.modalities[0]](self.nothing)
        total = torch.zeros(n, empty.numel(), dtype=joint.dtype, device=joint.device)
        for modality, (rows, features) in found.items():
            # A modality that stands alone has nothing to be gated by.
            gate = torch.where(several, torch.sigmoid(self.excite[modality.value](code)), 1.0)
            vectors = self.projected(features * gate[rows].to(features.dtype), modality)
            total = total + scatter_rows(self.heads[modality.value](vectors), rows, n)
        count = self.present(batch).sum(1, keepdim=True)
        return torch.where(count > 0, total / count.clamp(min=1), empty.to(total.dtype))


class ConditionedLSTM(nn.Module):
    """Stacked LSTM whose first layer's output can be scaled and shifted, channel by channel."""

    def __init__(self, inputs: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.LSTM(inputs, hidden, batch_first=True)
        self.rest = StackedLSTM(hidden, hidden, max(1, layers - 1), dropout)

    def begin(self, grid: Tensor, lengths: Tensor) -> Tensor:
        """Map ``[n, steps, inputs]`` to the first layer's output ``[n, steps, hidden]``, zero after the end."""
        packed = pack_padded_sequence(grid, lengths.cpu(), batch_first=True, enforce_sorted=False)
        steps, _ = pad_packed_sequence(self.first(packed)[0], batch_first=True, total_length=grid.shape[1])
        return steps

    def forward(self, grid: Tensor, lengths: Tensor) -> Tensor:
        """Map a grid to ``[n, hidden]`` without any scaling."""
        encoded: Tensor = self.rest(self.begin(grid, lengths), lengths)
        return encoded


class AffinelyTransformed(MedFuseEncoders):
    """DAFT: ECG and image scale and shift the output of the EHR's first LSTM layer.

    The bottleneck has a seventh of its inputs, as in the paper. Without ECG and image the EHR passes
    unchanged; a sample without EHR is judged by the mean of its other modalities' own heads.
    """

    ehr: ConditionedLSTM

    def __init__(self, encoding: Encoding, config: MedFuseConfig) -> None:
        super().__init__(encoding, config)
        if Modality.EHR not in self.modalities or len(self.modalities) == 1:
            raise TrainingError("daft needs the EHR and at least one further modality")
        self.others = tuple(modality for modality in self.modalities if modality is not Modality.EHR)
        width = config.hidden + sum(self.sizes[modality] for modality in self.others)
        self.bottleneck = nn.Linear(width, max(1, width // 7), bias=False)
        self.affine = nn.Linear(max(1, width // 7), 2 * config.hidden, bias=False)
        self.head = nn.Linear(config.hidden, config.outputs)

    def series_encoder(self, channels: int, config: MedFuseConfig) -> nn.Module:
        """Return an LSTM that can be conditioned."""
        return ConditionedLSTM(channels, config.hidden, config.layers, config.dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits ``[n, outputs]``."""
        n = len(batch)
        found = {modality: self.features(batch, modality) for modality in self.others}
        has_other = torch.stack([batch.has(modality) for modality in self.others], dim=1)
        total = torch.zeros(n, self.head.out_features, dtype=self.head.weight.dtype, device=batch.device)
        for modality, (rows, features) in found.items():
            alone = self.heads[modality.value](self.projected(features, modality))
            total = total + scatter_rows(alone.to(total.dtype), rows, n)
        count = has_other.sum(1, keepdim=True)
        empty = self.head(self.nothing)
        logits = torch.where(count > 0, total / count.clamp(min=1), empty)
        rows = torch.nonzero(batch.has(Modality.EHR)).flatten()
        if len(rows):
            context = torch.cat([scatter_rows(f, r, n) for r, f in found.values()], dim=1)[rows]
            read = self._conditioned(batch.take(rows), context, has_other[rows].any(1))
            logits = logits.index_copy(0, rows, self.head(read).to(logits.dtype))
        return logits

    def _conditioned(self, batch: Batch, context: Tensor, there: Tensor) -> Tensor:
        grid, lengths = self.grid(batch)
        steps = self.ehr.begin(grid, lengths)
        squeezed = steps.sum(1) / lengths.unsqueeze(1)
        code = torch.relu(self.bottleneck(torch.cat([squeezed, context.to(squeezed.dtype)], dim=1)))
        scale, shift = (self.affine(code) * there.unsqueeze(1)).chunk(2, dim=1)
        return self.ehr.rest(steps * (1.0 + scale.unsqueeze(1)) + shift.unsqueeze(1), lengths)


FUSIONS: dict[str, type[MedFuseEncoders]] = {
    "lstm": MedFuse,
    "early": Concatenated,
    "joint": Concatenated,
    "unified": Unified,
    "mmtm": Transferred,
    "daft": AffinelyTransformed,
}


def build_medfuse(encoding: Encoding, config: MedFuseConfig) -> RiskModel:
    """Build MedFuse or one of its baselines.

    Raises
    ------
    TrainingError
        If there is no such fusion.
    """
    if config.fusion not in FUSIONS:
        raise TrainingError(f"no fusion {config.fusion!r}; there are {', '.join(sorted(FUSIONS))}")
    return FUSIONS[config.fusion](encoding, config)
