"""Training: the same call gives the same weights, whatever happens on the way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from synthetic_ward import Ward, catalogue, ward

from modelling.batches import EncodingSettings, ImageSettings, SignalSettings, fit_encoding
from modelling.errors import TrainingError
from modelling.training import TrainingConfig, preset, train
from modelling.training.augment import augment_images
from modelling.training.calibrate import Calibration, fit_calibration, risk_level, risk_thresholds
from modelling.training.losses import binary_loss, focal_loss
from modelling.training.picture_labels import labelled_studies, prepare_pictures
from modelling.training.split import HELD_OUT, TRAIN, TUNING, part, split_subjects

TINY = TrainingConfig(
    epochs=2,
    pretrain_epochs=1,
    batch_size=16,
    learning_rate=1e-3,
    pretrain_learning_rate=1e-3,
    threads=1,
    encoding=EncodingSettings(
        step_hours=4.0,
        min_samples=2,
        image=ImageSettings(size=32, resize=36),
        signal=SignalSettings(length=320),
    ),
    model={
        "hidden": 8,
        "layers": 1,
        "fusion_hidden": 8,
        "image_layers": (1, 1),
        "image_width": 4,
        "signal_channels": (6, 8),
        "signal_strides": (4, 4),
    },
)


@pytest.fixture(scope="module")
def stays(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    return ward(tmp_path_factory.mktemp("training"), n=60, seed=11, pixels=40, values=4)


def run(stays: Ward, out: Path, config: TrainingConfig = TINY, seed: int = 7, **more):
    return train(
        **stays.tables(),
        catalogue=catalogue(),
        task="mortality",
        model="medfuse",
        config=config,
        out=out,
        seed=seed,
        **more,
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights.safetensors")


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_leaves_a_model_folder_and_repeats_by_seed(stays: Ward, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    first = run(stays, tmp_path / "a", progress=lambda *args: seen.append(args))
    names = {path.name for path in first.folder.iterdir()}
    assert names == {"weights.safetensors", "config.json", "card.json", "metrics.json", "curves.png"}
    card = json.loads((first.folder / "card.json").read_text())
    assert card["digest"] == first.digest and card["catalogue_digest"] == catalogue().digest
    assert [item["level"] for item in card["thresholds"]] == ["low", "moderate", "high"]
    assert sum(card["trained_on"]["subjects"].values()) == 60
    assert {stage for stage, _, _ in seen} == {
        "encode",
        "ehr encoder",
        "ecg encoder",
        "cxr encoder",
        "fusion",
    }
    assert all(done <= total for _, done, total in seen)
    shuffled = replace(
        stays,
        **{
            name: getattr(stays, name).sample(fraction=1.0, shuffle=True, seed=2)
            for name in ("samples", "encounters", "events", "recordings", "images")
        },
    )
    second = run(shuffled, tmp_path / "b")
    assert second.digest == first.digest and equal(weights(first.folder), weights(second.folder))
    assert run(stays, tmp_path / "c", seed=8).digest != first.digest


class Killed(Exception):
    """Stands for kill -9: nothing after it runs."""


@pytest.mark.parametrize("stage", ["ecg encoder", "fusion"])
def test_a_killed_run_resumes_to_the_same_weights(stays: Ward, tmp_path: Path, stage: str) -> None:
    whole = run(stays, tmp_path / "whole")
    calls = 0

    def watch(name: str, done: int, total: int) -> None:
        nonlocal calls
        if name == stage and (done > total // 2 or stage != "fusion"):
            calls += 1
            if calls == 2:
                raise Killed

    with pytest.raises(Killed):
        run(stays, tmp_path / "cut", progress=watch)
    assert (tmp_path / "cut" / "checkpoint" / "state.safetensors").is_file()
    assert not (tmp_path / "cut" / "card.json").exists()
    stages: list[str] = []
    resumed = run(stays, tmp_path / "cut", progress=lambda name, *_: stages.append(name))
    assert stages.count("ehr encoder") <= 1  # it did resume: that stage says that it is over, no more
    assert resumed.digest == whole.digest and equal(weights(whole.folder), weights(resumed.folder))
    assert not (tmp_path / "cut" / "checkpoint").exists()


def test_a_checkpoint_of_another_run_is_not_resumed(stays: Ward, tmp_path: Path) -> None:
    def watch(name: str, done: int, total: int) -> None:
        if name == "fusion":
            raise Killed

    with pytest.raises(Killed):
        run(stays, tmp_path / "cut", progress=watch)
    other = replace(TINY, learning_rate=2e-3)
    assert run(stays, tmp_path / "cut", other).digest == run(stays, tmp_path / "clean", other).digest


def test_accumulated_gradients_are_the_whole_batchs(stays: Ward, tmp_path: Path) -> None:
    """Without BatchNorm and dropout, cutting a batch into micro-batches changes rounding only."""
    plain = replace(stays, recordings=stays.recordings.clear(), images=stays.images.clear())
    base = replace(TINY, pretrain_epochs=0, model={**TINY.model, "dropout": 0.0})
    one, four = (run(plain, tmp_path / str(cuts), replace(base, accumulation=cuts)).folder for cuts in (1, 4))
    for name, tensor in weights(one).items():
        assert torch.allclose(tensor, weights(four)[name], atol=2e-5), name


def test_classes_and_several_labels_are_learnt(stays: Ward, tmp_path: Path) -> None:
    config = replace(TINY, model={**TINY.model, "modalities": ("ehr",)})
    classes = replace(
        stays,
        samples=stays.samples.with_columns(
            boolean_value=pl.lit(None, pl.Boolean), float_value=(pl.col("subject_id") % 3).cast(pl.Float64)
        ),
    )
    found = run(
        classes, tmp_path / "classes", config, kind="multiclass", classes=("none", "stroke", "failure")
    )
    assert set(found.metrics["train"]["outputs"]) == {"none", "stroke", "failure"}
    assert weights(found.folder)["head.weight"].shape[0] == 3 and found.card["thresholds"] == []
    assert 0 <= found.metrics["train"]["auroc"] <= 1
    labels = stays.samples.select(
        "encounter_id",
        "prediction_time",
        shock="boolean_value",
        well=~pl.col("boolean_value"),
        never=pl.lit(value=False),
    )
    several = run(stays, tmp_path / "labels", config, kind="multilabel", labels=labels)
    one, other = (several.metrics["train"]["outputs"][name] for name in ("shock", "well"))
    assert set(several.metrics["train"]["outputs"]) == {"shock", "well"}
    assert one["events"] + other["events"] == several.metrics["train"]["samples"]
    with pytest.raises(TrainingError, match="needs a table of labels"):
        run(stays, tmp_path / "x", config, kind="multilabel")
    with pytest.raises(TrainingError, match="no kind of task 'riddle'"):
        run(stays, tmp_path / "x", config, kind="riddle")


def test_early_fusion_trains_on_top_of_frozen_encoders(stays: Ward, tmp_path: Path) -> None:
    early = replace(TINY, model={**TINY.model, "fusion": "early"})
    before, after = (
        weights(run(stays, tmp_path / str(epochs), replace(early, epochs=epochs)).folder) for epochs in (0, 2)
    )
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head", "absent"}


def said_of(images: pl.DataFrame) -> pl.DataFrame:
    """Radiologists' words on every study: cardiomegaly in every third, affirmed, denied or doubted."""
    number = pl.int_range(pl.len())
    return images.select(
        "subject_id",
        "study_uid",
        label=pl.when(number % 2 == 0).then(pl.lit("Cardiomegaly")).otherwise(pl.lit("Edema")),
        mention=pl.when(number % 3 == 0)
        .then(pl.lit("positive"))
        .when(number % 3 == 1)
        .then(pl.lit("negative"))
        .otherwise(pl.lit("uncertain")),
    )


