"""``nightingale retrain``: from finished stays to registered candidates."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from deploy.command_line.options import ConfigOption
from deploy.command_line.progress import StageBars

app = typer.Typer(add_completion=False)
console = Console()


@app.command("retrain")
def retrain_command(
    config: ConfigOption = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Finished stays: a folder of NDJSON (or with fhir/, wfdb/, dicom/), or of mapped tables."
        ),
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="Name of the data; unset, a digest of the source's files.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Model to train: medfuse, medm2t, mufuse, nightingale; may repeat."),
    ] = None,
    start_from: Annotated[
        str | None,
        typer.Option(help="Fine-tune: 'champion', or the digest of a registered model."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of every stage at most.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Map, label, train, compare with champion, boosting and NEWS2, and register candidates.

    Nothing is promoted: a person does that (`nightingale models promote`). Started again after a kill, it
    goes on from the last epoch.

    Examples:

      nightingale retrain --config site.toml

      nightingale retrain --data mimic-iv-mapped --version mimic-iv-3.1 --model nightingale

      nightingale retrain --data own-stays --start-from champion
    """
    from deploy.retraining.local import run_retraining
    from deploy.settings import CONFIG_VARIABLE

    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config.resolve())
    # The steps read their settings themselves: the environment reaches them here and in Airflow alike.
    given: dict[str, Any] = {
        "DATA": None if data is None else data.resolve(),
        "MODELS": json.dumps(model) if model else None,
        "START_FROM": start_from,
        "EPOCHS": epochs,
    }
    os.environ |= {
        f"NIGHTINGALE_RETRAINING__{name}": str(value) for name, value in given.items() if value is not None
    }
    with StageBars() as bars:
        summary = run_retraining(version=version, watch=bars)
    if as_json:
        typer.echo(json.dumps(summary, indent=2, sort_keys=True))
        return
    table = Table("Candidate", "Task", "Kind", "Verdict of the rules")
    for item in summary["candidates"]:
        verdict = "may be promoted" if item["promotable"] else "; ".join(item["reasons"])
        table.add_row(item["digest"][:12], item["task"], item["model"], verdict)
    console.print(f"Data version {summary['version']}", highlight=False)
    console.print(table)
    console.print(
        'Promote one:  nightingale models promote DIGEST --by "NAME" --why "REASON"', highlight=False
    )
