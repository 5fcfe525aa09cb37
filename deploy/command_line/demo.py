"""``nightingale demo``: the whole night on a synthetic hospital."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy.command_line.progress import StageBars

app = typer.Typer(add_completion=False)
console = Console()


class FhirKind(StrEnum):
    """What the demo reads from and writes to."""

    FOLDER = "folder"
    HAPI = "hapi"


@app.command("demo")
def demo_command(
    fhir: Annotated[
        FhirKind, typer.Option(help="folder: NDJSON files. hapi: a real HAPI FHIR server and Orthanc PACS.")
    ] = FhirKind.FOLDER,
    root: Annotated[Path, typer.Option(help="Folder of the demo; a second run goes on from it.")] = Path(
        "var/demo"
    ),
    patients: Annotated[int, typer.Option(min=12, help="Stays of the synthetic hospital.")] = 72,
    flood: Annotated[
        bool, typer.Option("--flood", help="Break so much input that the gate must stop the night.")
    ] = False,
) -> None:
    """Build a synthetic hospital, train a model on its history, and run one night through the Airflow DAG.

    All data are simulated and say so. Exit code 1 where an equation fails, a write is dead-lettered, or the
    gate stops the night.

    Examples:

      nightingale demo

      nightingale demo --fhir hapi

      nightingale demo --flood
    """
    from deploy.demo.run import run_demo
    from deploy.night.summary_table import night_tables

    started = time.monotonic()
    with StageBars() as bars:
        result = run_demo(
            root,
            fhir=fhir.value,
            watch=bars,
            say=lambda text: console.print(text, style="dim"),
            patients=patients,
            faults="flood" if flood else True,
        )
    console.print()
    console.print(night_tables(result.summary))
    metrics = result.model_metrics
    console.print(
        f"Model: MedFuse, {'trained now' if result.trained else 'trained by an earlier run'} on the synthetic history; "
        f"AUROC {metrics['auroc']} on {metrics['samples']} held-out patients",
        highlight=False,
    )
    if result.at_server is not None:
        console.print(
            f"HAPI holds {result.at_server} RiskAssessments of this night (found by search)", highlight=False
        )
    write = result.summary["write_back"]
    if write and not write["written"] and write["unchanged"]:
        console.print("Nothing new: this night was written before; every score is as it was.", style="bold")
    console.print("Synthetic data: these scores mean nothing for anyone.", style="bold")
    for name, path in _paths(result.summary, result.config).items():
        console.print(f"{name:<22}{path}", highlight=False, soft_wrap=True)
    console.print(f"{time.monotonic() - started:.0f} s", style="dim")
    if result.failures:
        for text in result.failures:
            console.print(f"NOT IN ORDER: {text}", style="bold red", highlight=False, soft_wrap=True)
        raise typer.Exit(1)


def _paths(summary: dict[str, object], config: Path) -> dict[str, object]:
    """Return what a person opens next."""
    found: dict[str, object] = {"Data-quality report": summary["report"]}
    write = summary["write_back"]
    if isinstance(write, dict) and write:
        found["RiskAssessments"] = write["location"]
    found["Settings"] = config
    return found
