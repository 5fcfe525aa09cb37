"""The whole DAG over the demo hospital: real Airflow, trained model, files in and files out."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from deploy.command_line.app import build
from deploy.demo.run import DemoResult
from fhir_adapter.write_back.checks import problems

pytestmark = [pytest.mark.airflow, pytest.mark.slow]


def written(result: DemoResult, kind: str = "RiskAssessment") -> list[dict]:
    folder = Path(result.summary["write_back"]["location"])
    (path,) = folder.glob(f"{kind}.*.ndjson")
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_the_night_ends_in_order(first_night: DemoResult) -> None:
    assert first_night.failures == []
    counts = first_night.summary["counts"]
    assert all(item["holds"] for item in first_night.summary["equations"])
    assert counts["pulled"] > 5_000 and counts["scored"] > 15 and counts["skipped"] > 0
    assert counts["confirmed"] == counts["scored"] and counts["dead_lettered"] == 0
    assert first_night.summary["gate"]["decision"] in {"pass", "pass_with_warnings"}


def test_every_score_is_written_once_and_is_a_sound_resource(first_night: DemoResult) -> None:
    scores = pl.concat(
        [pl.read_parquet(path) for path in sorted(first_night.run.path.glob("scores/*.parquet"))]
    )
    resources = written(first_night)
    assert [problems(item) for item in resources] == [[]] * scores.height
    assert {item["id"] for item in resources} == set(scores["score_key"])
    by_id = {item["id"]: item["prediction"][0]["probabilityDecimal"] for item in resources}
    for key, probability in scores.select("score_key", "probability").iter_rows():
        assert by_id[key] == pytest.approx(probability, abs=1e-4)
    assert scores["probability"].n_unique() > scores.height / 2, (
        "a model that was trained tells patients apart"
    )
    assert first_night.summary["scores_by_modalities"].keys() >= {"ehr"}
    assert any("ecg" in name for name in first_night.summary["scores_by_modalities"])
    assert any("cxr" in name for name in first_night.summary["scores_by_modalities"])


def test_every_planted_fault_is_refused_with_its_reason(first_night: DemoResult, demo_root: Path) -> None:
    planted = Counter(item["reason"] for item in json.loads((demo_root / "tonight/faults.json").read_text()))
    refused = first_night.summary["quarantined_rows_by_reason"]
    assert planted
    missed = {reason: n for reason, n in planted.items() if refused.get(reason, 0) < n}
    assert missed == {}


def test_the_report_opens_from_disk_and_shows_the_night(first_night: DemoResult) -> None:
    page = Path(first_night.summary["report"]).read_text("utf-8")
    assert "<svg" in page and "Synthetic data" in page
    assert "http://" not in page.replace("http://www.w3.org/", ""), "nothing is loaded from elsewhere"


def test_the_same_night_again_changes_nothing(
    first_night: DemoResult, run_night: Callable[..., DemoResult]
) -> None:
    folder = Path(first_night.summary["write_back"]["location"])
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    again = run_night()
    assert again.failures == [] and not again.trained
    assert again.summary["counts"] == first_night.summary["counts"]
    assert again.summary["write_back"]["written"] == 0
    assert again.summary["write_back"]["unchanged"] == again.summary["counts"]["scored"]
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    assert after == before


def test_a_flood_of_bad_input_stops_at_the_gate_and_writes_nothing(
    first_night: DemoResult, tmp_path: Path
) -> None:
    shutil.copytree(first_night.model, tmp_path / "models" / first_night.model.name)
    answer = CliRunner().invoke(
        build(), ["demo", "--flood", "--root", str(tmp_path), "--patients", "24"], catch_exceptions=False
    )
    assert answer.exit_code == 1
    assert "NOT IN ORDER: the gate stopped the night" in answer.output
    assert not (tmp_path / "written").exists()
    summary = json.loads(next(tmp_path.glob("runs/demo-folder/*/summary.json")).read_text("utf-8"))
    assert all(item["holds"] for item in summary["equations"])
    assert set(summary["skipped_by_reason"]) >= {"skip.gate_stopped"}
