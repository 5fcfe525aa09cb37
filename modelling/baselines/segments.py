"""Sums and moments over runs of rows: each a function of its own rows alone, to the last bit.

A group-by may add up a group in parts that depend on how many rows stand beside it (polars does, for float
sums). The difference is in the last digit, and a threshold of a tree can turn it into another score; a score
must not depend on ward mates. ``numpy.add.reduceat`` adds each run up by itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def segment_starts(*keys: ArrayLike) -> NDArray[np.intp]:
    """Return where a run of rows with equal keys begins, ``[segments]``; rows are sorted by the keys."""
    arrays = [np.asarray(key) for key in keys]
    if len(arrays[0]) == 0:
        return np.zeros(0, dtype=np.intp)
    changed = np.any([array[1:] != array[:-1] for array in arrays], axis=0)
    return np.concatenate([[0], np.flatnonzero(changed) + 1]).astype(np.intp)


def segment_lengths(starts: NDArray[np.intp], rows: int) -> NDArray[np.intp]:
    """Return how many of ``rows`` rows each segment has, ``[segments]``."""
    return np.diff(np.append(starts, rows))


def segment_sums(values: ArrayLike, starts: NDArray[np.intp]) -> Floats:
    """Return the float64 sum of each segment, ``[segments]``."""
    if len(starts) == 0:
        return np.zeros(0)
    return np.add.reduceat(np.asarray(values, dtype=np.float64), starts)


def segment_moments(hours: ArrayLike, values: ArrayLike, starts: NDArray[np.intp]) -> dict[str, Floats]:
    """Return ``sum``, ``mean``, ``std`` (n - 1) of the values and their ``slope`` by time, each ``[segments]``.

    Parameters
    ----------
    hours
        Hours *before* the prediction time, ``[rows]``: the slope is in units a forward hour.
    values
        ``[rows]``.
    starts
        Of :func:`segment_starts`.

    Notes
    -----
    ``std`` is NaN for one value, ``slope`` where all values have one time. Deviations are taken from the
    first row and then from the mean, so that equal numbers deviate by exactly 0.
    """
    lengths = segment_lengths(starts, len(np.asarray(values)))

    def deviations(numbers: ArrayLike) -> Floats:
        array = np.asarray(numbers, dtype=np.float64)
        shifted = array - np.repeat(array[starts], lengths)
        return shifted - np.repeat(segment_sums(shifted, starts) / lengths, lengths)

    by_time, by_value = deviations(hours), deviations(values)
    total = segment_sums(values, starts)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "sum": total,
            "mean": total / lengths,
            "std": np.sqrt(segment_sums(by_value**2, starts) / (lengths - 1.0)),
            "slope": -segment_sums(by_time * by_value, starts) / segment_sums(by_time**2, starts),
        }
