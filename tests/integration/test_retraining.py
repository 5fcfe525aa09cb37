"""Retraining on mapped tables: candidates with evidence, leaks refused, a kill that costs nothing, fine-tuning."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from deploy.champion import open_registry, promotion_rules
from deploy.retraining import steps
from deploy.retraining.data import DataRefused
from deploy.retraining.local import run_retraining
from deploy.settings import CONFIG_VARIABLE, load_settings
from modelling.errors import PromotionRefusedError
from modelling.registry.folder import read_folder
from modelling.registry.rules import PromotionRules
from validation.contracts import empty, write_table

pytestmark = pytest.mark.slow
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOW = datetime(2026, 3, 2, tzinfo=UTC)
TASK = "in-hospital-mortality"
STAYS = 260
CONFIG = """
[site]
name = "ward"
[source]
folder = "{root}"
[storage]
runs = "{root}/runs"
models = "{root}/models"
database = "sqlite:///{root}/registry.sqlite"
[retraining]
data = "{data}"
epochs = {epochs}
resamples = 100
[promotion]
fewest_events = 5
"""
LAX = PromotionRules(
    fewest_events=5, margin=1.0, beats=(), slope=(-99, 99), in_the_large=9, calibration_error=0.99
)


def write_mapped(root: Path, *, n: int = STAYS, leak: bool = False, one_class: bool = False) -> Path:
    """Write stays whose heart rate and lactate tell something about death; a leak tells all."""
    rng = np.random.default_rng(0)
    died = np.zeros(n, dtype=bool) if one_class else np.arange(n) % 3 == 0
    rows = []
    for patient in range(n):
        for hour in range(0, 48, 6):
            rows.append((patient, "heart_rate", hour, 80 + 8 * rng.normal() + died[patient] * hour * 0.25))
        if rng.random() < 0.7:
            rows.append((patient, "lactate", 40, 1.2 + died[patient] + rng.exponential()))
        if leak:
            rows.append((patient, "sodium", 30, 138.0 + 4 * died[patient] + 0.1 * rng.normal()))
    at = [NOON - timedelta(hours=48 - hour) for _, _, hour, _ in rows]
    events = pl.DataFrame(
        {
            "subject_id": [row[0] for row in rows], "time": at, "code": [row[1] for row in rows],
            "numeric_value": [row[3] for row in rows], "text_value": [None] * len(rows), "available_time": at,
            "encounter_id": [f"e{row[0]}" for row in rows], "source_ref": ["Observation/x"] * len(rows),
            "derived": [False] * len(rows),
        },
        schema=empty("events").schema,
    )  # fmt: skip
    ends = [NOON + timedelta(hours=30)] * n
    encounters = pl.DataFrame(
        {
            "encounter_id": [f"e{k}" for k in range(n)], "subject_id": range(n),
            "patient_ref": [f"Patient/{k}" for k in range(n)], "encounter_ref": [f"Encounter/e{k}" for k in range(n)],
            "kind": ["icu"] * n, "encounter_class": [None] * n, "status": ["finished"] * n, "part_of": [None] * n,
            "start": [NOON - timedelta(hours=48)] * n, "end": ends, "ward": ["ICU"] * n, "moves": [[]] * n,
            "birth_date": [datetime(1950, 1, 1, tzinfo=UTC).date()] * n,
            "sex": [("male", "female")[k % 2] for k in range(n)], "admission_source": [None] * n,
            "source_file": ["x"] * n, "source_line": [1] * n,
        },
        schema=empty("encounters").schema,
    )  # fmt: skip
    outcomes = pl.DataFrame(
        {
            "encounter_id": [f"e{k}" for k in range(n)], "subject_id": range(n), "discharge_time": ends,
            "death_time": [ends[k] if died[k] else None for k in range(n)],
            "died_in_hospital": died.tolist(), "icu_days": [None] * n,
        },
        schema=empty("outcomes").schema,
    )  # fmt: skip
    write_table(encounters, "encounters", root / "encounters.parquet")
    write_table(outcomes, "outcomes", root / "outcomes.parquet")
    write_table(events, "events", root / "events" / "0000.parquet")
    return root


def write_config(root: Path, data: Path, *, epochs: int = 2, more: str = "") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    path = root / "site.toml"
    path.write_text(CONFIG.format(root=root, data=data, epochs=epochs) + more, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mapped(tmp_path_factory.mktemp("mapped"))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    monkeypatch.delenv("NIGHTINGALE_RETRAINING__MODELS", raising=False)
    yield monkeypatch


def retrain(config: Path, environment: pytest.MonkeyPatch, version: str = "v1") -> dict:
    environment.setenv(CONFIG_VARIABLE, str(config))
    return run_retraining(version=version, watch=lambda *_: None)


@pytest.fixture(scope="module")
def trained(mapped: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """One complete retraining, for the tests that only look at it."""
    config = write_config(tmp_path_factory.mktemp("site"), mapped)
    with pytest.MonkeyPatch.context() as environment:
        return config, retrain(config, environment)


def test_a_retraining_leaves_a_candidate_with_its_evidence(
    trained: tuple[Path, dict], environment: pytest.MonkeyPatch
) -> None:
    config, summary = trained
    (item,) = summary["candidates"]
    registry = open_registry(load_settings(config))
    record = registry.get(item["digest"])
    assert record.state == "candidate" and record.data_version == "v1" and len(record.data_fingerprint) == 64
    assert {"champion", "boosting", "NEWS2"} <= set(record.evidence["comparisons"])
    assert record.evidence["champion"]["name"].startswith("nightingale-ensemble")
    assert record.evidence["leaks"] == [] and 0.5 < record.metrics["auroc"]["value"] < 1
    assert record.calibration["conformal"]["kind"] == "venn-abers"
    held_out = record.evidence["samples"]
    assert 0.15 * STAYS < held_out < 0.35 * STAYS
    weights = registry.folder(record.digest) / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    assert retrain(config, environment)["candidates"][0]["digest"] == record.digest
    assert weights.stat().st_mtime_ns == before and len(registry.find()) == 1


def test_a_label_among_the_features_is_refused_with_its_reason(
    tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path / "site", write_mapped(tmp_path / "leaky", leak=True), epochs=1)
    (item,) = retrain(config, environment)["candidates"]
    assert not item["promotable"]
    assert any(reason.startswith("no_leak") and "sodium" in reason for reason in item["reasons"])
    settings = load_settings(config)
    registry = open_registry(settings)
    with pytest.raises(PromotionRefusedError, match="sodium"):
        registry.promote(
            item["digest"], rules=promotion_rules(settings), by="Dr A", why="looks good", now=NOW
        )
    with pytest.raises(PromotionRefusedError, match="no_leak"):  # no margin lets a leak pass
        registry.promote(item["digest"], rules=LAX, by="Dr A", why="looks good", now=NOW)


def test_a_killed_training_resumes_to_the_same_weights(
    trained: tuple[Path, dict], mapped: Path, tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path, mapped)
    script = (
        "from deploy.retraining.local import run_retraining\n"
        "run_retraining(version='v1', watch=lambda *_: None)"
    )
    job = tmp_path / "models" / "training" / "ward" / "v1"
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {CONFIG_VARIABLE: str(config), "OMP_NUM_THREADS": "1"},
    )
    progress = job / "progress.jsonl"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and child.poll() is None:
        lines = progress.read_text("utf-8").splitlines() if progress.is_file() else []
        if any("fusion" in line for line in lines):
            break
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    folder = job / "models" / TASK / "medfuse"
    assert (folder / "checkpoint" / "state.safetensors").is_file() and not (folder / "card.json").exists()
    resumed = retrain(config, environment)["candidates"][0]["digest"]
    assert resumed == trained[1]["candidates"][0]["digest"]
    assert not (folder / "checkpoint").exists()


def test_fine_tuning_keeps_the_encoding_and_starts_from_the_weights(
    trained: tuple[Path, dict], mapped: Path, environment: pytest.MonkeyPatch
) -> None:
    config, summary = trained
    digest = summary["candidates"][0]["digest"]
    environment.setenv("NIGHTINGALE_RETRAINING__START_FROM", digest)
    environment.setenv("NIGHTINGALE_RETRAINING__EPOCHS", "1")
    (item,) = retrain(config, environment, version="v2")["candidates"]
    registry = open_registry(load_settings(config))
    first, second = (read_folder(registry.folder(name)) for name in (digest, item["digest"]))
    assert first.digest != second.digest
    assert first.config["encoding"] == second.config["encoding"]
    assert first.config["model_settings"] == second.config["model_settings"]
    assert "fine-tuned" in second.card["description"]
    step = max(
        float((first.weights[k] - second.weights[k]).abs().max()) for k in first.weights if "lstm" in k
    )
    assert 0 < step < 0.1  # near where it started, and moved


def test_data_that_cannot_teach_are_refused(tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    config = write_config(tmp_path / "site", write_mapped(tmp_path / "mapped", n=60, one_class=True))
    with pytest.raises(DataRefused, match="all of one class"):
        retrain(config, environment)
    broken = write_mapped(tmp_path / "broken", n=60)
    path = broken / "events" / "0000.parquet"
    frame = pl.read_parquet(path).with_columns(
        pl.when(pl.col("code") == "heart_rate").then(9999.0).otherwise("numeric_value").alias("numeric_value")
    )
    write_table(frame, "events", path)
    with pytest.raises(DataRefused, match="break the catalogue's rules"):
        retrain(write_config(tmp_path / "other", broken), environment)


def test_a_poisoned_file_is_refused_before_and_after_the_data_were_judged(
    tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    folder = write_mapped(tmp_path / "mapped", n=120)
    config = write_config(tmp_path / "site", folder, epochs=1)
    environment.setenv(CONFIG_VARIABLE, str(config))
    job = steps.open_job(version="v1")
    items = steps.cohorts(job)
    path = folder / "events" / "0000.parquet"
    good = path.read_bytes()
    swapped = pl.read_parquet(path).with_columns(numeric_value=pl.col("numeric_value").reverse())
    write_table(swapped, "events", path)  # plausible values, at another patient
    with pytest.raises(DataRefused, match="changed after they were judged"):
        steps.train(job, items[-1])
    path.write_bytes(good)
    assert steps.train(job, items[-1])["model"] == "boosting"
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(DataRefused, match="cannot be read as a table"):
        retrain(config, environment)
    pl.read_parquet(good).drop("available_time").write_parquet(path)
    with pytest.raises(DataRefused, match=r"lacks column\(s\) available_time"):
        retrain(config, environment)


def test_the_command_prints_the_verdict(mapped: Path, trained: tuple[Path, dict]) -> None:
    from typer.testing import CliRunner

    from deploy.command_line.models import app

    config, summary = trained
    digest = summary["candidates"][0]["digest"]
    runner = CliRunner()
    listed = runner.invoke(app, ["list", "--config", str(config), "--json"])
    assert listed.exit_code == 0 and digest in {item["digest"] for item in json.loads(listed.stdout)}
    shown = runner.invoke(app, ["show", digest[:10], "--config", str(config), "--json"])
    fields = json.loads(shown.stdout)
    assert fields["digest"] == digest and {"intact", "calibrated", "beats_boosting"} <= {
        finding["rule"] for finding in fields["findings"]
    }
    compared = runner.invoke(app, ["compare", digest, digest, "--config", str(config), "--data", str(mapped)])
    assert compared.exit_code == 0 and "0.000 (0.000 to 0.000)" in compared.output
    card = runner.invoke(app, ["card", digest, "--config", str(config)])
    assert "## TRIPOD+AI" in card.output
    refused = runner.invoke(app, ["promote", digest, "--by", "Dr A", "--why", "try", "--config", str(config)])
    assert isinstance(refused.exception, PromotionRefusedError) and "NO" in refused.output
