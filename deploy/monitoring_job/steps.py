"""Monitoring as plain functions of JSON values: what a DAG task or the command line calls."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from deploy.night.run import Run
from deploy.settings import load_settings

JobFields = dict[str, Any]
FOLDER = "monitoring"
KEPT_TABLES = "labelled.parquet"
log = logging.getLogger(__name__)


def open_job(*, day: str | None) -> JobFields:
    """Name the monitoring run after its day and make its empty folder beside the nights."""
    settings = load_settings()
    moment = datetime.now(UTC)
    name = day or moment.date().isoformat()
    folder = (settings.storage.runs / settings.site.name / FOLDER / name).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    run = Run(partition=name, prediction_time=None, replay=None, folder=str(folder))
    return {"run": run.to_dict(), "moment": moment.isoformat()}


def join_outcomes(job: JobFields) -> dict[str, int]:
    """Take a census of now and join it to the scores of past nights; return counts."""
    from deploy.monitoring_job.reading import past_scores, take_outcomes
    from modelling.cohorts.tasks import get_task
    from modelling.monitoring.outcomes import label_scores

    settings, run = load_settings(), Run.from_dict(job["run"])
    census = take_outcomes(settings, run)
    try:
        labelled = label_scores(
            past_scores(settings), census.encounters, census.outcomes, task=get_task(settings.night.task)
        )
        labelled.write_parquet(run.path / KEPT_TABLES)
    finally:
        shutil.rmtree(run.path / "downloads", ignore_errors=True)
    return {"scores": labelled.height, "known": labelled.height - labelled["label"].null_count()}


def measure(job: JobFields) -> dict[str, Any]:
    """Measure every model and window, ask the alarm rules, and write ``summary.json``; aggregates only."""
    import polars as pl

    from deploy.champion import open_registry
    from modelling.monitoring.alarms import AlarmRules, find_alarms
    from modelling.monitoring.performance import measure_windows
    from validation.contracts import write_json

    settings, run = load_settings(), Run.from_dict(job["run"])
    watched = settings.monitoring
    windows = measure_windows(
        pl.read_parquet(run.path / KEPT_TABLES),
        length=timedelta(days=watched.window_days),
        resamples=watched.resamples,
    )
    limits = {name: getattr(watched, name) for name in AlarmRules.__dataclass_fields__}
    registered = open_registry(settings).find(task=settings.night.task)
    reference = {record.digest: record.metrics["auroc"]["value"] for record in registered if record.metrics}
    alarms = find_alarms(windows, reference=reference, rules=AlarmRules(**limits))
    summary = {
        "day": run.partition,
        "moment": job["moment"],
        "task": settings.night.task,
        "reference": reference,
        "windows": [window.to_dict() for window in windows],
        "alarms": [asdict(alarm) for alarm in alarms],
    }
    write_json(summary, run.path / "summary.json")
    return {"windows": len(windows), "alarms": len(alarms)}


def report(job: JobFields) -> str:
    """Write the page; return its path."""
    from deploy.monitoring_job.page import render_page, write_page
    from modelling.cohorts.tasks import get_task

    settings, run = load_settings(), Run.from_dict(job["run"])
    text = render_page(
        read_summary(run.path),
        site=settings.site.name,
        task=get_task(settings.night.task).title,
        note=settings.site.data_note,
    )
    return str(write_page(run.path / "index.html", text))


def alarm(job: JobFields) -> list[dict[str, Any]]:
    """Tell of each alarm and return them; the joined rows, which hold patients, are removed."""
    from deploy.alerts.channels import send
    from deploy.alerts.message import Message

    run = Run.from_dict(job["run"])
    (run.path / KEPT_TABLES).unlink(missing_ok=True)
    found: list[dict[str, Any]] = read_summary(run.path)["alarms"]
    for item in found:
        log.warning("alarm %s, model %s: %s", item["rule"], item["digest"][:12], item["text"])
    if found:
        settings = load_settings()
        told = tuple(f"{item['rule']}, model {item['digest'][:12]}: {item['text']}" for item in found)
        send(
            Message("model_alarm", settings.site.name, "monitor", run.partition, findings=told),
            settings.alerts,
        )
    return found


def read_summary(folder: Path) -> dict[str, Any]:
    """Return ``summary.json`` of a monitoring run."""
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text("utf-8"))
    return found
