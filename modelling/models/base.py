"""What every model offers: logits of a batch, and encoders that can be trained alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from torch import Tensor, nn

from modelling.batches import Batch, Encoding, Modality


class RiskModel(nn.Module, ABC):
    """A model that maps a batch to logits.

    In evaluation mode a sample's logits depend on that sample alone: not on its batch mates, their order,
    or how far anything is padded. A modality whose entry in ``batch.present`` is false is never looked at.

    Parameters
    ----------
    encoding
        The encoding of the batches that this model reads.
    """

    #: Modalities that the model can use; the others are ignored and never named as present.
    modalities: tuple[Modality, ...] = tuple(Modality)
    #: Parts (mostly modalities) whose encoders are trained alone before the fusion.
    pretrained: tuple[str, ...] = ()

    #: Padded tokens that scoring puts into one batch; a model whose cost lies in calls, not tokens, takes more.
    token_budget: int = 32_768

    #: Whether all recordings and images of a sample are read, or the latest of each kind.
    uses_all_items: bool = False

    def __init__(self, encoding: Encoding) -> None:
        super().__init__()
        self.encoding = encoding

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Return logits ``[n, outputs]``; output 0 is the task's boolean label."""

    def encoder_logits(self, batch: Batch, part: str) -> tuple[Tensor, Tensor]:
        """Return ``(rows, logits)`` of one encoder with its own head, for samples that have its input.

        Returns
        -------
        rows, logits
            int64 ``[k]`` positions in the batch, and ``[k, outputs]``.
        """
        raise NotImplementedError(f"{type(self).__name__} has no {part} encoder to train alone")

    def encoder_parameters(self, part: str) -> list[nn.Parameter]:
        """Return the parameters that :meth:`encoder_logits` trains."""
        raise NotImplementedError(f"{type(self).__name__} has no {part} encoder to train alone")

    def part_modality(self, part: str) -> Modality | None:
        """Return the modality that a part reads; None for what every sample has."""
        return Modality(part)

    def picture_logits(self, images: Tensor) -> Tensor:
        """Map images ``[k, 1, size, size]`` to logits of radiologists' labels, ``[k, labels]``."""
        raise NotImplementedError(f"{type(self).__name__} has no image encoder to train on labels")

    def picture_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that :meth:`picture_logits` trains."""
        raise NotImplementedError(f"{type(self).__name__} has no image encoder to train on labels")

    def fusion_parameters(self) -> list[nn.Parameter]:
        """Return what is trained after the encoders: everything, unless a model keeps some of it frozen."""
        return list(self.parameters())

    def forecast_values(self, batch: Batch) -> Tensor:
        """Return the expected standardised value of every feature in the next hours, ``[n, n_tokens]``."""
        raise NotImplementedError(f"{type(self).__name__} cannot forecast")

    def forecast_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that forecasting trains; none for a model that cannot forecast."""
        return []

    def embed_signals(self, signals: Tensor) -> Tensor:
        """Map ECG windows ``[k, 12, length]`` to embeddings ``[k, d]``; embeddings pass unchanged."""
        return signals

    def embed_images(self, images: Tensor) -> Tensor:
        """Map images ``[k, 1, size, size]`` to embeddings ``[k, d]``; embeddings pass unchanged."""
        return images

    def embedded(self, batch: Batch) -> Batch:
        """Return the batch with waveforms and pixels replaced by embeddings, to encode them only once."""
        return replace(batch, ecg=self.embed_signals(batch.ecg), image=self.embed_images(batch.image))


def latest(offsets: Tensor, rows: Tensor) -> Tensor:
    """Return the position of the last item (the most recent) of each of these samples."""
    return offsets[1:][rows] - 1


def freeze_batch_norm(module: nn.Module) -> None:
    """Let BatchNorm layers use their running statistics and leave them alone, in training mode too."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()


def scatter_rows(values: Tensor, rows: Tensor, n: int) -> Tensor:
    """Return ``[n, d]`` with ``values`` (``[k, d]``) at ``rows`` and zeros elsewhere."""
    return torch.zeros(n, values.shape[1], dtype=values.dtype, device=values.device).index_copy(
        0, rows, values
    )
