"""Random views of training images."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample


def augment_images(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flip, rotate, scale and shift images (MedFuse 2022, appendix: 45 degrees, 0.85-1.15, 0.15).

    Parameters
    ----------
    images
        uint8 or float ``[k, 1, size, size]``, 0-255.
    generator
        On the CPU.

    Returns
    -------
    Tensor
        float ``[k, 1, size, size]``; what comes from outside the image is 0 (air).
    """
    k = len(images)
    if k == 0:
        return images.float()
    draw = torch.rand(k, 5, generator=generator)
    angle = (draw[:, 0] * 2 - 1) * math.pi / 4
    scale = 1.0 / (0.85 + 0.3 * draw[:, 1])
    flip = torch.where(draw[:, 2] < 0.5, -1.0, 1.0)
    shift = (draw[:, 3:] * 2 - 1) * 0.3  # normalised coordinates span 2
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    theta = torch.stack(
        [
            torch.stack([cosine * flip, -sine, shift[:, 0]], 1),
            torch.stack([sine * flip, cosine, shift[:, 1]], 1),
        ],
        1,
    ).to(images.device)
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    return grid_sample(images.float(), grid, align_corners=False)
