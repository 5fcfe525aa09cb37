"""What the papers' released codes get wrong in training, each as an invariant (docs/models.md has the list)."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from synthetic_ward import Ward, catalogue, ward
from test_training import TINY, equal, run, weights

from modelling.batches import fit_encoding, prepare
from modelling.errors import TrainingError
from modelling.models import build_model
from modelling.training import train
from modelling.training.loop import learning_rate_at
from modelling.training.split import HELD_OUT, split_digest, split_subjects
from modelling.training.stages import Material, plan_stages
from modelling.training.targets import Target

SMALL = {
    "medfuse": TINY.model,
    "medm2t": {
        "width": 8, "heads": 2, "static_width": 8, "series_width": 8, "vitals_width": 8, "ecg_width": 8,
        "micro_width": 8, "micro_heads": 2, "image_layers": (1, 1), "image_width": 4,
        "signal_channels": (6, 8), "signal_strides": (4, 4),
    },
    "nightingale": {
        "width": 8, "heads": 2, "inner": 8, "value_width": 4, "fusion_hidden": 8, "micro_width": 8,
        "image_layers": (1, 1), "image_width": 4, "signal_channels": (6, 8), "signal_strides": (4, 4),
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def stays(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    """Some stays lack the EHR, some lack everything."""
    folder = tmp_path_factory.mktemp("defects")
    return ward(folder, n=60, seed=11, pixels=40, values=4, ehr_share=0.6, ecg_share=0.5, image_share=0.5)


def test_every_invariant_that_the_docs_name_is_a_test() -> None:
    tests = Path(__file__).resolve().parents[2]
    named = set(
        re.findall(r"`(test_\w+)`", (tests.parent / "docs" / "models.md").read_text(encoding="utf-8"))
    )
    code = "".join(path.read_text(encoding="utf-8") for path in tests.rglob("test_*.py"))
    assert len(named) > 20
    assert not {name for name in named if f"def {name}(" not in code}


@pytest.mark.slow
def test_no_encoder_and_no_fusion_sees_a_held_out_patient(stays: Ward, tmp_path: Path) -> None:
    """MedM2T 1.7.3 and 1.7.4: encoders of other folds, bins of all data. Here held-out rows move no weight."""
    split = split_subjects(stays.samples, tuning_share=0.2, held_out_share=0.3, seed=1)
    outside = [subject for subject, name in split.items() if name == HELD_OUT]
    mine = pl.col("subject_id").is_in(outside)
    changed = replace(
        stays,
        samples=stays.samples.with_columns(
            pl.when(mine)
            .then(~pl.col("boolean_value"))
            .otherwise(pl.col("boolean_value"))
            .alias("boolean_value")
        ),
        events=stays.events.with_columns(
            pl.when(mine)
            .then(pl.col("numeric_value") * 50)
            .otherwise(pl.col("numeric_value"))
            .alias("numeric_value")
        ),
        recordings=stays.recordings.filter(~mine),
    )
    before, after = (run(ward_, tmp_path / str(k), split=split) for k, ward_ in enumerate((stays, changed)))
    assert equal(weights(before.folder), weights(after.folder))
    assert before.metrics["held_out"] != after.metrics["held_out"]


def test_encoders_of_another_split_are_refused(stays: Ward, tmp_path: Path) -> None:
    first = run(stays, tmp_path / "first", replace(TINY, epochs=0))
    config = json.loads((first.folder / "config.json").read_text())
    split = split_subjects(stays.samples, tuning_share=0.15, held_out_share=0.15, seed=7)
    assert config["split_digest"] == split_digest(split)
    given = {"initial_weights": weights(first.folder), "initial_split": config["split_digest"]}
    same = run(stays, tmp_path / "same", replace(TINY, epochs=0, pretrain_epochs=0), **given)
    assert equal(weights(same.folder), weights(first.folder))
    with pytest.raises(TrainingError, match="trained on another split"):
        run(stays, tmp_path / "other", seed=8, **given)


def test_early_stopping_stops(stays: Ward, tmp_path: Path) -> None:
    """MuFuse 3.2: the released code forgets its best value every epoch, so that it never stops."""
    still = replace(TINY, pretrain_epochs=0, epochs=9, patience=2, learning_rate=0.0)
    found = run(stays, tmp_path, still)
    history = json.loads((found.folder / "metrics.json").read_text())["history"]
    assert [entry["epoch"] for entry in history] == [0, 1, 2]


def _fusion_stage(stays: Ward, **settings):
    encoding = fit_encoding(
        samples=stays.samples, encounters=stays.encounters, events=stays.events,
        recordings=stays.recordings, catalogue=catalogue(), settings=TINY.encoding,
    )  # fmt: skip
    dataset = prepare(**stays.tables(), encoding=encoding)
    model = build_model("medfuse", encoding, TINY.model)
    config = replace(TINY, pretrain_epochs=0, **settings)
    stages = plan_stages(model, Material(train=dataset, tuning=dataset), config, "cpu", model)
    return dataset, stages[-1], config


def test_the_schedule_reaches_the_optimiser(stays: Ward) -> None:
    """MuFuse 3.2: a schedule is configured and never handed to the trainer."""
    _, stage, config = _fusion_stage(stays, schedule="cosine", warmup_steps=2)
    rates = [learning_rate_at(stage, config, step, 12) / config.learning_rate for step in range(12)]
    assert rates[0] == 0.5 and max(rates) == 1.0 and 0.1 <= rates[-1] < 0.2
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_unpaired_stays_are_drawn_without_replacement_and_never_in_evaluation(stays: Ward) -> None:
    """MedFuse 2.4: unpaired rows come by random.randint, with replacement, in the test set too."""
    dataset, stage, _ = _fusion_stage(stays, unimodal_ratio=0.4)
    present = dataset.all.present.numpy()
    alone = np.flatnonzero(present[:, 0] & ~present[:, 1:].any(axis=1))
    draws = [stage.rows(np.random.default_rng(seed)) for seed in range(3)]
    for rows in draws:
        assert len(set(rows.tolist())) == len(rows) == len(dataset) - len(alone) + round(0.4 * len(alone))
        assert set(np.setdiff1d(np.arange(len(dataset)), alone)) <= set(rows.tolist())
    assert len({tuple(rows) for rows in draws}) > 1
    evaluated = torch.cat([batch.sample for batch in dataset.batches(token_budget=500)])
    assert sorted(evaluated.tolist()) == list(range(len(dataset)))


def test_classes_pass_through_one_softmax() -> None:
    """MedM2T 1.7.5: a softmax of a log-softmax at evaluation."""
    target = Target(kind="multiclass", names=("none", "stroke", "failure"))
    outputs = np.array([[1.0, 2.0, 0.5, 99.0], [0.0, 0.0, 0.0, -9.0]])
    expected = torch.softmax(torch.from_numpy(outputs[:, :3]), dim=1).numpy()
    np.testing.assert_allclose(target.answers(outputs), expected)


@pytest.mark.parametrize("model", sorted(SMALL))
def test_any_subset_of_modalities_may_be_missing_in_training(stays: Ward, tmp_path: Path, model: str) -> None:
    """Stays without EHR, with nothing at all, and modalities hidden at random: finite weights, every stay scored."""
    counts = stays.samples.join(stays.events, on="subject_id", how="anti").height
    assert counts > 5
    config = replace(TINY, model=SMALL[model], epochs=1, modality_dropout=0.5, weight_decay=0.01)
    found = train(
        **stays.tables(), catalogue=catalogue(), task="mortality", model=model, config=config, out=tmp_path
    )
    assert all(torch.isfinite(tensor).all() for tensor in weights(found.folder).values())
    assert sum(split["samples"] for split in found.metrics.values()) == 60
    assert all(split["brier"] is not None for split in found.metrics.values())
