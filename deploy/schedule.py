"""What a DAG file needs at parse time, read without heavy imports."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import time, timedelta
from pathlib import Path
from typing import Any

DEADLINE = "06:00"
GPU_POD_VARIABLE = "NIGHTINGALE_GPU_POD_TEMPLATE"


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
    own, site = _section(variables, section), _section(variables, "site")
    return Schedule(
        cron=variables.get(f"NIGHTINGALE_{section.upper()}__SCHEDULE") or own.get("schedule", default),
        time_zone=variables.get("NIGHTINGALE_SITE__TIME_ZONE") or site.get("time_zone", Schedule.time_zone),
    )


def _section(variables: Mapping[str, str], name: str) -> dict[str, Any]:
    """Return a section of the settings file, or nothing where it cannot be read."""
    path = variables.get("NIGHTINGALE_CONFIG")
    if not path or not Path(path).is_file():
        return {}
    try:
        found = tomllib.loads(Path(path).read_text("utf-8")).get(name, {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Deadline:
    """When a scheduled run must have ended: a time after its start, and the clock time in words."""

    after_start: timedelta
    clock: str


def read_deadline(cron: str, environment: Mapping[str, str] | None = None) -> Deadline:
    """Return how long after its scheduled start the night's scores must be written.

    Examples
    --------
    >>> read_deadline("15 5 * * *", {})
    Deadline(after_start=datetime.timedelta(seconds=2700), clock='06:00')
    """
    variables = os.environ if environment is None else environment
    found: Any = variables.get("NIGHTINGALE_NIGHT__DEADLINE") or _section(variables, "night").get("deadline")
    try:
        clock = found if isinstance(found, time) else time.fromisoformat(str(found or DEADLINE))
        minute, hour = (int(part) for part in cron.split()[:2])
    except ValueError:  # several starts a day, or a deadline that the first task will refuse with its reason
        return Deadline(timedelta(minutes=45), DEADLINE)
    minutes = (clock.hour * 60 + clock.minute - hour * 60 - minute) % (24 * 60)
    return Deadline(timedelta(minutes=minutes or 24 * 60), f"{clock:%H:%M}")


def gpu_executor_config(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return what sends a task to a pod with a GPU, where the site runs the KubernetesExecutor."""
    variables = os.environ if environment is None else environment
    template = variables.get(GPU_POD_VARIABLE)
    return {"pod_template_file": template} if template else {}
