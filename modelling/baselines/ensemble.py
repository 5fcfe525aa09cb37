"""Boosting, logistic regression and small sequence networks, stacked and calibrated: one model of tables.

The members read the same tokens of a sample. Their log-odds are combined by a logistic regression that was
fitted on out-of-fold log-odds, which also calibrates the result. Everything is kept in one safetensors file
(LightGBM's text is stored compressed, as bytes) and one JSON-ready dict.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import lightgbm
import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from modelling.baselines.arrays import FeatureTable
from modelling.baselines.boosting import PARAMETERS, Boosting, sigmoid
from modelling.baselines.features import FeatureSettings, features_of_tokens
from modelling.baselines.grid import Floats, GridPreparation
from modelling.baselines.logistic import Logistic, RankNormal
from modelling.baselines.quantities import DERIVED_PREFIX, MERGED, RATIOS, measured, with_derived
from modelling.baselines.sequence import Sequence, SequenceSettings
from modelling.baselines.summaries import observed_tokens, static_columns
from modelling.errors import BaselineError

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
LONGEST_TEXT = 64 * 1024 * 1024
"""Refuse to unpack more than this: a stored model is no larger, a forged one could be."""


@dataclass(frozen=True, kw_only=True)
class EnsembleSettings:
    """Which members there are and how they are trained.

    Attributes
    ----------
    sequences
        Settings of each sequence member by name.
    seeds
        Seeds of boosting and of each sequence member.
    rounds
        Trees of each boosting model.
    soft
        Weight of the second outcome in the soft label: ``y + soft * (1 - y) * later``.
    """

    sequences: Mapping[str, SequenceSettings] = field(default_factory=lambda: {"gru": SequenceSettings()})
    seeds: tuple[int, ...] = (0, 1, 2)
    rounds: int = 1000
    soft: float = 0.3
    step_hours: float = 2.0
    threads: int = 1

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the members, in the order of the stacking weights."""
        return ("boosting", "logistic", *self.sequences)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What every member reads, computed once: each row depends on its own sample only.

    Attributes
    ----------
    features
        Summary features.
    tokens
        Tokens with derived quantities.
    static
        Age in years, male, and one column a ward, ``[rows, 2 + wards]``.
    """

    features: FeatureTable
    tokens: pl.DataFrame
    static: Floats

    @property
    def rows(self) -> int:
        """Number of samples."""
        return len(self.static)


def prepare_inputs(
    samples: pl.DataFrame, events: pl.DataFrame, encounters: pl.DataFrame, settings: FeatureSettings
) -> Inputs:
    """Compute the members' inputs from contract tables."""
    return inputs_of_tokens(observed_tokens(samples, events), static_columns(samples, encounters), settings)


def inputs_of_tokens(tokens: pl.DataFrame, static: pl.DataFrame, settings: FeatureSettings) -> Inputs:
    """Compute the members' inputs from tokens and static columns (:mod:`modelling.baselines.summaries`)."""
    known = measured(tokens.filter(pl.col("code").is_in(list(settings.codes))))
    wards = [(static["ward"] == ward).fill_null(value=False).cast(pl.Float32) for ward in settings.wards]
    columns = [static["age_years"].cast(pl.Float32), static["male"].cast(pl.Float32), *wards]
    return Inputs(
        features=features_of_tokens(known, static, settings, rows=static.height),
        tokens=with_derived(known),
        static=np.stack([column.to_numpy() for column in columns], axis=1).astype(np.float32),
    )


def soft_labels(labels: NDArray[np.generic], later: NDArray[np.generic] | None, weight: float) -> Array:
    """Return 1 for the outcome, ``weight`` where only the later outcome holds, else 0."""
    y = np.asarray(labels, dtype=np.float64)
    if later is None or weight == 0:
        return y
    return np.where(y == 1, 1.0, weight * np.asarray(later, dtype=np.float64))


