"""Simulated intensive-care stays for tests of baselines, ensembles and evaluation."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from modelling.baselines.ensemble import Ensemble, EnsembleSettings, prepare_inputs
from modelling.baselines.features import FeatureSettings
from modelling.baselines.risk_model import ensemble_settings, ensemble_weights
from modelling.baselines.sequence import SequenceSettings
from modelling.batches import EncodingSettings, fit_encoding
from modelling.catalogue import load_catalogue
from modelling.registry.folder import write_folder
from validation.contracts import empty

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def ward(n: int = 160, seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, np.ndarray]:
    """Simulated stays: those who die have a rising heart rate and a high lactate, often not measured."""
    rng = np.random.default_rng(seed)
    y = (np.arange(n) % 4 == 0).astype(int)
    rows = []
    for patient in range(n):
        for hour in range(0, 48, 3):
            rate = 80 + rng.normal() * 6 + y[patient] * hour * 0.5
            rows.append((patient, "heart_rate", float(hour), rate))
        if rng.random() < 0.6:
            rows.append((patient, "lactate", 40.0, 1.5 + y[patient] * 2 + rng.exponential()))
    events = pl.DataFrame(
        [
            {
                "subject_id": patient, "time": NOON - timedelta(hours=48 - hour), "code": code,
                "numeric_value": value, "text_value": None,
                "available_time": NOON - timedelta(hours=48 - hour),
                "encounter_id": f"e{patient}", "source_ref": "x:1", "derived": False,
            }
            for patient, code, hour, value in rows
        ],
        schema=empty("events").schema,
    )  # fmt: skip
    samples = pl.DataFrame(
        {
            "subject_id": range(n), "prediction_time": [NOON] * n, "boolean_value": [None] * n,
            "float_value": [None] * n, "encounter_id": [f"e{k}" for k in range(n)], "task": ["mortality"] * n,
            "lookback_start": [NOON - timedelta(hours=48)] * n,
        },
        schema=empty("samples").schema,
    )  # fmt: skip
    encounters = pl.DataFrame(
        {
            "encounter_id": [f"e{k}" for k in range(n)],
            "subject_id": range(n), "patient_ref": [f"Patient/{k}" for k in range(n)],
            "encounter_ref": [f"Encounter/e{k}" for k in range(n)], "kind": ["icu"] * n,
            "encounter_class": [None] * n, "status": ["in-progress"] * n, "part_of": [None] * n,
            "start": [NOON - timedelta(hours=48)] * n, "end": [None] * n, "ward": ["ICU"] * n,
            "moves": [[]] * n, "birth_date": [date(1950 - k % 30, 1, 1) for k in range(n)],
            "sex": [("male", "female", "unknown")[k % 3] for k in range(n)],
            "admission_source": [None] * n, "source_file": ["x"] * n, "source_line": [1] * n,
        },
        schema=empty("encounters").schema,
    )  # fmt: skip
    return samples, events, encounters, y


CODES = ("heart_rate", "lactate")
CATALOGUE = load_catalogue()
TINY = SequenceSettings(hidden=16, epochs=3, pretrain_epochs=1, batch_size=32)


def write_small_model(folder: Path) -> Ensemble:
    """Train a small ensemble on the simulated ward and write it as a model folder."""
    samples, events, encounters, y = ward()
    settings = EnsembleSettings(
        sequences={"gru": TINY, "transformer": SequenceSettings(**{**vars(TINY), "body": "transformer"})},
        seeds=(0, 1), rounds=25, step_hours=6.0,
    )  # fmt: skip
    ensemble = Ensemble(features=FeatureSettings(codes=CODES), settings=settings)
    inputs = prepare_inputs(samples, events, encounters, ensemble.features)
    ensemble.fit_members(inputs, np.arange(120), y)
    ensemble.fit_stack(ensemble.member_log_odds(inputs), y)
    encoding = fit_encoding(
        samples=samples, encounters=encounters, events=events, recordings=empty("recordings"),
        catalogue=CATALOGUE, settings=EncodingSettings(max_tokens=4096),
    )  # fmt: skip
    write_folder(
        folder,
        weights=ensemble_weights(ensemble),
        config={
            "model": "ensemble", "model_settings": ensemble_settings(ensemble),
            "encoding": encoding.to_dict(),
            "catalogue_digest": CATALOGUE.digest, "task": "in-hospital-mortality", "horizon_hours": None,
            "calibration": {"temperature": 1.0, "shift": 0.0}, "thresholds": [{"level": "low", "from": 0.0}],
        },
        card={"name": "ensemble", "version": "1"},
        metrics={},
    )  # fmt: skip
    return ensemble
