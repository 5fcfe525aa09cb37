"""MedM2T's ECG encoder: signal, machine measurements and report terms, then recordings over time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modelling.batches import Batch, Encoding, Modality, owners
from modelling.models.bimodal import BimodalFusion, ModalityTokens
from modelling.models.encoders import SignalResNet
from modelling.models.layers import MLP


class RecordingFusion(nn.Module):
    """Micro level: what one recording says in its signal, its machine measurements and its report's terms.

    Measurements that are unknown count as their training mean with a mask beside them (sentinel values are
    gone before: see the encoding). A report without terms is the None token.
    """

    def __init__(
        self, encoding: Encoding, signal_features: int, *, width: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.measurements = len(encoding.measurements)
        self.terms = len(encoding.report_terms)
        sizes = {"signal": width}
        self.signal = MLP(signal_features, (width,), dropout)
        if self.measurements:
            sizes["measurements"] = width
            self.measure = MLP(2 * self.measurements, (width,), dropout)
        if self.terms:
            sizes["terms"] = width
            self.term = nn.Embedding(self.terms + 1, width)
        self.fusion = BimodalFusion(sizes, width=width, heads=heads, dropout=dropout)
        self.features = max(width, self.fusion.features // 2)
        self.decode = MLP(self.fusion.features, (self.features,), dropout)

    def forward(self, signal: Tensor, measurements: Tensor, terms: Tensor) -> Tensor:
        """Map ``[r, inputs]``, ``[r, k]`` (NaN: unknown) and ``[r, terms]`` (0 or 1) to ``[r, features]``."""
        r = len(signal)
        always = torch.ones(r, dtype=torch.bool, device=signal.device)

        def one(vector: Tensor, present: Tensor) -> ModalityTokens:
            return ModalityTokens(vector, vector.unsqueeze(1), present.unsqueeze(1), present)

        parts = {"signal": one(self.signal(signal), always)}
        if self.measurements:
            known = ~measurements.isnan()
            both = torch.cat([measurements.nan_to_num(0.0), known.to(signal.dtype)], dim=1)
            parts["measurements"] = one(self.measure(both), known.any(1))
        if self.terms:
            count = terms.sum(1, keepdim=True)
            mean = terms @ self.term.weight[1:] / count.clamp(min=1)
            parts["terms"] = one(torch.where(count > 0, mean, self.term.weight[0].to(mean.dtype)), always)
        decoded: Tensor = self.decode(self.fusion(parts))
        return decoded


class RecordingHistory(nn.Module):
    """Macro level: a patient's recordings, averaged in windows of their time before prediction.

    Window edges are quantiles of the training recordings' gaps; an empty window is zeros; a ResNet block runs
    over the windows, oldest first.
    """

    def __init__(self, encoding: Encoding, inputs: int, *, width: int, dropout: float) -> None:
        super().__init__()
        self.edges: Tensor
        self.register_buffer("edges", torch.tensor(encoding.recording_edges).float(), persistent=False)
        self.windows = len(encoding.recording_edges) + 1
        self.resnet = SignalResNet(
            (inputs // 2,), (1,), leads=inputs, kernel=3, dropout=dropout, flatten_length=self.windows
        )
        self.mlp = MLP(self.resnet.features, (width,), dropout)
        self.token = nn.Linear(inputs, width)

    def forward(self, recordings: Tensor, batch: Batch) -> ModalityTokens:
        """Map the recordings' vectors ``[r, inputs]`` to one vector and window tokens a sample."""
        n = len(batch)
        window = (
            self.windows
            - 1
            - torch.bucketize(batch.ecg_hours, self.edges.to(batch.ecg_hours.dtype), right=True)
        )
        cell = owners(batch.ecg_offsets) * self.windows + window
        total = recordings.new_zeros(n * self.windows, recordings.shape[1]).index_add(0, cell, recordings)
        count = recordings.new_zeros(n * self.windows).index_add(0, cell, recordings.new_ones(len(cell)))
        mean = (total / count.clamp(min=1).unsqueeze(1)).view(n, self.windows, -1)
        there = (count > 0).view(n, self.windows)
        vector = self.mlp(self.resnet(mean.transpose(1, 2)))
        return ModalityTokens(vector, self.token(mean), there, batch.has(Modality.ECG))


def visible_recordings(batch: Batch) -> Batch:
    """Return the batch without the recordings of samples whose ECG is left out."""
    keep = batch.has(Modality.ECG)[owners(batch.ecg_offsets)]
    return batch if bool(keep.all()) else batch.keep_recordings(keep)
