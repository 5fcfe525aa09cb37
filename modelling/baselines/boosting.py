"""Gradient boosting on windowed summaries: several seeds of LightGBM, averaged on the log-odds scale.

The defaults were chosen by cross-validation on PhysioNet 2012 sets a and b (docs/evaluation.md): extremely
randomised splits, few leaves, one column in ten per tree. The saved form is LightGBM's own text format and
a JSON file: no pickle, nothing executable.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import lightgbm
import numpy as np
from numpy.typing import NDArray

from modelling.baselines.arrays import FeatureTable
from modelling.errors import BaselineError
from validation.contracts import file_digest, write_json

PARAMETERS: Mapping[str, Any] = {
    "learning_rate": 0.03,
    "num_leaves": 8,
    "min_data_in_leaf": 40,
    "feature_fraction": 0.1,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "max_bin": 63,
    "extra_trees": True,
}
ROUNDS = 1000


def sigmoid(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``1 / (1 + exp(-x))`` without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(log_odds, dtype=np.float64)))


@dataclass(kw_only=True)
class Boosting:
    """LightGBM for a binary or a numeric label.

    Attributes
    ----------
    kind
        ``classification`` or ``regression`` (absolute error).
    seeds
        One model is fitted for each; predictions are averaged.
    rounds
        Trees of each model.
    parameters
        LightGBM parameters over :data:`PARAMETERS`.
    threads
        Threads of LightGBM. Results do not depend on it (``deterministic`` is set).
    """

    kind: str = "classification"
    seeds: tuple[int, ...] = (0, 1, 2)
    rounds: int = ROUNDS
    parameters: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1
    names: tuple[str, ...] = ()
    boosters: list[lightgbm.Booster] = field(default_factory=list, repr=False)

    def fit(self, features: FeatureTable, labels: NDArray[np.generic]) -> Self:
        """Fit one model a seed.

        Parameters
        ----------
        labels
            ``[rows]``: for a classification 0, 1 or a share between (soft label, cross-entropy).
        """
        y = np.asarray(labels, dtype=np.float64)
        if len(y) != len(features.values):
            raise BaselineError(f"{len(y)} labels for {len(features.values)} rows")
        if self.kind == "classification" and (y.min() < 0 or y.max() > 1):
            raise BaselineError("labels of a classification must lie between 0 and 1")
        soft = self.kind == "classification" and not np.isin(y, (0.0, 1.0)).all()
        objective = {"classification": "cross_entropy" if soft else "binary", "regression": "l1"}[self.kind]
        self.names = features.names
        data = lightgbm.Dataset(
            features.values,
            y,
            feature_name=[f"f{position}" for position in range(len(self.names))],
            params={"max_bin": {**PARAMETERS, **self.parameters}["max_bin"], "verbose": -1},
            free_raw_data=False,
        )
        self.boosters = [
            lightgbm.train(
                {
                    **PARAMETERS,
                    **self.parameters,
                    "objective": objective,
                    "seed": seed,
                    "deterministic": True,
                    "force_row_wise": True,
                    "num_threads": self.threads,
                    "verbose": -1,
                },
                data,
                num_boost_round=self.rounds,
            )
            for seed in self.seeds
        ]
        return self

    def decision(self, features: FeatureTable) -> NDArray[np.float64]:
        """Return the mean log-odds (classification) or prediction (regression), shape ``[rows]``."""
        if not self.boosters:
            raise BaselineError("the boosting model is not fitted")
        values = features.aligned(self.names).values
        parts = [
            booster.predict(values, raw_score=True, num_threads=self.threads) for booster in self.boosters
        ]
        return np.mean(np.stack(parts), axis=0)

    def predict(self, features: FeatureTable) -> NDArray[np.float64]:
        """Return probabilities of 1, or predicted numbers, shape ``[rows]``."""
        raw = self.decision(features)
        return sigmoid(raw) if self.kind == "classification" else raw

    def gains(self) -> dict[str, float]:
        """Return each column's share of the total gain, largest first."""
        total = np.sum([booster.feature_importance("gain") for booster in self.boosters], axis=0)
        share = total / max(total.sum(), 1e-12)
        order = np.argsort(-share, kind="stable")
        return {self.names[position]: float(share[position]) for position in order}

    def save(self, folder: Path) -> None:
        """Write ``boosting.json`` and one ``boosting-<seed>.txt`` a seed."""
        folder.mkdir(parents=True, exist_ok=True)
        files = {}
        for seed, booster in zip(self.seeds, self.boosters, strict=True):
            path = folder / f"boosting-{seed}.txt"
            booster.save_model(path)
            files[path.name] = file_digest(path)
        write_json(
            {
                "format": "nightingale-boosting-1",
                "kind": self.kind,
                "names": list(self.names),
                "parameters": dict(self.parameters),
                "rounds": self.rounds,
                "seeds": list(self.seeds),
                "files": files,
            },
            folder / "boosting.json",
        )

    @classmethod
    def load(cls, folder: Path, *, threads: int = 1) -> Self:
        """Read what :meth:`save` wrote.

        Raises
        ------
        BaselineError
            If a file is missing, has another digest, or the format is unknown.
        """
        fields = json.loads((folder / "boosting.json").read_text(encoding="utf-8"))
        if fields.get("format") != "nightingale-boosting-1":
            raise BaselineError("boosting.json has an unknown format")
        boosters = []
        for name, digest in fields["files"].items():
            path = folder / name
            if Path(name).name != name or not path.is_file() or file_digest(path) != digest:
                raise BaselineError(f"{name} is missing or is not the file that was saved")
            boosters.append(lightgbm.Booster(model_file=path))
        return cls(
            kind=fields["kind"],
            seeds=tuple(fields["seeds"]),
            rounds=fields["rounds"],
            parameters=fields["parameters"],
            threads=threads,
            names=tuple(fields["names"]),
            boosters=boosters,
        )
