"""Encoders trained alone on many labels: the training loop that the ECG and X-ray benchmarks share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

Augment = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True, kw_only=True)
class EncoderTraining:
    """How an encoder and its linear head are trained.

    Attributes
    ----------
    epochs, batch_size, learning_rate, weight_decay
        AdamW with a one-cycle schedule over a fixed number of epochs: no validation rows are needed.
    smoothing
        Label smoothing.
    """

    epochs: int = 40
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 5e-2
    smoothing: float = 0.02


class LabelledEncoder(nn.Module):
    """An encoder with dropout and one linear output a label."""

    def __init__(self, encoder: nn.Module, features: int, labels: int, dropout: float = 0.3) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(features, labels))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits ``[k, labels]``."""
        return self.head(self.encoder(inputs))


def train_encoder(
    model: LabelledEncoder,
    inputs: Tensor,
    labels: NDArray[np.generic],
    settings: EncoderTraining,
    *,
    seed: int,
    augment: Augment | None = None,
) -> LabelledEncoder:
    """Train with a logistic loss a label; rare labels weigh as much as their share gives (no re-weighting).

    Parameters
    ----------
    inputs
        ``[n, ...]`` training inputs.
    labels
        0/1 ``[n, labels]``.
    seed
        Order, dropout and augmentation follow from it; initial weights are the caller's.
    """
    target = torch.from_numpy(np.asarray(labels, dtype=np.float32))
    target = target * (1 - settings.smoothing) + settings.smoothing / 2
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    steps = max(1, len(inputs) // settings.batch_size)
    optimiser = torch.optim.AdamW(
        model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.epochs * steps
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.train()
        for _ in range(settings.epochs):
            order = torch.from_numpy(rng.permutation(len(inputs)))
            for step in range(steps):
                rows = order[step * settings.batch_size : (step + 1) * settings.batch_size]
                seen = inputs[rows] if augment is None else augment(inputs[rows], generator)
                loss = functional.binary_cross_entropy_with_logits(model(seen), target[rows])
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()
                schedule.step()
    return model.eval()


@torch.inference_mode()
def encoder_logits(model: LabelledEncoder, inputs: Tensor, *, batch_size: int = 64) -> NDArray[np.float64]:
    """Return logits ``[n, labels]`` in evaluation mode."""
    parts = [model(inputs[start : start + batch_size]) for start in range(0, len(inputs), batch_size)]
    return torch.cat(parts).double().numpy()


def shifted_signals(signals: Tensor, generator: torch.Generator) -> Tensor:
    """Shift ECG windows in time by up to 0.5 s, scale them by up to 20 %, and hide one lead in ten.

    Parameters
    ----------
    signals
        ``[k, leads, length]``.
    """
    k, leads, length = signals.shape
    shift = torch.randint(-62, 63, (k, 1, 1), generator=generator)
    at = (torch.arange(length)[None, None, :] + shift) % length
    moved = signals.gather(2, at.expand(k, leads, length))
    scale = 0.8 + 0.4 * torch.rand(k, 1, 1, generator=generator)
    kept = torch.rand(k, leads, 1, generator=generator) > 0.1
    return moved * scale * kept
