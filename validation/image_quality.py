"""Is this a frontal chest radiograph that a model may see?

A coarse picture of the image (8 by 8 means) is compared with the mean of real radiographs:
dark lungs, bright mediastinum and abdomen, dark air beside the neck. An inverted image correlates
negatively with it, a turned one better after being turned back. ``make bench-validation`` prints the
false-alarm rate of each threshold on the NIH ChestX-ray14 excerpt.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from validation.judgement import Judgement, quarantine_rows
from validation.reasons import Reason

PixelArray = npt.NDArray[np.uint8]

FRONTAL_VIEWS = ("AP", "PA")

CHEST_TEMPLATE = np.array(
    [
        [-1.82, -1.57, -1.04, 0.01],
        [-0.49, -0.18, -0.44, -0.07],
        [0.12, 0.08, -0.75, -0.14],
        [0.03, 0.03, -0.68, 0.18],
        [-0.23, 0.07, -0.19, 0.62],
        [-0.45, 0.31, 0.50, 1.01],
        [-0.65, 0.57, 1.06, 1.33],
        [-0.74, 0.72, 1.31, 1.50],
    ]
)
"""Left half of the standardised 8 by 8 mean of 400 radiographs (NIH Clinical Center, ChestX-ray14,
Wang et al. CVPR 2017), made symmetric; ``tests/benchmark/bench_validation.py`` computes it again."""

_TEMPLATE = np.hstack([CHEST_TEMPLATE, CHEST_TEMPLATE[:, ::-1]])


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """Thresholds of the image judge.

    Attributes
    ----------
    smallest_side
        Pixels; the encoders read 224 by 224, and half of that cannot be enlarged honestly.
    contrast
        Grey levels of 255 between the 1st and 99th percentile, below which an image is blank.
        The lowest of the NIH excerpt is 128.
    inverted
        Correlation with the chest template below which an image is inverted.
    turned
        By how much the best of the turned images must correlate better than the image itself.
    border
        Share of the image's area that constant rows and columns at its edges may fill.
    longest_ratio
        Longest side over shortest side, after the borders are cut off.
    views
        Accepted view positions; a null view is judged by the image alone.
    """

    smallest_side: int = 112
    contrast: float = 40.0
    inverted: float = -0.25
    turned: float = 0.25
    border: float = 0.5
    longest_ratio: float = 2.0
    views: tuple[str, ...] = FRONTAL_VIEWS


@dataclass(frozen=True, kw_only=True)
class ImageMeasures:
    """What was measured on one image; no pixel of it."""

    height: int
    width: int
    contrast: float
    border_share: float = 0.0
    side_ratio: float = 1.0
    chest_correlation: float = 0.0
    turned_gain: float = 0.0


def measure_image(pixels: PixelArray) -> ImageMeasures:
    """Measure one image.

    Parameters
    ----------
    pixels
        ``[rows, columns]``, 0-255, air dark.
    """
    height, width = pixels.shape
    low, high = np.percentile(pixels, [1, 99])
    contrast = float(high - low)
    if contrast == 0 or min(height, width) < 8:
        return ImageMeasures(height=height, width=width, contrast=contrast)
    inner = _without_borders(pixels)
    coarse = _coarse(inner) if min(inner.shape) >= 8 else _coarse(pixels)
    upright = _correlation(coarse)
    turned = max(_correlation(np.rot90(coarse, quarter)) for quarter in (1, 2, 3))
    return ImageMeasures(
        height=height,
        width=width,
        contrast=contrast,
        border_share=1.0 - inner.size / pixels.size,
        side_ratio=max(inner.shape) / max(1, min(inner.shape)),
        chest_correlation=upright,
        turned_gain=turned - upright,
    )


def _without_borders(pixels: PixelArray) -> PixelArray:
    """Cut constant rows and columns off the edges; twice, since a side strip hides that a row is constant."""
    inner = pixels
    for _ in range(2):
        inner = inner[_inside(inner, axis=1)]
        inner = inner[:, _inside(inner, axis=0)]
    return inner


def _inside(pixels: PixelArray, *, axis: int) -> slice:
    """Return the slice of rows (axis 1) or columns (axis 0) left when constant ones at the edges are cut."""
    thin = (
        pixels[:, :: max(1, pixels.shape[1] // 256)]
        if axis == 1
        else pixels[:: max(1, pixels.shape[0] // 256)]
    )
    spread = np.ptp(thin, axis=axis) > 4
    if not spread.any():
        return slice(0, spread.size)
    return slice(int(spread.argmax()), int(spread.size - spread[::-1].argmax()))


def _coarse(pixels: PixelArray) -> npt.NDArray[np.float64]:
    """Return the standardised means of 8 by 8 tiles."""
    rows = np.array_split(np.arange(pixels.shape[0]), 8)
    columns = [int(part[0]) for part in np.array_split(np.arange(pixels.shape[1]), 8)]
    sums = np.add.reduceat(pixels.astype(np.float32), [int(part[0]) for part in rows], axis=0)
    sums = np.add.reduceat(sums, columns, axis=1)
    sizes = np.outer([len(part) for part in rows], np.diff([*columns, pixels.shape[1]]))
    means = sums / sizes
    return (means - means.mean()) / (means.std() + 1e-9)


def _correlation(coarse: npt.NDArray[np.float64]) -> float:
    return float(np.corrcoef(coarse.ravel(), _TEMPLATE.ravel())[0, 1])


def judge_measures(measures: ImageMeasures, limits: ImageLimits) -> Reason | None:
    """Return why an image is refused, or None."""
    checks = (
        (min(measures.height, measures.width) < limits.smallest_side, Reason.IMAGE_TINY),
        (measures.contrast < limits.contrast, Reason.IMAGE_BLANK),
        (measures.border_share > limits.border, Reason.IMAGE_BORDER),
        (measures.side_ratio > limits.longest_ratio, Reason.IMAGE_NOT_CHEST),
        (
            measures.chest_correlation < limits.inverted
            and -measures.chest_correlation >= measures.chest_correlation + measures.turned_gain,
            Reason.IMAGE_INVERTED,
        ),
        (measures.turned_gain > limits.turned, Reason.IMAGE_TURNED),
    )
    return next((reason for broken, reason in checks if broken), None)


def judge_images(images: pl.DataFrame, run_folder: Path, limits: ImageLimits | None = None) -> Judgement:
    """Split radiographs into those fit for a model and those that are not.

    Parameters
    ----------
    images
        Rows of the ``Images`` contract.
    run_folder
        Folder that ``array_path`` is relative to; each file holds uint8 ``[rows, columns]``.
    limits
        Thresholds; the defaults when None.

    Returns
    -------
    Judgement
        Pixels that came earlier for the same patient are ``image.duplicate``. Every quarantine row
        has ``whole`` true.
    """
    limits = limits or ImageLimits()
    seen: set[tuple[int, str]] = set()
    verdicts: dict[int, str | None] = {}
    for row in images.with_row_index("row").sort("time", "row")["row"]:
        fields = images.row(row, named=True)
        key = (fields["subject_id"], fields["array_sha256"])
        reason = Reason.IMAGE_DUPLICATE if key in seen else _judge_one(fields, run_folder, limits)
        seen.add(key)
        verdicts[row] = str(reason) if reason else None
    verdict = pl.Series("reason", [verdicts[row] for row in range(images.height)], dtype=pl.String)
    refused = images.filter(verdict.is_not_null()).with_columns(verdict.drop_nulls())
    return Judgement(
        images.filter(verdict.is_null()),
        quarantine_rows(
            refused, stage="image_quality", reason=pl.col("reason"), feature=pl.lit("chest_xray"), whole=True
        ),
    )


def _judge_one(fields: dict[str, Any], run_folder: Path, limits: ImageLimits) -> Reason | None:
    if fields["view"] is not None and fields["view"].upper() not in limits.views:
        return Reason.IMAGE_VIEW_NOT_FRONTAL
    try:
        pixels = np.load(run_folder / fields["array_path"], allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return Reason.IMAGE_UNREADABLE
    if pixels.ndim != 2 or pixels.dtype != np.uint8 or pixels.size == 0:
        return Reason.IMAGE_UNREADABLE
    return judge_measures(measure_image(pixels), limits)
