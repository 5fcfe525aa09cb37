"""``nightingale load-hospital``: a very large synthetic hospital for load tests."""

from __future__ import annotations

import time
from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

app = typer.Typer(add_completion=False)
console = Console()


@app.command("load-hospital")
def load_hospital_command(
    out: Annotated[Path, typer.Option(help="Target folder; empty or absent.")],
    patients: Annotated[
        int, typer.Option(min=1, help="Inpatients, about 1,000 Observations each.")
    ] = 100_000,
    night: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%d"], help="Date of the prediction time.")
    ] = datetime(2026, 1, 15),  # noqa: DTZ001 - a date
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 20260115,
    pool: Annotated[int, typer.Option(min=1, help="ECGs and radiographs that patients share.")] = 64,
    gzip: Annotated[bool, typer.Option("--gzip", help="Write .ndjson.gz: a fraction of the disk.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; unset, one a core.")] = None,
) -> None:
    """Write a synthetic hospital of any size as NDJSON, WFDB and DICOM, as fast as the disk takes it.

    100,000 inpatients have 100 million Observations (about 65 GB, or 5 GB with --gzip). All data are simulated
    and say so.

    Examples:

      nightingale load-hospital --patients 1000 --out var/load

      nightingale load-hospital --patients 100000 --gzip --out /data/load
    """
    from deploy.load_hospital import build_load_hospital

    started = time.monotonic()
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("patients", total=patients)
        summary = build_load_hospital(
            out,
            patients=patients,
            night=date(night.year, night.month, night.day),
            seed=seed,
            pool=pool,
            compress=gzip,
            workers=workers,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    seconds = time.monotonic() - started
    counts = ", ".join(f"{count:,} {kind}" for kind, count in summary.resources.items())
    console.print(f"{counts}: {summary.bytes / 1e9:.2f} GB of NDJSON in {out}", highlight=False)
    console.print(f"{seconds:.1f} s", style="dim")