def test_image_labels_are_one_where_affirmed_and_never_those_of_other_splits(stays: Ward) -> None:
    said = said_of(stays.images)
    samples, values, names = labelled_studies(stays.images, said)
    assert names == ("Cardiomegaly", "Edema") and samples.height == stays.images.height
    affirmed = said.filter(pl.col("mention") == "positive").group_by("label").len().sort("label")
    assert values.sum(axis=0).tolist() == affirmed["len"].to_list()
    subjects = stays.images["subject_id"].unique().sort().to_list()
    split = {subject: (TUNING, HELD_OUT, TRAIN)[k % 3] for k, subject in enumerate(subjects[:30])}
    encoding = fit_encoding(
        samples=stays.samples, encounters=stays.encounters, events=stays.events,
        recordings=stays.recordings, catalogue=catalogue(), settings=TINY.encoding,
    )  # fmt: skip
    pictures = prepare_pictures(
        stays.images, said, split=split, encounters=stays.encounters, run_folder=stays.run_folder,
        encoding=encoding,
    )  # fmt: skip
    left = [s for s in subjects if split.get(s) not in (TUNING, HELD_OUT)]
    assert len(pictures.train) == samples.filter(pl.col("subject_id").is_in(left)).height
    assert len(pictures.tuning) == sum(name == TUNING for name in split.values())
    with pytest.raises(TrainingError, match="both images and labels"):
        labelled_studies(stays.images, said.with_columns(study_uid=pl.lit("other")))


def test_the_image_encoder_is_trained_on_labels_before_the_task(stays: Ward, tmp_path: Path) -> None:
    seen: list[str] = []
    found = run(
        stays,
        tmp_path,
        image_labels=said_of(stays.images),
        progress=lambda name, *_: seen.append(name),
    )
    order = [stage for stage in dict.fromkeys(seen) if stage != "encode"]
    assert order == ["image labels", "ehr encoder", "ecg encoder", "fusion"]
    assert weights(found.folder)["picture_head.weight"].shape[0] == 2
    with pytest.raises(TrainingError, match="no setting image_labels"):
        train(
            **stays.tables(), catalogue=catalogue(), task="t", model="mufuse", config={"threads": 1},
            out=tmp_path / "x", image_labels=said_of(stays.images),
        )  # fmt: skip


