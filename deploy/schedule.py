"""What a DAG file needs at parse time, read without heavy imports."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Schedule:
    """Cron expression (empty where assets trigger instead) and zone of a DAG."""

    cron: str = "15 5 * * *"
    time_zone: str = "Europe/Berlin"


def read_schedule(
    environment: dict[str, str] | None = None, *, section: str = "night", default: str = Schedule.cron
) -> Schedule:
    """Return the schedule of the settings file and environment; defaults where a field is unset.

    A settings file that cannot be read gives the defaults: the DAG must still appear, so that its first
    task can fail with the full reason.

    Parameters
    ----------
    section
        Section of the settings whose ``schedule`` is asked for.
    default
        Cron where it is unset.
    """
    variables = os.environ if environment is None else environment
    own: dict[str, str] = {}
    site: dict[str, str] = {}
    path = variables.get("NIGHTINGALE_CONFIG")
    if path and Path(path).is_file():
        try:
            fields = tomllib.loads(Path(path).read_text("utf-8"))
            own, site = fields.get(section, {}), fields.get("site", {})
        except (tomllib.TOMLDecodeError, UnicodeDecodeError):
            own, site = {}, {}
    return Schedule(
        cron=variables.get(f"NIGHTINGALE_{section.upper()}__SCHEDULE") or own.get("schedule", default),
        time_zone=variables.get("NIGHTINGALE_SITE__TIME_ZONE") or site.get("time_zone", Schedule.time_zone),
    )
