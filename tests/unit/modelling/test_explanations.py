"""Explanations: contributions add up to the score, and they are the model's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from synthetic_ward import Ward, catalogue, ward
from test_training import TINY

from modelling.batches import Batch, Modality, prepare
from modelling.models import build_model
from modelling.registry.folder import read_folder
from modelling.scoring import ScoringModel, load_model, score_samples
from modelling.scoring.explain import feature_contributions, modality_contributions, probabilities
from modelling.training import train


@pytest.fixture(scope="module")
def stays(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    return ward(tmp_path_factory.mktemp("explained"), n=48, seed=5, pixels=40, values=4, ehr_share=0.9)


@pytest.fixture(scope="module")
def folder(stays: Ward, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("explained-model") / "medfuse"
    train(
        **stays.tables(),
        catalogue=catalogue(),
        task="mortality",
        model="medfuse",
        config=TINY,
        out=out,
        seed=3,
        horizon_hours=48.0,
    )
    return out


@pytest.fixture(scope="module")
def model(folder: Path) -> ScoringModel:
    return load_model(folder, device="cpu", catalogue_digest=catalogue().digest)


@pytest.fixture(scope="module")
def batch(stays: Ward, model: ScoringModel) -> Batch:
    dataset = prepare(**stays.tables(), encoding=model.encoding)
    whole = dataset.batch(np.arange(len(dataset))).to("cpu", model.dtype)
    with torch.inference_mode():
        return model.network.embedded(whole)


def explained(model: ScoringModel, batch: Batch, budget: int = 4096) -> list[dict[int, float]]:
    with torch.inference_mode():
        found = feature_contributions(model, batch, probabilities(model, batch), token_budget=budget)
    return [{int(batch.feature[token]): share for share, token in row} for row in found]


def test_shares_of_the_features_add_up_to_the_contribution_of_the_record(
    model: ScoringModel, batch: Batch
) -> None:
    with torch.inference_mode():
        p = probabilities(model, batch)
        whole = modality_contributions(model, batch, p)[:, 0]
        nothing = probabilities(model, batch.without(Modality.EHR))
    shares = explained(model, batch)
    known = batch.present[:, 0].numpy()
    assert 30 < known.sum() < len(batch)
    for row, parts in enumerate(shares):
        if known[row]:
            assert len(parts) > 1 and sum(parts.values()) == pytest.approx(p[row] - nothing[row], abs=1e-12)
            assert sum(parts.values()) == pytest.approx(whole[row], abs=1e-12)
        else:
            assert parts == {}


def test_every_feature_of_a_sample_is_named_by_its_latest_value(model: ScoringModel, batch: Batch) -> None:
    with torch.inference_mode():
        found = feature_contributions(model, batch, probabilities(model, batch), token_budget=4096)
    for row, parts in enumerate(found):
        own = slice(int(batch.token_offsets[row]), int(batch.token_offsets[row + 1]))
        present = set(batch.feature[own].tolist()) if batch.present[row, 0] else set()
        assert {int(batch.feature[token]) for _, token in parts} == present
        for _, token in parts:
            same = [k for k in range(own.start, own.stop) if batch.feature[k] == batch.feature[token]]
            assert token == max(same)


def test_a_share_depends_neither_on_batch_mates_nor_on_the_budget(model: ScoringModel, batch: Batch) -> None:
    whole, small = explained(model, batch), explained(model, batch, budget=1)
    for row in (0, 7, 20):
        alone = explained(model, batch.take(torch.tensor([row])))[0]
        for other in (whole[row], small[row]):
            assert alone.keys() == other.keys()
            assert list(alone.values()) == pytest.approx(list(other.values()), abs=1e-9)


def test_random_weights_give_other_explanations(model: ScoringModel, batch: Batch, folder: Path) -> None:
    """The model randomisation test of Adebayo et al., NeurIPS 2018."""
    config = read_folder(folder).config
    torch.manual_seed(99)
    network = build_model(config["model"], model.encoding, config["model_settings"])
    network = network.to(dtype=model.dtype).eval()
    with torch.inference_mode():
        random = explained(replace(model, network=network), batch)
    again = explained(model, batch)
    trained = explained(model, batch)

    def agreement(one: list[dict[int, float]], two: list[dict[int, float]]) -> float:
        """Return the rank correlation over all samples and features that move either model."""
        pairs = [(a[key], b[key]) for a, b in zip(one, two, strict=True) for key in a if a[key] or b[key]]
        assert len(pairs) > 100
        return float(spearmanr(*zip(*pairs, strict=True)).statistic)

    assert agreement(trained, again) == pytest.approx(1.0)
    assert agreement(trained, random) < 0.5


def test_top_events_point_to_resources_of_the_patient(model: ScoringModel, stays: Ward) -> None:
    scores, _ = score_samples(model, **stays.tables(), site="ward-1")
    by_subject = {
        subject: set(rows["source_ref"]) for (subject,), rows in stays.events.group_by("subject_id")
    }
    named = 0
    for row in scores.iter_rows(named=True):
        for item in row["top_events"]:
            assert item["source_ref"] in by_subject[row["subject_id"]]
            named += 1
    assert named > 100
