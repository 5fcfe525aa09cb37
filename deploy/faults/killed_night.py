"""A night in a process of its own that dies on purpose: by ``kill -9``, or because its disk is full.

Production code knows nothing of this: the step boundaries and the ledger's methods are wrapped in the child
only, after it was forked.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from typing import Any

from deploy.faults.clock import VirtualClock, virtual_time
from deploy.night import steps
from deploy.night.accounts import summarise
from deploy.night.local import run_night
from deploy.night.run import Run
from deploy.settings import CONFIG_VARIABLE
from fhir_adapter.sources.bulk import BulkSource
from fhir_adapter.store import Ledger

STEPS = ("open_night", "census", "extract", "validate", "map_events", "gate", "score", "write_back", "report")
SECONDS = 300
FULL = 2_000
"""Bytes that a file may still have when the disk is full."""

STOPPED = 28
"""Exit code of a night that a full disk stopped (the number of ENOSPC)."""


def short_night(night: str) -> dict[str, Any]:
    """Run all steps but gate and report, which cost most and never touch a network."""
    run = steps.open_night(night=night, replay=None)
    for part in steps.census(run):
        steps.extract(run, part)
    for step in (steps.validate, steps.map_events, steps.score):
        for shard in steps.shards(run):
            step(run, shard)
    steps.write_back(run)
    return summarise(Run.from_dict(run))


def die_in_night(night: str, config: str, where: str, how: str, *, whole: bool) -> int:
    """Run a night in a child that dies at a place; return its exit code: -9 after a kill, :data:`STOPPED`.

    Parameters
    ----------
    where
        Name of a step (after its first call), ``before ledger settles``, ``after ledger marks sent``, or
        ``while the export runs``.
    how
        ``kill``, or ``full``: from there on no file may grow beyond :data:`FULL` bytes.
    """
    context = _context()
    child = context.Process(target=_run, args=(night, config, where, how, whole))
    child.start()
    child.join(SECONDS)
    if child.is_alive():
        child.kill()
        child.join()
        raise TimeoutError(f"the child did not die at {where}")
    return int(child.exitcode or 0)


def _context() -> ForkServerContext:
    """Return a fork server that has imported what a night needs, so that a child costs no imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["deploy.faults.killed_night", "deploy.night.scoring", "deploy.night.writing", "deploy.night.judging"]
    )
    return context


def _run(night: str, config: str, where: str, how: str, whole: bool) -> None:
    """Run the night in the child, with its place of death prepared."""
    os.environ[CONFIG_VARIABLE] = config
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    end = _kill if how == "kill" else _fill_disk
    if where == "before ledger settles":
        _before(Ledger, "settle", end)
    elif where == "after ledger marks sent":
        _after(Ledger, "mark_sent", end)
    elif where == "while the export runs":
        _before(BulkSource, "_wait", end)
    else:
        _after(steps, where, end)
    with virtual_time(VirtualClock()):
        try:
            if whole:
                run_night(night=night, replay=None, watch=lambda stage, done, total: None)
            else:
                short_night(night)
        except Exception:
            if resource.getrlimit(resource.RLIMIT_FSIZE)[0] != FULL:
                raise
            os._exit(STOPPED)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fill_disk() -> None:
    """From now on writing beyond a few bytes fails in the kernel, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FULL, FULL))


def _after(owner: Any, name: str, action: Callable[[], None]) -> None:
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **fields: Any) -> Any:
        result = original(*arguments, **fields)
        action()
        return result

    setattr(owner, name, wrapped)


def _before(owner: Any, name: str, action: Callable[[], None]) -> None:
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **fields: Any) -> Any:
        action()
        return original(*arguments, **fields)

    setattr(owner, name, wrapped)
