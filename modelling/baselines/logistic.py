"""Penalised logistic regression on windowed summaries.

Each column is mapped to a standard normal by its rank in the training rows (so that skewed laboratory values
and outliers need no hand-made limits), a missing value is the median (0), and a column that is missing in
some training rows gets an indicator. Squares of the columns are added, since for most vital signs both ends
are dangerous. Fitting, applying and saving need nothing but arrays; the saved form is
safetensors and JSON.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy.special import ndtri
from sklearn.linear_model import LogisticRegression

from modelling.baselines.arrays import FeatureTable
from modelling.baselines.boosting import sigmoid
from modelling.errors import BaselineError
from validation.contracts import file_digest, write_json

KNOTS = 201
TAIL = 0.002
"""Ranks are kept this far from 0 and 1, so that no value is further than 2.9 standard deviations out."""


@dataclass(kw_only=True)
class RankNormal:
    """Columns to standard normals by rank, with indicators of missingness.

    Attributes
    ----------
    names
        Input columns.
    kept
        Positions of columns with at least two distinct values in ``minimum`` training rows, ``[k]``.
    knots
        Quantiles of each kept column, ``[k, KNOTS]``.
    indicated
        Positions (in ``kept``) of columns whose missingness varies and is not a copy of another's.
    """

    names: tuple[str, ...]
    kept: NDArray[np.int64]
    knots: NDArray[np.float32]
    indicated: NDArray[np.int64]

    @classmethod
    def fit(cls, features: FeatureTable, *, minimum: int = 30) -> Self:
        """Learn the quantiles of each column from training rows."""
        values = features.values
        grid = np.linspace(0.0, 1.0, KNOTS)
        kept: list[int] = []
        knots: list[NDArray[np.float64]] = []
        indicated: list[int] = []
        patterns: set[bytes] = set()
        for position in range(values.shape[1]):
            column = values[:, position]
            seen = np.isfinite(column)
            if seen.sum() < minimum or np.ptp(column[seen]) == 0:
                continue
            pattern = np.packbits(seen).tobytes()
            if not seen.all() and pattern not in patterns:
                patterns.add(pattern)
                indicated.append(len(kept))
            kept.append(position)
            knots.append(np.quantile(column[seen], grid))
        if not kept:
            raise BaselineError("no column varies in the training rows")
        return cls(
            names=features.names,
            kept=np.array(kept, dtype=np.int64),
            knots=np.array(knots, dtype=np.float32),
            indicated=np.array(indicated, dtype=np.int64),
        )

    def transform(self, features: FeatureTable) -> NDArray[np.float32]:
        """Return ``[rows, 2 * kept + indicated]``: columns, squares, indicators; finite everywhere."""
        values = features.aligned(self.names).values[:, self.kept]
        missing = ~np.isfinite(values)
        grid = np.linspace(0.0, 1.0, KNOTS)
        normal = np.zeros(values.shape, dtype=np.float32)
        for position, knots in enumerate(self.knots):
            seen = ~missing[:, position]
            column = values[seen, position]
            # The middle of the ranks that tie: a mode must not sit at one end of its run.
            low = np.searchsorted(knots, column, side="left")
            high = np.searchsorted(knots, column, side="right")
            between = np.interp(column, knots, grid)
            rank = np.where(high > low, (low + high - 1) / (2 * (KNOTS - 1)), between)
            normal[seen, position] = ndtri(np.clip(rank, TAIL, 1.0 - TAIL))
        squares = normal**2 - 1.0
        squares[missing] = 0.0
        return np.concatenate([normal, squares, missing[:, self.indicated].astype(np.float32)], axis=1)


@dataclass(kw_only=True)
class Logistic:
    """L2-penalised logistic regression.

    Attributes
    ----------
    strength
        Inverse penalty (scikit-learn's ``C``) on rank-normal columns.
    """

    strength: float = 0.0003
    preparation: RankNormal | None = None
    weights: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    intercept: float = 0.0

    def fit(self, features: FeatureTable, labels: NDArray[np.generic]) -> Self:
        """Fit on training rows.

        ``labels`` are 0, 1 or a share between, shape ``[rows]``. A share ``s`` enters as a positive row of
        weight ``s`` and a negative row of weight ``1 - s``, which is cross-entropy.
        """
        y = np.asarray(labels, dtype=np.float64)
        if len(y) != len(features.values) or y.min() < 0 or y.max() > 1 or np.ptp(y) == 0:
            raise BaselineError("logistic regression needs labels in [0, 1], one a row, of both classes")
        self.preparation = RankNormal.fit(features)
        inputs = self.preparation.transform(features)
        both = np.concatenate([inputs[y > 0], inputs[y < 1]])
        target = np.repeat([1, 0], [int((y > 0).sum()), int((y < 1).sum())])
        weight = np.concatenate([y[y > 0], 1.0 - y[y < 1]])
        model = LogisticRegression(C=self.strength, max_iter=1000, tol=1e-4)
        model.fit(both, target, sample_weight=weight)
        self.weights = model.coef_[0].astype(np.float64)
        self.intercept = float(model.intercept_[0])
        return self

    def decision(self, features: FeatureTable) -> NDArray[np.float64]:
        """Return log-odds, shape ``[rows]``."""
        if self.preparation is None:
            raise BaselineError("the logistic regression is not fitted")
        return self.preparation.transform(features).astype(np.float64) @ self.weights + self.intercept

    def predict(self, features: FeatureTable) -> NDArray[np.float64]:
        """Return probabilities of 1, shape ``[rows]``."""
        return sigmoid(self.decision(features))

    def save(self, folder: Path) -> None:
        """Write ``logistic.safetensors`` and ``logistic.json``."""
        if self.preparation is None:
            raise BaselineError("the logistic regression is not fitted")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "logistic.safetensors"
        save_file(
            {
                "kept": self.preparation.kept,
                "knots": self.preparation.knots,
                "indicated": self.preparation.indicated,
                "weights": self.weights,
                "intercept": np.array([self.intercept]),
            },
            path,
        )
        write_json(
            {
                "format": "nightingale-logistic-1",
                "names": list(self.preparation.names),
                "strength": self.strength,
                "sha256": file_digest(path),
            },
            folder / "logistic.json",
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote; a wrong digest or format is a :class:`BaselineError`."""
        fields = json.loads((folder / "logistic.json").read_text(encoding="utf-8"))
        path = folder / "logistic.safetensors"
        if fields.get("format") != "nightingale-logistic-1":
            raise BaselineError("logistic.json has an unknown format")
        if not path.is_file() or file_digest(path) != fields["sha256"]:
            raise BaselineError(f"{path.name} is missing or is not the file that was saved")
        tensors = load_file(path)
        preparation = RankNormal(
            names=tuple(fields["names"]),
            kept=tensors["kept"],
            knots=tensors["knots"],
            indicated=tensors["indicated"],
        )
        return cls(
            strength=fields["strength"],
            preparation=preparation,
            weights=tensors["weights"],
            intercept=float(tensors["intercept"][0]),
        )