@dataclass(kw_only=True)
class Ensemble:
    """The fitted members and how to combine them.

    Attributes
    ----------
    weights, intercept
        Of the log-odds of :attr:`EnsembleSettings.members`.
    """

    features: FeatureSettings
    settings: EnsembleSettings = field(default_factory=EnsembleSettings)
    boosting: Boosting | None = None
    logistic: Logistic | None = None
    sequences: dict[str, Sequence] = field(default_factory=dict)
    weights: Array = field(default_factory=lambda: np.zeros(0))
    intercept: float = 0.0

    def fit_members(
        self,
        inputs: Inputs,
        train: Rows,
        labels: NDArray[np.generic],
        *,
        later: NDArray[np.generic] | None = None,
        auxiliary: NDArray[np.generic] | None = None,
    ) -> Self:
        """Fit every member on the training rows.

        Parameters
        ----------
        inputs
            Inputs of all rows; only ``train`` is read for fitting.
        train
            Training rows.
        labels
            0 or 1 for every row, ``[rows]``; only training rows are read.
        later
            0/1 outcome later than the label's horizon (death within 90 days), for soft labels.
        auxiliary
            ``[rows, k]`` further targets of the sequence members.
        """
        y = np.asarray(labels)[train]
        soft = soft_labels(y, None if later is None else later[train], self.settings.soft)
        table = inputs.features.take(train)
        self.boosting = Boosting(
            seeds=self.settings.seeds, rounds=self.settings.rounds, threads=self.settings.threads
        ).fit(table, soft)
        self.logistic = Logistic().fit(table, soft)
        codes = (*self.features.codes, *(DERIVED_PREFIX + name for name in (*MERGED, *RATIOS)))
        preparation = GridPreparation.fit(
            inputs.tokens, inputs.static, train, codes=codes, step=self.settings.step_hours
        )
        grid, static = preparation.transform(inputs.tokens, inputs.static, rows=inputs.rows)
        extra = None if auxiliary is None else auxiliary[train]
        self.sequences = {
            name: Sequence(settings=settings, preparation=preparation).fit(
                grid[train], static[train], soft, extra, seeds=self.settings.seeds
            )
            for name, settings in self.settings.sequences.items()
        }
        return self

    def member_log_odds(self, inputs: Inputs, rows: Rows | None = None) -> Array:
        """Return log-odds of every member, ``[rows, members]``."""
        if self.boosting is None or self.logistic is None:
            raise BaselineError("the ensemble is not fitted")
        table = inputs.features if rows is None else inputs.features.take(rows)
        columns = [self.boosting.decision(table), self.logistic.decision(table)]
        for sequence in self.sequences.values():
            grid, static = sequence.preparation.transform(inputs.tokens, inputs.static, rows=inputs.rows)
            if rows is not None:
                grid, static = grid[rows], static[rows]
            columns.append(sequence.decision(grid, static))
        return np.stack(columns, axis=1)

    def fit_stack(self, log_odds: Array, labels: NDArray[np.generic]) -> Self:
        """Learn the members' weights and calibration from out-of-fold log-odds ``[rows, members]``."""
        self.weights, self.intercept = fit_stack(log_odds, labels)
        return self

    def combine(self, log_odds: Array) -> Array:
        """Return calibrated probabilities from the members' log-odds."""
        if len(self.weights) != log_odds.shape[1]:
            raise BaselineError(f"{len(self.weights)} weights for {log_odds.shape[1]} members")
        return sigmoid(log_odds @ self.weights + self.intercept)

    def predict(self, samples: pl.DataFrame, events: pl.DataFrame, encounters: pl.DataFrame) -> Array:
        """Return calibrated probabilities of contract tables, ``[rows]``."""
        return self.combine(self.member_log_odds(prepare_inputs(samples, events, encounters, self.features)))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return every array, for one safetensors file."""
        if self.boosting is None or self.logistic is None or self.logistic.preparation is None:
            raise BaselineError("the ensemble is not fitted")
        result: dict[str, NDArray[Any]] = {
            "stack.weights": self.weights,
            "stack.intercept": np.array([self.intercept]),
            "logistic.weights": self.logistic.weights,
            "logistic.intercept": np.array([self.logistic.intercept]),
            "logistic.kept": self.logistic.preparation.kept,
            "logistic.knots": self.logistic.preparation.knots,
            "logistic.indicated": self.logistic.preparation.indicated,
        }
        for seed, booster in zip(self.boosting.seeds, self.boosting.boosters, strict=True):
            packed = zlib.compress(booster.model_to_string().encode(), 9)
            result[f"boosting.{seed}"] = np.frombuffer(packed, dtype=np.uint8)
        for name, sequence in self.sequences.items():
            result |= {f"sequence.{name}.{key}": value for key, value in sequence.tensors().items()}
        return {name: np.ascontiguousarray(value) for name, value in result.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return what is not an array."""
        if self.boosting is None or self.logistic is None:
            raise BaselineError("the ensemble is not fitted")
        return {
            "features": self.features.to_dict(),
            "columns": list(self.boosting.names),
            "seeds": list(self.boosting.seeds),
            "rounds": self.boosting.rounds,
            "boosting_parameters": dict(PARAMETERS),
            "soft": self.settings.soft,
            "step_hours": self.settings.step_hours,
            "logistic_strength": self.logistic.strength,
            "sequences": {name: sequence.to_dict() for name, sequence in self.sequences.items()},
            "members": list(self.settings.members),
        }

    @classmethod
    def restore(
        cls, fields: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], *, threads: int = 1
    ) -> Self:
        """Build an ensemble from :meth:`to_dict` and :meth:`tensors`.

        Raises
        ------
        BaselineError
            If an array is missing or a stored text is larger than any real one.
        """
        try:
            columns = tuple(fields["columns"])
            boosters = [
                lightgbm.Booster(model_str=_unpacked(tensors[f"boosting.{seed}"])) for seed in fields["seeds"]
            ]
            sequences = {
                name: Sequence.restore(
                    part,
                    {
                        key.removeprefix(f"sequence.{name}."): value
                        for key, value in tensors.items()
                        if key.startswith(f"sequence.{name}.")
                    },
                )
                for name, part in fields["sequences"].items()
            }
            logistic = Logistic(
                strength=fields["logistic_strength"],
                preparation=RankNormal(
                    names=columns,
                    kept=tensors["logistic.kept"],
                    knots=tensors["logistic.knots"],
                    indicated=tensors["logistic.indicated"],
                ),
                weights=tensors["logistic.weights"],
                intercept=float(tensors["logistic.intercept"][0]),
            )
            return cls(
                features=FeatureSettings.from_dict(fields["features"]),
                settings=EnsembleSettings(
                    sequences={name: sequence.settings for name, sequence in sequences.items()},
                    seeds=tuple(fields["seeds"]),
                    rounds=fields["rounds"],
                    soft=fields["soft"],
                    step_hours=fields["step_hours"],
                    threads=threads,
                ),
                boosting=Boosting(
                    seeds=tuple(fields["seeds"]),
                    rounds=fields["rounds"],
                    threads=threads,
                    names=columns,
                    boosters=boosters,
                ),
                logistic=logistic,
                sequences=sequences,
                weights=tensors["stack.weights"],
                intercept=float(tensors["stack.intercept"][0]),
            )
        except KeyError as error:
            raise BaselineError(f"the stored ensemble lacks {error}") from None


def fit_stack(log_odds: Array, labels: NDArray[np.generic]) -> tuple[Array, float]:
    """Return weights and intercept of a lightly penalised logistic regression on members' log-odds."""
    model = LogisticRegression(C=1.0, max_iter=1000).fit(log_odds, np.asarray(labels).astype(np.int64))
    return model.coef_[0].astype(np.float64), float(model.intercept_[0])


def _unpacked(packed: NDArray[Any]) -> str:
    engine = zlib.decompressobj()
    text = engine.decompress(packed.tobytes(), LONGEST_TEXT)
    if engine.unconsumed_tail:
        raise BaselineError("a stored boosting model is larger than any real one")
    return text.decode("utf-8")
