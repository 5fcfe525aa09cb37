"""Write a run's metrics where node_exporter's textfile collector, or our own page, finds them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from deploy.metrics.exposition import render, run_metrics

FILE = "nightingale.prom"


def stage_seconds(progress: Path) -> dict[str, float]:
    """Return how long each stage took, by the times of its progress lines.

    A stage lasts from the last line of the one before it to its own last line; stages that run side by side
    share that time.
    """
    ends: dict[str, float] = {}
    first: float | None = None
    for line in progress.read_text("utf-8").splitlines() if progress.is_file() else []:
        try:
            fields = json.loads(line)
            moment = float(fields["at"])
        except (ValueError, KeyError, TypeError):
            continue
        first = moment if first is None else first
        ends[str(fields["stage"])] = moment
    if first is None:
        return {}
    durations: dict[str, float] = {}
    previous = first
    for stage, moment in sorted(ends.items(), key=lambda item: item[1]):
        durations[stage] = max(0.0, moment - previous)
        previous = moment
    return durations


def write_run_metrics(
    folder: Path, run_folder: Path, summary: dict[str, Any], *, site: str, success: bool, now: float
) -> Path:
    """Write the metrics of a run that ended, atomically: a scrape never sees half a file.

    Parameters
    ----------
    folder
        The textfile collector's folder; it is made if it is missing.
    now
        Unix seconds at which the run ended.
    """
    manifest = run_folder / "run.json"
    model = run_folder / "model.json"
    text = render(
        run_metrics(
            summary,
            site=site,
            success=success,
            started=manifest.stat().st_mtime if manifest.is_file() else now,
            ended=now,
            stages=stage_seconds(run_folder / "progress.jsonl"),
            model=json.loads(model.read_text("utf-8")) if model.is_file() else None,
        )
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    temporary = folder / f".{FILE}.{os.getpid()}.tmp"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return path
