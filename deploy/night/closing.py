"""The end of a night: the three equations, what remains on disk, and whether the night may call itself done."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime
from typing import Any

from deploy.errors import NightFailed
from deploy.metrics.textfile import write_run_metrics
from deploy.night.accounts import summarise
from deploy.night.auditing import prune_audit
from deploy.night.connections import export_folder
from deploy.night.remembered import remember_pulls
from deploy.night.run import EMBEDDINGS, Run
from deploy.settings import Settings


def failures(run: Run, summary: dict[str, Any]) -> list[str]:
    """Return why a night is not in order, in words without data; empty when it is."""
    found = [item["text"] for item in summary["equations"] if not item["holds"]]
    decision = summary["gate"].get("decision")
    if decision is None:
        found.append("the night did not get to the gate; see the failed task's log")
    elif decision == "stop":
        grave = [reason for reason in summary["gate"]["reasons"] if not reason.startswith("warning")]
        found.append(f"the gate stopped the night: {' '.join(grave)}")
    elif not summary["write_back"]:
        found.append("the night did not get to the write-back; see the failed task's log")
    dead = summary["counts"]["dead_lettered"]
    if dead:
        found.append(f"{dead} score(s) could not be written and wait as dead letters")
    return found


def settle_accounts(settings: Settings, run: Run) -> dict[str, Any]:
    """Write ``summary.json``, remove what a good night need not keep, and fail a night that is not in order.

    Raises
    ------
    NightFailed
        If an equation does not hold, the gate stopped the night, a step is missing, or a score was
        dead-lettered.
    """
    summary = summarise(run)
    found = failures(run, summary)
    write_run_metrics(
        settings.storage.metrics,
        run.path,
        summary,
        site=settings.site.name,
        success=not found,
        now=time.time(),
    )
    # Embeddings are patients' data too, and only spare work within one night.
    shutil.rmtree(run.path / EMBEDDINGS, ignore_errors=True)
    if found:
        raise NightFailed("; ".join(found))
    now = datetime.now(UTC)
    remember_pulls(settings, run, now=now)
    prune_audit(settings, today=now.date())
    if not settings.storage.keep_downloads:
        shutil.rmtree(run.path / "downloads", ignore_errors=True)
        shutil.rmtree(export_folder(settings, run), ignore_errors=True)
    run.report_progress("settle", 1, 1)
    return summary
