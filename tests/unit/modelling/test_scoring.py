"""Scores: every sample ends in one table, the numbers repeat, and a doubtful model is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from synthetic_ward import Ward, catalogue, ward
from test_training import TINY

from modelling.errors import CatalogueMismatchError, CheckpointDigestError, CheckpointFormatError
from modelling.scoring import ScoringModel, load_model, score_key, score_samples
from modelling.training import train
from validation.contracts import write_table
from validation.reasons import Reason


@pytest.fixture(scope="module")
def stays(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    return ward(tmp_path_factory.mktemp("scoring"), n=48, seed=21, pixels=40, values=4, ehr_share=0.9)


@pytest.fixture(scope="module")
def folder(stays: Ward, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "medfuse"
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


def score(model: ScoringModel, stays: Ward, **changes) -> tuple[pl.DataFrame, pl.DataFrame]:
    return score_samples(model, **{**stays.tables(), **changes}, site="ward-1")


def test_every_sample_is_scored_or_skipped_and_fits_its_contract(
    model: ScoringModel, stays: Ward, tmp_path: Path
) -> None:
    scores, skipped = score(model, stays)
    assert scores.height + skipped.height == stays.samples.height
    assert skipped["reason"].to_list() == [str(Reason.SKIP_NO_USABLE_INPUT)] * skipped.height
    write_table(scores, "scores", tmp_path / "scores.parquet")
    write_table(skipped, "skipped", tmp_path / "skipped.parquet")
    assert scores["probability"].n_unique() > 20 and scores["horizon_hours"].unique().to_list() == [48.0]
    assert scores["model_digest"].unique().to_list() == [model.digest] and scores[
        "computed_on"
    ].unique().to_list() == ["cpu"]


def test_the_same_night_twice_and_in_any_order_gives_the_same_numbers(
    model: ScoringModel, stays: Ward
) -> None:
    scores, _ = score(model, stays)
    again = score(model, stays)
    assert_frame_equal(scores, again[0], check_exact=True)
    shuffled = {
        name: getattr(stays, name).sample(fraction=1.0, shuffle=True, seed=5)
        for name in ("samples", "encounters", "events", "recordings", "images")
    }
    assert_frame_equal(scores, score(model, stays, **shuffled)[0], check_exact=True)


def test_a_patients_score_does_not_depend_on_the_others(model: ScoringModel, stays: Ward) -> None:
    scores, _ = score(model, stays)
    for position in (0, 7, 30):
        alone, _ = score(model, stays, samples=stays.samples.slice(position, 1))
        assert_frame_equal(
            alone,
            scores.filter(pl.col("encounter_id") == stays.samples["encounter_id"][position]),
            check_exact=True,
        )


def test_modalities_contributions_and_basis_are_true(model: ScoringModel, stays: Ward) -> None:
    scores, _ = score(model, stays)
    refs = {name: set(getattr(stays, name)["source_ref"]) for name in ("events", "recordings", "images")}
    for row in scores.iter_rows(named=True):
        subject = row["subject_id"]
        has = {
            "ehr": stays.events.filter(pl.col("subject_id") == subject).height > 0,
            "ecg": stays.recordings.filter(pl.col("subject_id") == subject).height > 0,
            "cxr": stays.images.filter(pl.col("subject_id") == subject).height > 0,
        }
        assert row["modalities_present"] == [name for name, there in has.items() if there]
        assert row["modalities_missing"] == [name for name, there in has.items() if not there]
        assert [item["modality"] for item in row["contributions"]] == row["modalities_present"]
        kinds = [next(kind for kind, known in refs.items() if ref in known) for ref in row["basis"]]
        assert kinds == sorted(kinds, key=["recordings", "images", "events"].index)
        assert ("recordings" in kinds) == has["ecg"] and ("images" in kinds) == has["cxr"]
        assert {item["source_ref"] for item in row["top_events"]} <= set(row["basis"])
        own = stays.events.filter(pl.col("subject_id") == subject)
        for item in row["top_events"]:
            assert own.filter(pl.col("source_ref") == item["source_ref"])["code"].to_list() == [item["code"]]
        sizes = [abs(item["weight"]) for item in row["top_events"]]
        assert sizes == sorted(sizes, reverse=True)
    # A contribution is exact: score again without the modality.
    without, _ = score(model, stays, images=stays.images.clear())
    both = scores.filter(pl.col("modalities_present").list.contains("cxr")).join(
        without, on="encounter_id", suffix="_without"
    )
    assert both.height > 5
    for row in both.iter_rows(named=True):
        change = next(item["change"] for item in row["contributions"] if item["modality"] == "cxr")
        assert change == pytest.approx(row["probability"] - row["probability_without"], abs=2e-6)


def test_the_latest_ecg_is_the_one_that_is_read(model: ScoringModel, stays: Ward) -> None:
    scores, _ = score(model, stays)
    several = stays.recordings.group_by("subject_id").len().filter(pl.col("len") > 1)["subject_id"]
    assert several.len() > 0
    for subject in several:
        latest = stays.recordings.filter(pl.col("subject_id") == subject).sort("time")["source_ref"][-1]
        assert scores.filter(pl.col("subject_id") == subject)["basis"].item()[0] == latest


def test_one_poisoned_sample_does_not_stop_the_others(model: ScoringModel, stays: Ward) -> None:
    clean, _ = score(model, stays)
    poisoned, damaged, unknown = (
        clean["encounter_id"][2],
        clean.filter(pl.col("modalities_present").list.contains("ecg"))["encounter_id"][8],
        clean["encounter_id"][9],
    )
    assert len({poisoned, damaged, unknown}) == 3
    subject = clean.filter(pl.col("encounter_id") == damaged)["subject_id"].item()
    events = stays.events.with_columns(
        pl.when(pl.col("encounter_id") == poisoned)
        .then(float("nan"))
        .otherwise(pl.col("numeric_value"))
        .alias("numeric_value")
    )
    recordings = stays.recordings.with_columns(
        pl.when(pl.col("subject_id") == subject)
        .then(pl.lit("arrays/gone.npy"))
        .otherwise(pl.col("array_path"))
        .alias("array_path")
    )
    encounters = stays.encounters.filter(pl.col("encounter_id") != unknown)
    scores, skipped = score(model, stays, events=events, recordings=recordings, encounters=encounters)
    failed = skipped.filter(pl.col("reason") == str(Reason.SKIP_SCORING_FAILED)).sort("encounter_id")
    assert dict(failed.select("encounter_id", "detail").iter_rows()) == {
        poisoned: "NotFinite",
        damaged: "ArrayUnreadableError",
        unknown: "EncounterUnknown",
    }
    assert_frame_equal(
        scores, clean.filter(~pl.col("encounter_id").is_in([poisoned, damaged, unknown])), check_exact=True
    )


def test_a_batch_that_raises_is_tried_sample_by_sample(
    model: ScoringModel, stays: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean, _ = score(model, stays)
    forward = type(model.network).forward
    target = int(np.flatnonzero(stays.samples["encounter_id"].to_numpy() == clean["encounter_id"][3])[0])

    def failing(self, batch):
        if (batch.sample == target).any():
            raise RuntimeError("value of a patient")
        return forward(self, batch)

    monkeypatch.setattr(type(model.network), "forward", failing)
    scores, skipped = score(model, stays)
    row = skipped.filter(pl.col("reason") == str(Reason.SKIP_SCORING_FAILED)).row(0, named=True)
    assert (row["encounter_id"], row["detail"]) == (clean["encounter_id"][3], "RuntimeError")
    assert_frame_equal(scores, clean.filter(pl.col("encounter_id") != row["encounter_id"]), check_exact=True)


def test_a_future_fact_moves_no_score(model: ScoringModel, stays: Ward) -> None:
    clean, _ = score(model, stays)
    later = stays.events.with_columns(
        pl.col("available_time") + timedelta(hours=500),
        (pl.col("numeric_value") * 50).alias("numeric_value"),
        (pl.col("source_ref") + "-late").alias("source_ref"),
    )
    assert_frame_equal(
        clean, score(model, stays, events=pl.concat([stays.events, later]))[0], check_exact=True
    )


def test_an_empty_shard_gives_empty_tables(model: ScoringModel, stays: Ward) -> None:
    scores, skipped = score(model, stays, samples=stays.samples.clear())
    assert scores.height == skipped.height == 0


def copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "copy"))


def refused(folder: Path) -> str:
    with pytest.raises((CheckpointFormatError, CheckpointDigestError)) as caught:
        load_model(folder, catalogue_digest=catalogue().digest)
    return f"{type(caught.value).__name__}: {caught.value}"


def test_a_pickle_is_refused_and_never_run(folder: Path, tmp_path: Path) -> None:
    bad = copy(folder, tmp_path)
    mark = tmp_path / "ran"

    class Attack:
        def __reduce__(self):
            return Path.touch, (mark,)

    (bad / "weights.safetensors").write_bytes(pickle.dumps(Attack()))
    assert refused(bad) == "CheckpointFormatError: weights.safetensors in 'copy' is not a safetensors file"
    (bad / "weights.safetensors").rename(bad / "weights.pt")
    assert "weights.pt is not safetensors and is never loaded" in refused(bad)
    assert not mark.exists()


def test_changed_weights_or_settings_are_refused(folder: Path, tmp_path: Path) -> None:
    bad = copy(folder, tmp_path)
    content = bytearray((bad / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (bad / "weights.safetensors").write_bytes(bytes(content))
    assert refused(bad).startswith(
        "CheckpointDigestError: weights or configuration in 'copy' are not those of its card"
    )
    shutil.copy(folder / "weights.safetensors", bad)
    config = json.loads((bad / "config.json").read_text())
    config["calibration"]["temperature"] = 0.1
    (bad / "config.json").write_text(json.dumps(config))
    assert refused(bad).startswith("CheckpointDigestError")
    (bad / "config.json").write_text("{")
    assert "not JSON" in refused(bad)


def test_another_catalogue_is_refused(folder: Path) -> None:
    with pytest.raises(
        CatalogueMismatchError, match=r"trained with catalogue 000000000000, this is abc; train it again"
    ):
        load_model(folder, catalogue_digest="abc")


def test_weights_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    from modelling.registry import read_folder, write_folder

    read = read_folder(folder)
    some = {name: tensor for name, tensor in read.weights.items() if name != "head.weight"}
    write_folder(tmp_path / "copy", weights=some, config=read.config, card=read.card, metrics={})
    assert "do not fit" in refused(tmp_path / "copy")


def test_a_score_key_names_a_question_for_ever() -> None:
    moment = datetime(2026, 11, 24, 5, tzinfo=UTC)
    names = {"site": "ward", "task": "t", "model_digest": "d", "encounter_id": "e"}
    key = score_key(**names, prediction_time=moment)
    assert key == score_key(**names, prediction_time=moment.astimezone(timezone(timedelta(hours=2))))
    changed = [score_key(**{**names, name: "x"}, prediction_time=moment) for name in names]
    assert len({key, *changed, score_key(**names, prediction_time=moment + timedelta(seconds=1))}) == 6
    with pytest.raises(ValueError, match="zone"):
        score_key(**names, prediction_time=datetime(2026, 1, 1))  # noqa: DTZ001


def test_float64_on_a_cpu(model: ScoringModel) -> None:
    assert model.dtype == torch.float64 and next(model.network.parameters()).dtype == torch.float64
