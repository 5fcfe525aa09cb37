"""``nightingale train``: run folders, kill -9, searches, seeds, every kind of task."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from mapped_folder import write_mapped
from safetensors.torch import load_file
from typer.testing import CliRunner

from deploy.command_line.training import app, read_settings
from modelling.catalogue import load_catalogue
from modelling.errors import CheckpointFormatError, TrainingError
from modelling.scoring import load_model
from modelling.training.search import RANGE

TASK = "in-hospital-mortality"
SMALL = {
    "epochs": 3,
    "pretrain_epochs": 0,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "threads": 1,
    "encoding": {"token_window_hours": 6.0},
    "model": {"width": 8, "inner": 8, "value_width": 8},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mapped")
    write_mapped(folder, n=120)
    (folder / "small.json").write_text(json.dumps(SMALL))
    return folder


def arguments(data: Path, out: Path, *more: str, task: str = TASK) -> list[str]:
    given = ["--task", task, "--model", "mufuse", "--data", data, "--out", out]
    return [str(item) for item in (*given, "--settings", data / "small.json", "--device", "cpu", *more)]


def test_a_run_folder_can_be_scored_with(data: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, arguments(data, tmp_path / "run", "--json"))
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["metrics"]["held_out"]["auroc"] > 0.7
    model = load_model(tmp_path / "run", device="cpu", catalogue_digest=load_catalogue().digest)
    assert model.digest == printed["digest"] and model.task == TASK
    assert (tmp_path / "run" / "curves.png").stat().st_size > 1000


def test_a_run_starts_from_another_only_with_the_same_test_patients(data: Path, tmp_path: Path) -> None:
    first = CliRunner().invoke(app, arguments(data, tmp_path / "first"))
    assert first.exit_code == 0, first.output
    more = ("--start-from", str(tmp_path / "first"), "--set", "epochs=0")
    again = CliRunner().invoke(app, arguments(data, tmp_path / "again", *more))
    assert again.exit_code == 0, again.output
    one, two = (load_file(tmp_path / name / "weights.safetensors") for name in ("first", "again"))
    assert all((one[name] == two[name]).all() for name in one)
    refused = CliRunner().invoke(app, arguments(data, tmp_path / "x", *more, "--seed", "1"))
    assert refused.exit_code == 1 and "trained on another split" in refused.stderr
    allowed = CliRunner().invoke(
        app, arguments(data, tmp_path / "y", *more, "--seed", "1", "--other-patients")
    )
    assert allowed.exit_code == 0, allowed.output


@pytest.mark.slow
def test_after_kill_9_the_same_command_ends_with_the_same_weights(data: Path, tmp_path: Path) -> None:
    more = ("--set", "epochs=16", "--set", "patience=16", "--set", "batch_size=4", "--json")
    whole = CliRunner().invoke(app, arguments(data, tmp_path / "whole", *more))
    assert whole.exit_code == 0, whole.output
    command = [
        sys.executable,
        "-m",
        "deploy.command_line.training",
        *arguments(data, tmp_path / "cut", *more),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    checkpoint = tmp_path / "cut" / "checkpoint" / "state.safetensors"
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 600
        while not checkpoint.is_file() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert not (tmp_path / "cut" / "card.json").exists()
    held = load_file(checkpoint)
    assert any(name.startswith("optimiser.") for name in held)
    again = CliRunner().invoke(app, arguments(data, tmp_path / "cut", *more))
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["digest"] == json.loads(whole.stdout)["digest"]
    assert not checkpoint.exists()


def test_a_search_keeps_the_best_rate_and_goes_on_where_it_was(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "search"
    more = ("--set", "epochs=1", "--search", "3", "--json")
    first = CliRunner().invoke(app, arguments(data, out, *more))
    assert first.exit_code == 0, first.output
    found = json.loads((out / "search.json").read_text())
    scores = [entry["tuning"]["average_precision"] for entry in found["tried"]]
    assert len(scores) == 3 and scores[found["chosen"]] == max(scores)
    rates = [entry["learning_rate"] for entry in found["tried"]]
    assert all(RANGE[0] <= rate <= RANGE[1] for rate in rates) and len(set(rates)) == 3
    trained = json.loads((out / "config.json").read_text())["training"]
    assert trained["learning_rate"] == rates[found["chosen"]] and not (out / "search").exists()
    # A search that was killed after its first candidate: that one is read, not trained again.
    half = tmp_path / "half"
    kept = half / "search" / f"{found['chosen']:02d}"
    kept.mkdir(parents=True)
    for path in out.iterdir():
        (kept / path.name).write_bytes(path.read_bytes())
    (kept / "curves.png").write_bytes(b"untouched")
    second = CliRunner().invoke(app, arguments(data, half, *more))
    assert json.loads(second.stdout)["digest"] == json.loads(first.stdout)["digest"]
    assert (half / "curves.png").read_bytes() == b"untouched"


def test_seeds_have_folders_of_their_own(data: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, arguments(data, tmp_path, "--seeds", "2", "--seed", "5"))
    assert result.exit_code == 0, result.output
    digests = {json.loads((tmp_path / f"seed-{seed}" / "card.json").read_text())["digest"] for seed in (5, 6)}
    assert len(digests) == 2 and "average_precision" in result.stdout


def test_lengths_of_stay_are_learnt_in_days_and_beside_another_task(data: Path, tmp_path: Path) -> None:
    task = "icu-length-of-stay"
    samples = pl.DataFrame(
        [(k, f"e{k}") for k in range(120)],
        schema={"subject_id": pl.Int64, "encounter_id": pl.String},
        orient="row",
    )
    encounters = pl.read_parquet(data / "encounters.parquet")
    rows = samples.join(encounters.select("encounter_id", "start"), on="encounter_id").select(
        "subject_id",
        prediction_time=pl.col("start").dt.offset_by("48h"),
        boolean_value=pl.lit(None, pl.Boolean),
        float_value=3.0 + 4.0 * (pl.col("subject_id") % 4 == 0),  # those who die stay long
        encounter_id="encounter_id",
        task=pl.lit(task),
        lookback_start="start",
    )
    folder = tmp_path / "data"
    folder.mkdir()
    for path in data.glob("*.parquet"):
        (folder / path.name).symlink_to(path)
    (folder / "events").symlink_to(data / "events")
    (folder / "small.json").symlink_to(data / "small.json")
    rows.write_parquet(folder / "samples.parquet")
    given = arguments(folder, tmp_path / "run", "--set", "epochs=12", "--json", task=task)
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    held_out = json.loads(result.stdout)["metrics"]["held_out"]
    assert 0 < held_out["mae"] < 1.5  # the mean alone is 1.5 days off
    target = json.loads((tmp_path / "run" / "config.json").read_text())["target"]
    assert target["kind"] == "regression" and target["mean"] == pytest.approx(4.0, abs=0.2)
    with pytest.raises(CheckpointFormatError, match="answers a regression task"):
        load_model(tmp_path / "run", device="cpu", catalogue_digest=load_catalogue().digest)
    both = CliRunner().invoke(app, arguments(folder, tmp_path / "both", "--also", task))
    assert both.exit_code == 0, both.output
    assert load_file(tmp_path / "both" / "weights.safetensors")["head.out.weight"].shape[0] == 2
    assert load_model(tmp_path / "both", device="cpu", catalogue_digest=load_catalogue().digest).task == TASK
    refused = CliRunner().invoke(app, arguments(folder, tmp_path / "x", "--also", "phenotyping"))
    assert refused.exit_code == 1 and "answers yes or no" in refused.stderr


def test_wrong_requests_end_with_a_sentence(data: Path, tmp_path: Path) -> None:
    for more, message in (
        (("--preset", "x"), "no preset 'x'"),
        (("--set", "bogus=1"), "no setting bogus"),
        (("--set", "epochs"), "is not name=value"),
        (("--start-from", str(data)), "lacks"),
    ):
        result = CliRunner().invoke(app, arguments(data, tmp_path / "x", *more))
        assert result.exit_code == 1 and message in result.stderr, result.output
    unknown = CliRunner().invoke(app, arguments(data, tmp_path / "x", task="soothsaying"))
    assert unknown.exit_code == 1 and "no task 'soothsaying'" in unknown.stderr
    assert not list(tmp_path.glob("x/card.json"))


def test_settings_come_from_preset_file_and_changes_in_that_order(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"epochs": 9, "model": {"width": 96}}))
    found = read_settings("mufuse", "demo", file, ["model.heads=3", "loss=focal", "encoding.step_hours=2"])
    assert (found.epochs, found.batch_size, found.loss) == (9, 32, "focal")
    assert found.model["width"] == 96 and found.model["heads"] == 3 and found.model["inner"] == 64
    assert found.encoding.step_hours == 2
    file.write_text("{")
    with pytest.raises(TrainingError, match="no settings in JSON"):
        read_settings("mufuse", None, file, [])
