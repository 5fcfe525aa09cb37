"""Run the steps of a retraining one after another in this process: what ``nightingale retrain`` does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deploy.retraining import steps

Watcher = Callable[[str, int, int], None]


def run_retraining(*, version: str | None, watch: Watcher) -> dict[str, Any]:
    """Run every step and return the summary.

    Parameters
    ----------
    version
        See :func:`deploy.retraining.job.plan_retraining`.
    watch
        Called with stage, steps done and steps in all.

    Raises
    ------
    DataRefused
        If the data do not allow a training.
    """
    job = steps.open_job(version=version)
    watch("census", 0, 1)
    parts = steps.census(job)
    watch("census", 1, 1)
    for number, part in enumerate(parts, start=1):
        steps.extract(job, part)
        watch("extract", number, len(parts))
    numbers = steps.shards(job)
    for number in numbers:
        steps.map_shard(job, number)
        watch("map", number + 1, len(numbers))
    watch("cohorts", 0, 1)
    items = steps.cohorts(job)
    watch("cohorts", 1, 1)
    trained = []
    for number, item in enumerate(items):
        watch(f"train {item['model']}", number, len(items))
        trained.append(steps.train(job, item))
        watch(f"train {item['model']}", number + 1, len(items))
    watch("evaluate", 0, 1)
    compared = steps.evaluate(job, trained)
    watch("evaluate", 1, 1)
    return steps.notify(job, steps.register(job, compared))
