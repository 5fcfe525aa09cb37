"""Which samples go together: like lengths, a bound on padded size, a fixed order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def plan_batches(
    lengths: NDArray[np.int64], *, token_budget: int, max_samples: int
) -> Iterator[NDArray[np.int64]]:
    """Yield positions in batches: short samples first, ``longest * size <= token_budget``.

    A sample longer than the budget makes a batch of its own. The plan depends on the lengths and their
    order only, so that the same table gives the same batches.

    Examples
    --------
    >>> [list(map(int, rows)) for rows in plan_batches(np.array([5, 1, 2, 9]), token_budget=6, max_samples=8)]
    [[1, 2], [0], [3]]
    """
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < order.size:
        sizes = np.arange(1, min(max_samples, order.size - start) + 1)
        padded = lengths[order[start : start + sizes.size]] * sizes
        size = max(1, int(np.searchsorted(padded, token_budget, side="right")))
        yield order[start : start + size]
        start += size


def shuffled_batches(
    lengths: NDArray[np.int64], *, batch_size: int, generator: np.random.Generator, pool: int = 16
) -> list[NDArray[np.int64]]:
    """Return one epoch of batches of ``batch_size``: shuffled, but of like length within a batch.

    Samples are shuffled, cut into pools of ``pool`` batches, sorted by length in each pool, cut into
    batches, and the batches are shuffled. Every sample comes exactly once.
    """
    order = generator.permutation(lengths.size)
    batches: list[NDArray[np.int64]] = []
    for start in range(0, order.size, batch_size * pool):
        part = order[start : start + batch_size * pool]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches.extend(part[first : first + batch_size] for first in range(0, part.size, batch_size))
    return [batches[position] for position in generator.permutation(len(batches))]
