"""From the array of an image to the square that an image encoder reads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modelling.batches.settings import ImageSettings
from modelling.errors import ArrayUnreadableError


def prepare_image(array: NDArray[np.uint8], settings: ImageSettings) -> NDArray[np.uint8]:
    """Resize the short side, then crop the centre.

    Parameters
    ----------
    array
        uint8 ``[rows, columns]``, air dark.
    settings
        Sizes.

    Returns
    -------
    numpy.ndarray
        uint8 ``[size, size]``; normalisation waits for the encoder, so that a pixel is stored as one byte.

    Raises
    ------
    ArrayUnreadableError
        If the array is not a grey uint8 image.
    """
    if array.ndim != 2 or array.dtype != np.uint8 or 0 in array.shape:
        raise ArrayUnreadableError(
            f"expected a uint8 image [rows, columns], found {array.dtype} {array.shape}"
        )
    rows, columns = array.shape
    scale = settings.resize / min(rows, columns)
    size = (max(settings.size, round(columns * scale)), max(settings.size, round(rows * scale)))
    resized = Image.fromarray(array).resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - settings.size) // 2, (size[1] - settings.size) // 2
    return np.asarray(resized.crop((left, top, left + settings.size, top + settings.size)), dtype=np.uint8)
