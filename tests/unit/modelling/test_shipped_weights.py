"""What ships with Nightingale: readable, checked, small, and fit for its use."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from simulated_stays import CATALOGUE, ward

from modelling.batches import fit_encoding
from modelling.models import build_model
from modelling.registry.folder import read_folder
from modelling.shipped_weights import ecg
from modelling.shipped_weights.cards import render_card
from modelling.training.config import PRESETS
from validation.contracts import empty

SHIPPED = sorted(path.parent for path in Path(ecg.__file__).parent.glob("*/weights.safetensors"))


def test_something_ships_and_all_of_it_is_a_few_megabytes() -> None:
    assert SHIPPED
    total = sum(file.stat().st_size for folder in SHIPPED for file in folder.iterdir())
    assert total < 8_000_000


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda path: path.name)
def test_a_card_says_what_it_was_trained_on_and_its_limits(folder: Path) -> None:
    found = read_folder(folder)  # checks format and digest
    assert found.card["trained_on"]["samples"] > 0
    assert found.card["limits"]
    assert found.card["metrics"]["out_of_fold"]
    allowed = {".safetensors", ".json", ".png", ".html"}
    assert {file.suffix for file in folder.iterdir() if file.is_file()} <= allowed
    assert {file.name for file in folder.iterdir() if file.is_dir()} <= {"reference"}


def test_the_ecg_encoder_starts_a_small_network() -> None:
    samples, events, encounters, _ = ward(20)
    encoding = fit_encoding(
        samples=samples,
        encounters=encounters,
        events=events,
        recordings=empty("recordings"),
        catalogue=CATALOGUE,
    )
    network = build_model("medfuse", encoding, PRESETS["demo"]["medfuse"]["model"])
    own, shipped = network.state_dict(), ecg.load_signal_weights()
    expected = {name for name in own if name.startswith(ecg.PREFIX)}
    assert set(shipped) == expected
    assert all(shipped[name].shape == own[name].shape for name in expected)
    network.load_state_dict({**own, **shipped})
    assert torch.isfinite(network.eval().embed_signals(torch.randn(2, 12, 640))).all()


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda path: path.name)
def test_the_card_in_the_docs_is_the_card_in_the_folder(folder: Path) -> None:
    page = Path(__file__).parents[3] / "docs" / "model_cards" / f"{folder.name}.md"
    assert page.read_text(encoding="utf-8") == render_card(folder)
