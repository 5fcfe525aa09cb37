"""The profiles of the site's nights in SQL; without its database a report lacks the trends, and no more."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import polars as pl
from sqlalchemy.exc import SQLAlchemyError

from deploy.night.connections import database
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
