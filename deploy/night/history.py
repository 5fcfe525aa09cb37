"""A hospital's finished stays through the night's own steps, to tables that a model can learn from."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from deploy.night import steps
from deploy.night.local import Watcher
from deploy.night.run import Run, open_run, plan_run
from deploy.settings import Settings
from modelling.cohorts.tasks import get_task
from modelling.cohorts.training import Cohort, training_samples


@dataclass(frozen=True, kw_only=True)
class History:
    """Mapped tables of finished stays, with labelled samples.

    Attributes
    ----------
    run
        Run folder that ``array_path`` is relative to.
    cohort
        Samples with labels and how they were chosen.
    encounters, events, recordings, images
        Tables as at night.
    """

    run: Run
    cohort: Cohort
    encounters: pl.DataFrame
    events: pl.DataFrame
    recordings: pl.DataFrame
    images: pl.DataFrame


def map_history(settings: Settings, *, replay: str, watch: Watcher) -> Run:
    """Census, extract, validate and map a source of finished stays; nothing is scored.

    Parameters
    ----------
    replay
        Names the run, such as ``icu+48h``; the census chooses its samples by it, training does not.
    """
    run = open_run(plan_run(settings, night=None, replay=replay))
    fields = run.to_dict()
    watch("census", 0, 1)
    parts = steps.census(fields)
    watch("census", 1, 1)
    for number, part in enumerate(parts, start=1):
        steps.extract(fields, part)
        watch("extract", number, len(parts))
    numbers = steps.shards(fields)
    for number in numbers:
        steps.validate(fields, number)
        steps.map_events(fields, number)
        watch("map", number + 1, len(numbers))
    return run


def read_history(run: Run, *, task: str) -> History:
    """Read a mapped run and label its samples for a task, at the task's benchmark time."""
    encounters = run.load("encounters")
    return History(
        run=run,
        cohort=training_samples(encounters, run.load("outcomes"), task=get_task(task)),
        encounters=encounters,
        events=run.load_all("events", "events/*"),
        recordings=run.load_all("recordings", "recordings/*"),
        images=run.load_all("images", "images/*"),
    )
