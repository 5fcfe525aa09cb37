"""Run the night's steps one after another in this process: what ``nightingale night`` does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deploy.night import steps
from validation.errors import GateStopped

Watcher = Callable[[str, int, int], None]


def run_night(
    *,
    night: str | None,
    replay: str | None,
    watch: Watcher,
    dry_run: bool = False,
    task: str | None = None,
) -> dict[str, Any]:
    """Run every step of a night and return its summary.

    Parameters
    ----------
    night, replay, dry_run, task
        See :func:`deploy.night.run.plan_run`.
    watch
        Called with stage, steps done and steps in all.

    Raises
    ------
    NightFailed
        After the report is written, if an equation does not hold, a write was dead-lettered or the gate stopped.
    """
    run = steps.open_night(night=night, replay=replay, dry_run=dry_run, task=task)
    watch("census", 0, 1)
    parts = steps.census(run)
    watch("census", 1, 1)
    for number, part in enumerate(parts, start=1):
        steps.extract(run, part)
        watch("extract", number, len(parts))
    numbers = steps.shards(run)
    for stage, step in (("validate", steps.validate), ("map", steps.map_events)):
        for number in numbers:
            step(run, number)
            watch(stage, number + 1, len(numbers))
    try:
        watch("gate", 0, 1)
        steps.gate(run)
        watch("gate", 1, 1)
    except GateStopped:
        watch("gate", 1, 1)
    else:
        for number in numbers:
            steps.score(run, number)
            watch("score", number + 1, len(numbers))
        watch("write back", 0, 1)
        steps.write_back(run)
        watch("write back", 1, 1)
    watch("report", 0, 1)
    steps.report(run)
    watch("report", 1, 1)
    return steps.settle(run)
