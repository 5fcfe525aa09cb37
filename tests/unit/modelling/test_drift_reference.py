"""A reference of embeddings neither cries wolf nor sleeps."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl

from modelling.batches import Modality
from modelling.scoring.reference import chosen_samples, reference_embeddings
from validation.contracts import empty
from validation.drift import build_reference, compare_night, embedding_values

WIDTH = 96


def embeddings(n: int, *, shift: float = 0.0, seed: int) -> np.ndarray:
    """Return correlated vectors, wider than there are patients, as an encoder's are."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(12, WIDTH))
    return rng.normal(size=(n, 12)) @ mixing + 4 * rng.normal(size=(n, WIDTH)) + shift * mixing[0]


def compare(night: np.ndarray, reference: np.ndarray) -> pl.DataFrame:
    found = reference_embeddings(Modality.ECG, reference)
    assert found is not None
    values, axes = found
    sketch = build_reference([values], asked=len(reference), axes={"ecg": axes})
    return compare_night(sketch, [embedding_values("ecg", night, axes)], asked=len(night))


def test_new_recordings_of_the_same_devices_are_rarely_drift() -> None:
    """The false discovery rate is 5 %, so one night in twenty is expected to be flagged."""
    nights = [(embeddings(60, seed=1000 + seed), embeddings(90, seed=seed)) for seed in range(20)]
    assert sum(compare(night, reference)["drifted"].any() for night, reference in nights) <= 2


def test_another_device_is() -> None:
    drift = compare(embeddings(80, shift=2.0, seed=5), embeddings(200, seed=6))
    assert drift["drifted"].any()
    assert set(drift["kind"]) == {"embedding"}


def test_too_few_embeddings_are_no_reference() -> None:
    assert reference_embeddings(Modality.CXR, embeddings(39, seed=1)) is None
    assert reference_embeddings(Modality.CXR, np.zeros((0, 0))) is None


def test_one_sample_a_patient_who_has_an_item_is_chosen() -> None:
    moments = [datetime(2026, 1, day, 5, tzinfo=UTC) for day in (18, 19)]
    rows = [
        {"subject_id": subject, "prediction_time": moment, "encounter_id": f"e{subject}", "task": "t"}
        for subject in range(30)
        for moment in moments
    ]
    columns = empty("samples").clear()
    samples = pl.concat([columns, pl.DataFrame(rows)], how="diagonal_relaxed")
    items = pl.DataFrame({"subject_id": [3, 3, 4, 5, 99]})
    chosen = chosen_samples(samples, items, 10)
    assert chosen.select("subject_id", "prediction_time").rows() == [(n, moments[1]) for n in (3, 4, 5)]
    assert chosen_samples(samples, items, 2).height == 2
