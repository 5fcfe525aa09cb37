"""The networks of :mod:`modelling.models`, trained alone on the events of a cohort, as contenders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from modelling.batches import Dataset, Encoding, fit_encoding, prepare
from modelling.batches.encoding import CatalogueLike
from modelling.benchmarks.contenders import auxiliary_targets
from modelling.benchmarks.harness import Cohort, Contender, Floats, Rows
from modelling.models import MODELS
from modelling.training.config import TrainingConfig
from modelling.training.fit import fit_network
from modelling.training.predict import predict
from modelling.training.split import TUNING, split_subjects
from validation.contracts import empty

TUNING_SHARE = 0.12
"""Of the training fold's patients, for early stopping; the test fold is never looked at."""

AUXILIARY = [
    {"name": "died_within_year", "kind": "binary", "weight": 0.3},
    {"name": "log_days", "kind": "regression", "weight": 0.15},
]
_COMMON: dict[str, Any] = {
    "epochs": 20,
    "pretrain_epochs": 0,
    "patience": 3,
    "batch_size": 64,
    "weight_decay": 0.01,
    "threads": 1,
    "auxiliary": AUXILIARY,
}
_TOKENS: dict[str, Any] = {
    **_COMMON,
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "encoding": {"token_window_hours": 2.0, "max_tokens": 1024},
}
_SMALL_TOKENS = {"width": 64, "inner": 128, "heads": 4, "layers": 2, "value_width": 64, "head_dropout": 0.3}

_NIGHTINGALE = {
    "width": 64,
    "inner": 128,
    "value_width": 64,
    "window_hours": 2.0,
    "ecg": False,
    "cxr": False,
    "fusion_hidden": 64,
}
_FORECASTING: dict[str, Any] = {"forecast_epochs": 12, "pretrain_learning_rate": 1e-3}

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "LSTM (MedFuse 2022, EHR only)": (
        "medfuse",
        {
            **_COMMON,
            "auxiliary": [],
            "learning_rate": 5e-4,
            "encoding": {"step_hours": 2.0},
            "model": {
                "hidden": 128,
                "fusion_hidden": 128,
                "image_width": 4,
                "signal_channels": [4, 4, 4, 4, 4],
            },
        },
    ),
    "additive (STraTS-style)": (
        "mufuse",
        {**_TOKENS, "model": {**_SMALL_TOKENS, "embedding": "additive", "pooling": "attention"}},
    ),
    "SCANE": ("mufuse", {**_TOKENS, "model": {**_SMALL_TOKENS, "embedding": "scane"}}),
    "MuFuse": ("mufuse", {**_TOKENS, "model": _SMALL_TOKENS}),
    "Nightingale": ("nightingale", {**_TOKENS, "model": _NIGHTINGALE}),
    "MuFuse, forecasting first": ("mufuse", {**_TOKENS, **_FORECASTING, "model": _SMALL_TOKENS}),
    "Nightingale, forecasting first": ("nightingale", {**_TOKENS, **_FORECASTING, "model": _NIGHTINGALE}),
}


def _prepare(cohort: Cohort, rows: Rows, encoding: Encoding, *, auxiliary: bool) -> Dataset:
    dataset = prepare(
        samples=cohort.samples[rows],
        encounters=cohort.encounters,
        events=cohort.events.filter(pl.col("subject_id").is_in(pl.Series(cohort.subjects[rows]).implode())),
        recordings=empty("recordings"),
        images=empty("images"),
        run_folder=Path(),
        encoding=encoding,
    )
    targets = auxiliary_targets(cohort) if auxiliary else None
    if targets is None:
        return dataset
    centred = targets.copy()
    centred[:, 1] -= 2.2  # about the mean of log(1 + days): regression targets are scaled by the caller
    return dataset.with_targets(auxiliary=centred[rows])


_encoded: dict[tuple[str, ...], list[Dataset]] = {}
"""What was encoded last: the next network of the same fold, seed and encoding needs it again."""


def _parts(
    catalogue: CatalogueLike, config: TrainingConfig, cohort: Cohort, train: Rows, test: Rows, seed: int
) -> list[Dataset]:
    """Return what is trained on, what stops the training, and the test fold, encoded."""
    has_targets = bool(config.auxiliary)
    settings = json.dumps(config.encoding.to_dict(), sort_keys=True)
    rows = hashlib.sha256(np.concatenate([train, [-1], test]).tobytes()).hexdigest()
    key = (cohort.digest, rows, str(seed), settings, str(has_targets))
    if key in _encoded:
        return _encoded[key]
    names = split_subjects(cohort.samples[train], tuning_share=TUNING_SHARE, held_out_share=0.0, seed=seed)
    tuning = np.array([names[int(subject)] == TUNING for subject in cohort.subjects[train]])
    encoding = fit_encoding(
        samples=cohort.samples[train[~tuning]],
        encounters=cohort.encounters,
        events=cohort.events,
        recordings=empty("recordings"),
        catalogue=catalogue,
        settings=config.encoding,
    )
    parts = [
        _prepare(cohort, rows, encoding, auxiliary=has_targets)
        for rows in (train[~tuning], train[tuning], test)
    ]
    _encoded.clear()
    _encoded[key] = parts
    return parts


def _score(
    catalogue: CatalogueLike,
    model: str,
    settings: Mapping[str, Any],
    cohort: Cohort,
    train: Rows,
    test: Rows,
    seed: int,
) -> Floats:
    config = TrainingConfig.from_dict(settings)
    fit, tuning, held_out = _parts(catalogue, config, cohort, train, test, seed)
    fitted = fit_network(train=fit, tuning=tuning, model=model, config=config, seed=seed)
    return predict(fitted.network, held_out, device=fitted.device)[:, 0]


def network_contenders(catalogue: CatalogueLike, *, seeds: tuple[int, ...]) -> list[Contender]:
    """Return the networks whose model is registered, with small settings that two CPU cores can train."""
    return [
        Contender(
            name=name,
            score=partial(_score, catalogue, model, settings),
            settings={"model": model, "training": json.loads(json.dumps(settings)), "tuning": TUNING_SHARE},
            seeds=seeds,
            on_gpu=True,
        )
        for name, (model, settings) in NETWORKS.items()
        if model in MODELS
    ]
