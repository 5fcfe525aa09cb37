"""Retraining as plain functions of JSON values: what a DAG task or the command line calls.

Each function loads the site's settings itself. What a former try left complete is kept: the same version of
the data, started again after a kill, goes on where it stood and comes to the same weights.
"""

from __future__ import annotations

import json
import logging
import shutil
from typing import Any

from deploy.retraining.job import Retraining, history_settings, plan_retraining
from deploy.settings import load_settings

JobFields = dict[str, Any]
log = logging.getLogger(__name__)
MAPPED = "mapped.json"


def open_job(*, version: str | None) -> JobFields:
    """Name the retraining and make its folder."""
    from validation.contracts import write_json

    job = plan_retraining(load_settings(), version=version)
    job.path.mkdir(parents=True, exist_ok=True)
    write_json(job.to_dict(), job.path / "job.json")
    return job.to_dict()


def census(job: JobFields) -> list[dict[str, Any]]:
    """Read patients and encounters of the history; return the parts to extract, none if it is mapped already."""
    from deploy.night.intake import take_census
    from deploy.night.run import open_run

    own = Retraining.from_dict(job)
    if is_mapped(own):
        return []
    return take_census(history_settings(load_settings(), own), open_run(own.run))


def is_mapped(job: Retraining) -> bool:
    """Return whether the tables are there: given as such, or left by a former try."""
    return job.mapped is not None or (job.path / MAPPED).is_file()


def extract(job: JobFields, part: dict[str, Any]) -> dict[str, Any]:
    """Extract one part; return its counts."""
    from deploy.night.intake import extract as extract_one

    own = Retraining.from_dict(job)
    summary = extract_one(history_settings(load_settings(), own), own.run, part)
    own.note("extract", 1)
    return {key: summary[key] for key in ("pulled", "accepted", "quarantined")}


def shards(job: JobFields) -> list[int]:
    """Return the shards to validate and map, none if that was done."""
    return [] if is_mapped(Retraining.from_dict(job)) else list(range(load_settings().night.shards))


def map_shard(job: JobFields, shard: int) -> int:
    """Validate and map one shard to events; return its number."""
    from deploy.night.judging import map_shard as map_one
    from deploy.night.judging import validate

    own = Retraining.from_dict(job)
    settings = history_settings(load_settings(), own)
    validate(settings, own.run, shard)
    map_one(settings, own.run, shard)
    own.note("map", 1)
    return shard


def cohorts(job: JobFields) -> list[dict[str, str]]:
    """Label, split and search the data; return one job a model to train."""
    from deploy.retraining.data import build_cohorts
    from validation.contracts import write_json

    own, settings = Retraining.from_dict(job), load_settings()
    if own.mapped is None and not (own.path / MAPPED).is_file():
        write_json({"version": own.version}, own.path / MAPPED)
        if not settings.storage.keep_downloads:
            shutil.rmtree(own.run.path / "downloads", ignore_errors=True)
    return build_cohorts(settings, own)


def train(job: JobFields, item: dict[str, str]) -> dict[str, Any]:
    """Train one model; return where it lies."""
    from deploy.retraining.training import train_model

    return train_model(load_settings(), Retraining.from_dict(job), item["task"], item["model"])


def evaluate(job: JobFields, trained: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare every candidate with champion and baselines; return their findings."""
    from deploy.retraining.comparing import compare_task

    own, settings = Retraining.from_dict(job), load_settings()
    compared: list[dict[str, Any]] = []
    for task in dict.fromkeys(item["task"] for item in trained):
        compared += compare_task(settings, own, task, trained)
    return compared


def register(job: JobFields, compared: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Register every candidate with its evidence, also the refused ones: a refusal is worth knowing."""
    from pathlib import Path

    from deploy.champion import now, open_registry
    from modelling.registry.records import Provenance

    own = Retraining.from_dict(job)
    registry = open_registry(load_settings())
    data = json.loads((own.path / "data.json").read_text("utf-8"))
    result = []
    for item in compared:
        record = registry.register(
            Path(item["folder"]),
            provenance=Provenance(data_version=data["version"], data_fingerprint=data["fingerprint"]),
            evidence=json.loads((own.path / item["evidence"]).read_text("utf-8")),
            by="nightingale retrain",
            why=f"trained on data version {own.version}",
            now=now(),
        )
        broken = [finding for finding in item["findings"] if not finding["passed"]]
        result.append(
            {
                "task": record.task,
                "model": record.kind,
                "digest": record.digest,
                "state": str(record.state),
                "promotable": not broken,
                "reasons": [f"{finding['rule']}: {finding['reason']}" for finding in broken],
            }
        )
    own.note("register", 1, 1)
    return result


def notify(job: JobFields, registered: list[dict[str, Any]]) -> dict[str, Any]:
    """Write ``summary.json`` and tell whoever is to approve of each candidate; aggregates only."""
    from deploy.alerts.channels import send
    from deploy.alerts.message import Message
    from validation.contracts import write_json

    own, settings = Retraining.from_dict(job), load_settings()
    summary = {"version": own.version, "folder": own.folder, "candidates": registered}
    write_json(summary, own.path / "summary.json")
    told = []
    for item in registered:
        verdict = "may be promoted" if item["promotable"] else "; ".join(item["reasons"])
        told.append(f"candidate {item['digest'][:12]} ({item['model']}, {item['task']}): {verdict}")
        log.warning("%s", told[-1])
    send(
        Message("candidates", settings.site.name, "retrain", own.version, findings=tuple(told)),
        settings.alerts,
    )
    return summary
