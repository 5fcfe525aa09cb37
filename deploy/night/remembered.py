"""The profiles of the site's nights, and how far each type was pulled, in SQL.

Without its database a report lacks the trends, and no more.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import polars as pl
from sqlalchemy.exc import SQLAlchemyError

from deploy.night.accounts import read_json
from deploy.night.connections import database, watermarks
from deploy.night.run import DRY_PREFIX, Run
from deploy.settings import Settings
from validation.equations import Counts
from validation.history import History
from validation.profiles import Profiles

log = logging.getLogger(__name__)


@contextmanager
def _history(settings: Settings) -> Iterator[History]:
    engine = database(settings)
    try:
        yield History(engine)
    finally:
        engine.dispose()


def remember(
    settings: Settings,
    run: Run,
    profiles: Profiles,
    *,
    counts: Counts,
    recorded_at: datetime,
    further: dict[str, float] | None = None,
) -> None:
    """Keep a run's profile; what the same run left before is replaced, and a dry run leaves nothing."""
    if run.partition.startswith(DRY_PREFIX):
        return
    try:
        with _history(settings) as history:
            history.record(
                site=settings.site.name,
                night=run.partition,
                recorded_at=recorded_at,
                profiles=profiles,
                counts=counts,
                further=further,
            )
    except (OSError, SQLAlchemyError) as error:
        log.warning("the profile of %s was not kept: %s", run.partition, type(error).__name__)


def remember_pulls(settings: Settings, run: Run, *, now: datetime) -> None:
    """Mark every clinical type that a good night pulled to its end, as of the start of the pull."""
    if run.partition.startswith(DRY_PREFIX):
        return
    pulled: Counter[str] = Counter()
    for path in run.path.glob("extract/*/summary.json"):
        summary = read_json(path)
        pulled[summary["resource_type"]] += summary["pulled"]
    started = read_json(run.path / "census.json").get("started")
    if started is None:
        log.warning(
            "how far %s pulled is not known: its census was taken by an earlier version", run.partition
        )
        return
    reached = datetime.fromisoformat(started)
    try:
        engine = database(settings)
        try:
            marks = watermarks(settings, engine)
            for kind, resources in sorted(pulled.items()):
                marks.complete(kind, run=run.partition, reached=reached, resources=resources, now=now)
        finally:
            engine.dispose()
    except (OSError, SQLAlchemyError) as error:
        log.warning("how far %s pulled was not kept: %s", run.partition, type(error).__name__)


def trends_until(settings: Settings, run: Run) -> pl.DataFrame | None:
    """Return the last nights up to this one, oldest first; None for a replay, which is no night."""
    if run.replay is not None:
        return None
    try:
        with _history(settings) as history:
            return history.trends(site=settings.site.name, until=run.partition.removeprefix(DRY_PREFIX))
    except (OSError, SQLAlchemyError) as error:
        log.warning("the report has no trends: %s", type(error).__name__)
        return None
