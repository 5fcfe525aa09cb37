"""Losses in logit form, summed over samples."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid


def binary_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the summed cross entropy of ``[n]`` logits and 0-1 labels."""
    return binary_cross_entropy_with_logits(logits, labels, reduction="sum")


def focal_loss(logits: Tensor, labels: Tensor, *, alpha: float = 0.5, gamma: float = 2.0) -> Tensor:
    """Return the summed focal loss (Lin et al. 2017), finite for any logit.

    ``-alpha_t (1 - p_t)^gamma log p_t`` with ``log p_t = logsigmoid(s x)`` and ``log(1 - p_t) =
    logsigmoid(-s x)``, where ``s`` is +1 for a positive and -1 for a negative. Computed from probabilities
    (MuFuse's released code) it turns to NaN when ``p`` rounds to 0 or 1.
    """
    signed = logits * (2.0 * labels - 1.0)
    weight = alpha * labels + (1.0 - alpha) * (1.0 - labels)
    return -(weight * (gamma * logsigmoid(-signed)).exp() * logsigmoid(signed)).sum()
