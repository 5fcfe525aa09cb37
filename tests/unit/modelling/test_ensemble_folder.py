"""The stacked ensemble in a model folder: written, refused when changed, scored like any network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from simulated_stays import CATALOGUE, CODES, ward, write_small_model

from modelling.baselines.ensemble import Ensemble
from modelling.batches import fit_encoding
from modelling.errors import CatalogueMismatchError, CheckpointDigestError, TrainingError
from modelling.models import build_model
from modelling.scoring import load_model, score_samples
from validation.contracts import empty


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ensemble]:
    folder = tmp_path_factory.mktemp("model")
    return folder, write_small_model(folder)


def scored(folder: Path, rows: slice = slice(None)) -> tuple[pl.DataFrame, pl.DataFrame]:
    samples, events, encounters, _ = ward()
    return score_samples(
        load_model(folder, device="cpu", catalogue_digest=CATALOGUE.digest), samples=samples[rows],
        encounters=encounters, events=events, recordings=empty("recordings"), images=empty("images"),
        run_folder=folder, site="test",
    )  # fmt: skip


def test_scores_from_batches_are_those_from_tables(trained: tuple[Path, Ensemble]) -> None:
    folder, ensemble = trained
    samples, events, encounters, _ = ward()
    scores, skipped = scored(folder)
    assert skipped.is_empty()
    ours = scores.sort("subject_id")["probability"].to_numpy()
    np.testing.assert_allclose(ours, ensemble.predict(samples, events, encounters), atol=2e-6)


def test_a_score_does_not_depend_on_who_else_is_scored(trained: tuple[Path, Ensemble]) -> None:
    folder, _ = trained
    whole, _ = scored(folder)
    alone, _ = scored(folder, slice(7, 8))
    same = whole.filter(pl.col("subject_id") == 7)
    assert alone["probability"].to_list() == same["probability"].to_list()
    assert alone["top_events"].to_list() == same["top_events"].to_list()


def test_what_moves_a_score_is_named_with_its_source(trained: tuple[Path, Ensemble]) -> None:
    folder, _ = trained
    scores, _ = scored(folder, slice(0, 4))
    first = scores.sort("subject_id").row(0, named=True)
    assert {item["code"] for item in first["top_events"]} <= set(CODES)
    assert first["modalities_present"] == ["ehr"]
    assert first["contributions"][0]["modality"] == "ehr"


def test_another_catalogue_or_a_changed_file_is_refused(
    trained: tuple[Path, Ensemble], tmp_path: Path
) -> None:
    folder, _ = trained
    with pytest.raises(CatalogueMismatchError):
        load_model(folder, device="cpu", catalogue_digest="another")
    for item in folder.iterdir():
        (tmp_path / item.name).write_bytes(item.read_bytes())
    weights = bytearray((tmp_path / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "weights.safetensors").write_bytes(bytes(weights))
    with pytest.raises(CheckpointDigestError):
        load_model(tmp_path, device="cpu", catalogue_digest=CATALOGUE.digest)


def test_the_training_loop_cannot_be_asked_for_an_ensemble() -> None:
    samples, events, encounters, _ = ward(20)
    encoding = fit_encoding(
        samples=samples,
        encounters=encounters,
        events=events,
        recordings=empty("recordings"),
        catalogue=CATALOGUE,
    )
    with pytest.raises(TrainingError, match=r"built by modelling\.shipped_weights"):
        build_model("ensemble", encoding, {})
