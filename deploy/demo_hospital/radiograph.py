"""Chest-like radiographs, drawn: trunk, lungs, heart, ribs, diaphragm, opacities that grow with severity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom


def _ellipse(
    x: NDArray[np.float64], y: NDArray[np.float64], cx: float, cy: float, a: float, b: float
) -> NDArray[np.float64]:
    """Soft-edged ellipse, 1 inside and 0 outside."""
    return 1 / (1 + np.exp(14 * (((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 - 1)))


def draw_chest(
    *, lungs: float, heart: float, size: int, portable: bool, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return an image of shape ``[size, size]`` in 0 to 1, air dark (MONOCHROME2).

    Parameters
    ----------
    lungs
        Latent severity of the lungs; opacity grows with it.
    heart
        Latent severity of the heart; the heart's shadow widens with it.
    portable
        Antero-posterior bedside film: larger heart, less contrast.
    """
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    x = x + rng.normal(0, 0.02)
    body = _ellipse(x, y, 0.0, 0.25, 0.93, 1.35)
    height = 0.62 + rng.normal(0, 0.03)
    left = _ellipse(x, y, 0.40, -0.08, 0.31, height)
    right = _ellipse(x, y, -0.40, -0.10, 0.33, height)
    field = np.clip(left + right, 0, 1) * (1 / (1 + np.exp(18 * (y - 0.48 - 0.12 * np.cos(3 * x)))))
    width = 0.24 + 0.05 * np.logaddexp(0, heart) + (0.05 if portable else 0.0)
    shadow = np.maximum(_ellipse(x, y, 0.11, 0.24, width, 0.33), 0.9 * np.exp(-((np.abs(x) / 0.13) ** 4)))
    field = field * (1 - shadow)
    image = 0.05 + 0.55 * body - 0.40 * field + 0.10 * shadow * body
    image += 0.12 * np.exp(-((x / 0.07) ** 2)) * body
    ribs = np.sin(21 * (y + 0.30 * np.abs(x) ** 1.4) + rng.uniform(0, 0.6))
    image += 0.05 * np.clip(ribs, -0.2, 1) * field
    coarse = gaussian_filter(rng.normal(size=(24, 24)), 1.8)
    coarse = (coarse - coarse.min()) / np.ptp(coarse)
    texture = zoom(coarse, size / 24, order=1)[:size, :size]
    opacity = float(np.clip(0.16 * np.logaddexp(0, 1.6 * lungs - 0.4), 0, 0.75))
    base = 0.5 + 0.5 * np.clip(y + 0.2, -1, 1)
    image += opacity * field * (0.35 + 0.9 * texture * base)
    image += rng.normal(0, 0.012, size=image.shape)
    if portable:
        image = 0.12 + 0.80 * image
    return np.clip(image, 0, 1)