def test_splits_are_by_patient_and_stratified() -> None:
    samples = pl.DataFrame(
        {"subject_id": np.repeat(np.arange(200), 3), "boolean_value": np.repeat(np.arange(200) % 5 == 0, 3)}
    )
    split = split_subjects(samples, tuning_share=0.2, held_out_share=0.2, seed=1)
    parts = {name: part(samples, split, name) for name in (TRAIN, TUNING, HELD_OUT)}
    subjects = [set(frame["subject_id"]) for frame in parts.values()]
    assert (
        not subjects[0] & subjects[1] and not subjects[0] & subjects[2] and len(set.union(*subjects)) == 200
    )
    assert all(frame["boolean_value"].mean() == pytest.approx(0.2, abs=0.01) for frame in parts.values())
    assert split == split_subjects(
        samples.sample(fraction=1.0, shuffle=True), tuning_share=0.2, held_out_share=0.2, seed=1
    )
    with pytest.raises(TrainingError, match="too few"):
        split_subjects(samples.head(3), tuning_share=0.2, held_out_share=0.2, seed=1)


@given(st.floats(-12, 12), st.booleans())
@settings(max_examples=80, deadline=None)
def test_focal_loss_is_its_definition(logit: float, positive: bool) -> None:
    x, y = torch.tensor([logit], dtype=torch.float64), torch.tensor([float(positive)], dtype=torch.float64)
    p = torch.sigmoid(x) if positive else 1 - torch.sigmoid(x)
    expected = -0.5 * (1 - p) ** 2 * torch.log(p)
    assert focal_loss(x, y).item() == pytest.approx(expected.item(), rel=1e-6, abs=1e-12)
    assert focal_loss(x, y, gamma=0.0).item() * 2 == pytest.approx(
        binary_loss(x, y).item(), rel=1e-9, abs=1e-12
    )


def test_focal_loss_and_its_gradient_are_finite_for_certain_logits() -> None:
    """The released code takes the logarithm of probabilities that round to 0 (models.md 3.1)."""
    x = torch.tensor([-1e4, 1e4, -200.0, 200.0], requires_grad=True)
    loss = focal_loss(x, torch.tensor([1.0, 0.0, 0.0, 1.0]))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(x.grad).all() and x.grad[0] < 0 < x.grad[1]


def test_calibration_recovers_a_known_distortion() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(-1, 1.5, 20000)
    labels = (rng.random(20000) < 1 / (1 + np.exp(-truth))).astype(float)
    found = fit_calibration(3.0 * (truth + 0.5), labels)
    assert found.temperature == pytest.approx(3.0, rel=0.06) and found.shift == pytest.approx(-0.5, abs=0.08)
    few = fit_calibration(3.0 * truth[:60], labels[:60])
    assert few.shift == 0.0 and few.temperature > 1.0
    assert fit_calibration(truth, np.zeros(20000)) == Calibration()


def test_risk_levels_follow_the_alert_budget() -> None:
    p = np.linspace(0, 1, 1001)
    thresholds = risk_thresholds(p)
    levels = [risk_level(float(value), thresholds) for value in p]
    assert levels.count("high") == pytest.approx(101, abs=1) and levels.count("moderate") == pytest.approx(
        200, abs=1
    )
    same = risk_thresholds(np.full(10, 0.3))
    assert same[1]["from"] < same[2]["from"] and risk_level(0.3, []) is None


def test_augmented_images_keep_their_shape_and_range() -> None:
    images = torch.randint(0, 255, (6, 1, 32, 32), dtype=torch.uint8)
    one = augment_images(images, torch.Generator().manual_seed(3))
    assert one.shape == images.shape and one.min() >= 0 and one.max() <= 255
    assert torch.equal(one, augment_images(images, torch.Generator().manual_seed(3)))
    assert not torch.equal(one, images.float())


def test_settings_are_checked(stays: Ward, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no setting bogus"):
        TrainingConfig.from_dict({"bogus": 1})
    with pytest.raises(TrainingError, match="no preset 'x'"):
        preset("x", "medfuse")
    with pytest.raises(TrainingError, match="no model 'x'"):
        train(**stays.tables(), catalogue=catalogue(), task="t", model="x", config=TINY, out=tmp_path)
    with pytest.raises(TrainingError, match="has no setting wings"):
        run(stays, tmp_path, replace(TINY, model={"wings": 2}))
    unlabelled = replace(
        stays, samples=stays.samples.with_columns(boolean_value=pl.lit(None, dtype=pl.Boolean))
    )
    with pytest.raises(TrainingError, match="no sample has a label"):
        run(unlabelled, tmp_path)
