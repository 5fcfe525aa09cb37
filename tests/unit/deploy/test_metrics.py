"""Metrics, health page, dashboard and logs of a run: complete, well-formed, and without patients."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deploy.metrics.exposition import render, run_metrics
from deploy.metrics.health import make_server, read_health
from deploy.metrics.logs import JsonFormatter, configure
from deploy.metrics.textfile import FILE, stage_seconds, write_run_metrics
from fhir_adapter.errors import ContentError

DASHBOARDS = Path(__file__).resolve().parents[3] / "deploy" / "dashboards"
LABEL = r'[a-z_]+="(?:[^"\\\n]|\\\\|\\"|\\n)*"'
SAMPLE = re.compile(rf"(nightingale_[a-z_]+)\{{{LABEL}(?:,{LABEL})*\}} -?\d+(?:\.\d+)?")
SUMMARY: dict[str, Any] = {
    "partition": "2026-01-19",
    "prediction_time": "2026-01-19T04:00:00+00:00",
    "counts": {
        "pulled": 100, "accepted": 97, "quarantined": 3, "eligible": 9, "scored": 4, "skipped": 5,
        "confirmed": 3, "dead_lettered": 1,
    },
    "equations": [{"name": "resources", "holds": True}, {"name": "risk assessments", "holds": False}],
    "gate": {"decision": "pass_with_warnings"},
    "write_back": {"written": 3, "unchanged": 0, "dead_lettered": 1},
    "quarantined_rows_by_reason": {"unit.missing": 2, 'odd"\\\nreason': 1},
    "skipped_by_reason": {"skip.too_young": 5},
    "scores_by_modalities": {"ehr": 3, "ecg + ehr": 1},
}  # fmt: skip


def text_of(**changes: Any) -> str:
    facts: dict[str, Any] = {
        "site": "ward",
        "success": False,
        "started": 1000.0,
        "ended": 1090.5,
        "stages": {"map": 2.5},
    }
    return render(run_metrics(SUMMARY, **{**facts, **changes}))


def test_every_line_is_of_the_exposition_format() -> None:
    lines = text_of().splitlines()
    for line in lines:
        assert line.startswith(("# HELP ", "# TYPE ")) or SAMPLE.fullmatch(line), line
    typed = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(typed) == len(set(typed))


def test_counts_equations_and_times_are_those_of_the_run() -> None:
    text = text_of()
    for line in (
        'nightingale_resources{site="ward",state="quarantined"} 3',
        'nightingale_assessments{site="ward",state="dead_lettered"} 1',
        'nightingale_equation_holds{site="ward",equation="risk assessments"} 0',
        'nightingale_quarantined_rows{site="ward",reason="unit.missing"} 2',
        'nightingale_run_duration_seconds{site="ward"} 90.500',
        'nightingale_stage_seconds{site="ward",stage="map"} 2.500',
        'nightingale_prediction_time_seconds{site="ward"} 1768795200',
        'nightingale_gate_decision{site="ward",decision="pass_with_warnings"} 1',
    ):
        assert line in text.splitlines()


def test_stages_last_from_the_end_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    lines = [
        {"stage": "census", "at": 100.0}, {"stage": "extract", "at": 110.0}, {"stage": "extract", "at": 130.0},
        {"stage": "map", "at": 131.0}, {"stage": "old line"},
    ]  # fmt: skip
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n{half", encoding="utf-8")
    assert stage_seconds(path) == {"census": 0.0, "extract": 30.0, "map": 1.0}
    assert stage_seconds(tmp_path / "none") == {}


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    board = json.loads((DASHBOARDS / "nightingale.json").read_text("utf-8"))
    asked = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"nightingale_[a-z_]+", target["expr"])
    }
    given = set(re.findall(r"^(nightingale_[a-z_]+)\{", text_of(), flags=re.MULTILINE))
    assert asked == given
    places = [tuple(panel["gridPos"].values()) for panel in board["panels"]]
    assert len(places) == len(set(places)) and len({panel["id"] for panel in board["panels"]}) == len(places)


def test_alert_rules_ask_for_metrics_that_exist() -> None:
    rules = yaml.safe_load((DASHBOARDS / "alerts.yaml").read_text("utf-8"))["groups"][0]["rules"]
    given = text_of()
    for rule in rules:
        assert all(name in given for name in re.findall(r"nightingale_[a-z_]+", rule["expr"])), rule["alert"]


@pytest.mark.parametrize(
    ("success", "later", "status", "code"),
    [(True, 60, "ok", 200), (True, 30 * 3600, "late", 503), (False, 60, "failed", 503)],
)
def test_the_health_page_tells_good_from_failed_and_late(
    tmp_path: Path, success: bool, later: float, status: str, code: int
) -> None:
    write_run_metrics(tmp_path, tmp_path, SUMMARY, site="ward", success=success, now=1000.0)
    with make_server(tmp_path, clock=lambda: 1000.0 + later) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_address[1]}"
        health = httpx.get(f"{base}/health", trust_env=False)
        assert (health.status_code, health.json()) == (code, {"status": status, "age_seconds": later})
        assert httpx.get(f"{base}/metrics", trust_env=False).text == (tmp_path / FILE).read_text("utf-8")
        assert httpx.get(f"{base}/../site.toml", trust_env=False).status_code == 404
        server.shutdown()


def test_no_run_yet_is_unknown(tmp_path: Path) -> None:
    assert read_health(tmp_path / FILE, now=0).status == "unknown"
    (tmp_path / FILE).write_text("half", encoding="utf-8")
    assert read_health(tmp_path / FILE, now=0).status == "unknown"


def record(error: Exception) -> dict[str, Any]:
    try:
        raise error
    except Exception:
        info = sys.exc_info()
    line = logging.LogRecord("fhir_adapter.x", logging.ERROR, __file__, 1, "part %s", ("p1",), info)
    return dict(json.loads(JsonFormatter().format(line)))


def test_a_log_line_is_json_and_keeps_foreign_messages_out() -> None:
    fields = record(ValueError("could not parse 'Miller, Anna'"))
    assert fields["message"] == "part p1" and fields["error"] == "builtins.ValueError"
    assert fields["at"] and "Miller" not in json.dumps(fields)
    assert record(ContentError("GET Observation: no JSON"))["error_message"] == "GET Observation: no JSON"


def test_json_logs_are_asked_for_by_the_environment() -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        assert not configure({})
        assert configure({"NIGHTINGALE_LOG": "json"})
        assert isinstance(root.handlers[0].formatter, JsonFormatter)
        assert logging.getLogger("httpx").level == logging.WARNING
    finally:
        root.handlers[:], root.level = before
        logging.captureWarnings(False)
