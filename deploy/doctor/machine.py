"""What the machine has: Python and packages, programs outside Python, disk, accelerator."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from deploy.doctor.check import Check, failed, ok, warning
from deploy.servers.prerequisites import Prerequisite

PACKAGES = (
    "apache-airflow",
    "fhir.resources",
    "great-expectations",
    "polars",
    "pydicom",
    "sqlalchemy",
    "torch",
    "wfdb",
)
GIBIBYTE = 1024**3
LEAST_FREE = 2 * GIBIBYTE
COMFORTABLE_FREE = 20 * GIBIBYTE


def check_python() -> Iterable[Check]:
    """Yield the interpreter and the eight packages that everything rests on."""
    found = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] == (3, 11):
        yield ok("python", f"Python {found}")
    else:
        yield warning(
            "python", f"Python {found}", "the locks are made for Python 3.11: run `make setup` with it"
        )
    missing, present = [], []
    for name in PACKAGES:
        try:
            present.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        yield failed("packages", f"not installed: {', '.join(missing)}", "run `make setup`")
    else:
        yield ok("packages", ", ".join(present))


def check_programs(programs: Sequence[Prerequisite], *, needed: bool) -> Iterable[Check]:
    """Yield programs outside Python; they serve tests and the demo only, so one may be missing.

    Parameters
    ----------
    needed
        Whether a missing one is a failure, as before ``make demo FHIR=hapi``.
    """
    for program in programs:
        subject = f"program: {program.name}"
        if program.found:
            yield ok(subject, program.found)
        else:
            found, remedy = f"not found; needed for {program.needed_for}", program.remedy
            yield failed(subject, found, remedy) if needed else warning(subject, found, remedy)


def existing(path: Path) -> Path:
    """Return the path, or its nearest ancestor that exists."""
    for candidate in (path, *path.parents):
        if candidate.exists():
            return candidate
    return Path("/")


def check_disk(runs: Path) -> Iterable[Check]:
    """Yield free space and write permission where runs are kept."""
    import os

    place = existing(runs.resolve())
    if not os.access(place, os.W_OK):
        yield failed("disk", f"{place} is not writable", "give the service account write permission there")
        return
    free = shutil.disk_usage(place).free
    found = f"{free / GIBIBYTE:.0f} GiB free at {place}"
    if free < LEAST_FREE:
        yield failed("disk", found, "free some space or set storage.runs to a larger disk")
    elif free < COMFORTABLE_FREE:
        yield warning("disk", found, "a large hospital's night takes gigabytes: see docs/runbook.md, 'Disk'")
    else:
        yield ok("disk", found)


def check_accelerator() -> Iterable[Check]:
    """Yield the GPU, where there is one; the night runs without."""
    import torch

    if torch.cuda.is_available():
        yield ok("gpu", f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}")
    else:
        yield ok("gpu", "none; scoring runs on the CPU")
