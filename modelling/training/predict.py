"""Logits of a whole dataset, in the order of its samples."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from modelling.batches import Batch, Dataset
from modelling.batches.ahead import ahead
from modelling.models import RiskModel


@torch.inference_mode()
def predict(
    model: RiskModel,
    dataset: Dataset,
    *,
    device: str = "cpu",
    token_budget: int = 65_536,
    max_samples: int = 128,
    precision: str = "float32",
) -> NDArray[np.float64]:
    """Return logits ``[samples, outputs]`` in evaluation mode; the model's mode is restored."""
    was_training = model.training
    model.eval()
    result: NDArray[np.float64] | None = None
    batch: Batch
    for batch in ahead(dataset.batches(token_budget=token_budget, max_samples=max_samples)):
        with torch.autocast(
            "cuda", torch.bfloat16, enabled=precision == "bfloat16" and device.startswith("cuda")
        ):
            logits = model(batch.to(device)).double().cpu().numpy()
        if result is None:
            result = np.full((len(dataset), logits.shape[1]), np.nan)
        result[batch.sample.numpy()] = logits
    model.train(was_training)
    return np.zeros((0, 1)) if result is None else result
