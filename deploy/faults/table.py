"""Run cases one after another and show what became of each."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from itertools import repeat
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.faults.case import Case, Result, play
from deploy.faults.site import Hospital


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the adapter's warnings about faults that we made ourselves off the table."""
    logger = logging.getLogger("fhir_adapter")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def play_all(cases: Iterable[Case], *, console: Console, jobs: int = 1) -> list[Result]:
    """Play cases over one demo hospital; say how each ended, in their order.

    Parameters
    ----------
    jobs
        Processes that play cases side by side. Each case has a site, a server and a clock of its own.
    """
    with tempfile.TemporaryDirectory(prefix="nightingale-faults-") as name:
        folder = Path(name)
        Hospital.build(folder / "hospital")
        results = []
        for result in _played(list(cases), folder, jobs):
            results.append(result)
            mark = "holds " if result.passed else "FAILED"
            console.print(f"{mark} {result.group:<9} {result.case}", highlight=False)
    return results


def _played(cases: list[Case], folder: Path, jobs: int) -> Iterator[Result]:
    # spawned, not forked: a fork would take over threads of torch and polars that do not run in it
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        yield from pool.map(_play, [(case.group, case.name) for case in cases], repeat(folder))


def _play(named: tuple[str, str], folder: Path) -> Result:
    """Play one case in a worker; cases hold functions, so they travel by name."""
    from deploy.faults.cases import all_cases

    (case,) = (case for case in all_cases() if (case.group, case.name) == named)
    with quiet():
        return play(case, _hospital(folder / "hospital"), folder / f"site-{os.getpid()}")


@cache
def _hospital(folder: Path) -> Hospital:
    return Hospital.build(folder)


def show(results: list[Result], *, console: Console) -> None:
    """Print the table and, below it, why cases failed."""
    table = Table(title="Faults injected, and what the night made of them", title_justify="left")
    for name in ("group", "case"):
        table.add_column(name)
    for name in ("injected", "lost", "duplicated"):
        table.add_column(name, justify="right")
    table.add_column("outcome")
    for item in results:
        style = None if item.passed else "bold red"
        table.add_row(
            item.group,
            item.case,
            str(item.injected),
            str(item.lost),
            str(item.duplicated),
            item.outcome if item.passed else f"FAILED: {'; '.join(item.problems)} ({item.outcome})",
            style=style,
        )
    console.print(table)
    passed = sum(item.passed for item in results)
    console.print(
        f"{passed} of {len(results)} cases hold; lost {sum(item.lost for item in results)}, "
        f"duplicated {sum(item.duplicated for item in results)}, "
        f"{sum(item.seconds for item in results):.0f} s"
    )


def write(results: list[Result], path: Path) -> None:
    """Write the results as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [asdict(item) | {"passed": item.passed} for item in results]
    path.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
