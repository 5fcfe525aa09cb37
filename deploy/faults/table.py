"""Run cases one after another and show what became of each."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
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


def play_all(cases: Iterable[Case], *, console: Console) -> list[Result]:
    """Play cases over one demo hospital; say how each ended as it ends."""
    results = []
    with tempfile.TemporaryDirectory(prefix="nightingale-faults-") as folder, quiet():
        hospital = Hospital.build(Path(folder) / "hospital")
        for case in cases:
            with console.status(f"{case.group}: {case.name}"):
                result = play(case, hospital, Path(folder) / "site")
            results.append(result)
            mark = "holds " if result.passed else "FAILED"
            console.print(f"{mark} {case.group:<9} {case.name}", highlight=False)
    return results


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
