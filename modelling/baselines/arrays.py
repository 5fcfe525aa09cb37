"""A matrix whose columns have names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelling.errors import BaselineError


@dataclass(frozen=True)
class FeatureTable:
    """Named columns of numbers, one row a sample.

    Attributes
    ----------
    names
        Column names, unique.
    values
        float32 ``[rows, len(names)]``; missing is NaN.
    """

    names: tuple[str, ...]
    values: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape[1] != len(self.names):
            raise BaselineError(f"{len(self.names)} names for values of shape {self.values.shape}")
        if len(set(self.names)) != len(self.names):
            raise BaselineError("column names are not unique")

    def take(self, rows: NDArray[np.intp]) -> FeatureTable:
        """Return the rows at these positions."""
        return FeatureTable(self.names, self.values[rows])

    def column(self, name: str) -> NDArray[np.float32]:
        """Return one column, shape ``[rows]``; NaN everywhere if there is no such column."""
        if name not in self.names:
            return np.full(self.values.shape[0], np.nan, dtype=np.float32)
        return self.values[:, self.names.index(name)]

    def aligned(self, names: Sequence[str]) -> FeatureTable:
        """Return exactly these columns in this order; a column that is not here becomes NaN."""
        index = {name: position for position, name in enumerate(self.names)}
        values = np.full((self.values.shape[0], len(names)), np.nan, dtype=np.float32)
        found = [(target, index[name]) for target, name in enumerate(names) if name in index]
        if found:
            targets, sources = (list(part) for part in zip(*found, strict=True))
            values[:, targets] = self.values[:, sources]
        return FeatureTable(tuple(names), values)

    def beside(self, other: FeatureTable) -> FeatureTable:
        """Return this table with the columns of another to its right."""
        return FeatureTable(
            self.names + other.names, np.concatenate([self.values, other.values], axis=1).astype(np.float32)
        )
