"""The gate of a night: profile what was accepted, compare it with the reference, decide, remember."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import polars as pl

from deploy.night.accounts import count, skip_unscored, unmapped
from deploy.night.drift import compare_run
from deploy.night.remembered import remember
from deploy.night.run import Run
from deploy.settings import Settings
from validation.gate import GateThresholds, decide
from validation.profiles import Profiles, count_refusals, merge_profiles, profile_shard
from validation.quarantine import read_quarantine
from validation.reasons import Reason

PROFILED = ["subject_id", "time", "available_time", "code", "numeric_value", "source_ref"]
"""Columns of the events that a profile reads."""


def thresholds(settings: Settings) -> GateThresholds:
    """Return the gate's limits: the site's three, and the defaults of the rest."""
    return replace(
        GateThresholds(),
        quarantined_share=settings.gate.quarantined_share,
        quarantined_share_warning=settings.gate.quarantined_share_warning,
        skipped_share=settings.gate.skipped_share,
    )


def profile_run(run: Run) -> Profiles:
    """Aggregate the run shard by shard: no more than one shard's events are in memory."""
    samples, encounters = run.load("samples"), run.load("encounters")
    names = sorted(
        path.name.removesuffix(".manifest.json") for path in run.path.glob("events/*.manifest.json")
    )
    shard_of = pl.col("subject_id").reinterpret(signed=False) % max(1, len(names))
    shards = [
        profile_shard(
            events=run.load(f"events/{name}").select(PROFILED),
            encounters=encounters,
            samples=samples.filter(shard_of == int(name)),
            recordings=run.load(f"recordings/{name}"),
            images=run.load(f"images/{name}"),
        )
        for name in names
    ]
    return merge_profiles(
        shards,
        encounters=encounters.height,
        refusals=count_refusals(read_quarantine(run.path, placed=False)),
        counts=count(run),
        unmapped=unmapped(run),
    )


def decide_gate(settings: Settings, run: Run) -> dict[str, Any]:
    """Decide whether the night may be scored and written back.

    Writes ``profile/*.parquet``, ``gate/decision.json`` and ``gate/data_docs/``, and keeps the profile in
    the history.

    Returns
    -------
    dict
        The decision and numbers about it; small enough for XCom.

    Raises
    ------
    GateStopped
        After everything is written and every sample has its reason.
    """
    profiles = profile_run(run)
    drift = compare_run(settings, run)
    if drift is not None:
        profiles = replace(profiles, drift=drift)
    profiles.save(run.path / "profile")
    decision = decide(
        profiles,
        thresholds=thresholds(settings),
        work_folder=run.path / "gate",
        override=settings.gate.override,
        run_name=f"{settings.site.name}-{run.partition}",
    )
    if decision.stopped:
        skip_unscored(run, Reason.SKIP_GATE_STOPPED)
    remember(settings, run, profiles, counts=count(run), recorded_at=datetime.now(UTC))
    run.report_progress("gate", 1, 1, decision.decision)
    decision.require_pass()
    return {
        "decision": decision.decision,
        "evaluated": decision.evaluated,
        "findings": len(decision.findings),
        "override": decision.override is not None,
    }
