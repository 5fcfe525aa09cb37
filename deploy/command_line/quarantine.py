"""Commands of the quarantine: list, show, replay."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated

import polars as pl
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy.command_line.options import ConfigOption
from deploy.command_line.runs import find_run
from deploy.errors import DeployError
from validation.errors import ValidationError

app = typer.Typer(
    no_args_is_help=True, help="What a night refused: list it, look at it, try it again after a fix."
)
console = Console()
RunOption = Annotated[
    str | None,
    typer.Option("--run", help="Run folder, or its name such as 2026-01-19; unset, the latest run."),
]


def _print(frame: pl.DataFrame, title: str) -> None:
    table = Table(title=title, title_justify="left")
    for name, kind in frame.schema.items():
        table.add_column(name, justify="right" if kind.is_numeric() else "left", overflow="fold")
    for row in frame.iter_rows():
        table.add_row(*("" if value is None else str(value) for value in row))
    console.print(table)


def _stop(error: Exception) -> typer.Exit:
    Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
    return typer.Exit(2)


@app.command("list")
def list_command(run: RunOption = None, config: ConfigOption = None) -> None:
    """Count what was refused, by stage, reason and feature, with what to do about it.

    Example: nightingale quarantine list --run 2026-01-19
    """
    from validation.quarantine import list_refusals, read_quarantine

    try:
        folder = find_run(run, config=config)
        frame = list_refusals(read_quarantine(folder))
    except (DeployError, ValidationError) as error:
        raise _stop(error) from None
    if frame.is_empty():
        console.print(f"Nothing was refused in {folder.name}.")
        return
    table = Table(title=f"Quarantine of {folder.name}", title_justify="left")
    for name in ("reason", "stage", "feature"):
        table.add_column(name, overflow="fold")
    for name in ("rows", "resources"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in frame.iter_rows(named=True):
        reason = Text(row["reason"])
        if row["explanation"]:
            reason.append(f"\n{row['explanation']}", style="dim")
        table.add_row(reason, row["stage"], row["feature"] or "", str(row["rows"]), str(row["resources"]))
    console.print(table)


@app.command("show")
def show_command(
    reason: Annotated[
        str | None, typer.Argument(help="Reason code, such as unit.missing; unset, all.")
    ] = None,
    run: RunOption = None,
    feature: Annotated[str | None, typer.Option(help="Only this catalogue feature.")] = None,
    reference: Annotated[
        str | None, typer.Option("--ref", help="Only this resource, such as Observation/123.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows to show.")] = 50,
    config: ConfigOption = None,
) -> None:
    """Show where refused rows stand: file, line and resource id, never a value.

    Example: nightingale quarantine show unit.missing --limit 10
    """
    from validation.quarantine import choose_refusals, read_quarantine
    from validation.reasons import EXPLANATIONS, Reason

    try:
        folder = find_run(run, config=config)
        rows = choose_refusals(read_quarantine(folder), reason=reason, feature=feature, source_ref=reference)
    except (DeployError, ValidationError) as error:
        raise _stop(error) from None
    if reason:
        console.print(EXPLANATIONS[Reason(reason)], highlight=False)
    shown = rows.select(
        "reason", "source_file", "source_line", "source_ref", "component", "feature", "detail", "whole"
    )
    _print(shown.head(limit), f"{rows.height} refused row(s) in {folder.name}")


@app.command("replay")
def replay_command(
    reason: Annotated[str | None, typer.Argument(help="Reason code to try again; unset, all.")] = None,
    run: RunOption = None,
    config: ConfigOption = None,
) -> None:
    """Read the refused lines again with today's catalogue, adapter and rules, and tell what became of them.

    Nothing is scored or written: when the fix helps, run the night again, which writes each score once.

    Example: nightingale quarantine replay unit.unknown
    """
    from deploy.night.connections import image_archive, waveform_archive
    from deploy.night.replay import replay_lines
    from deploy.settings import load_settings
    from validation.quarantine import choose_refusals, read_quarantine

    try:
        folder = find_run(run, config=config)
        rows = choose_refusals(read_quarantine(folder), reason=reason)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        settings = load_settings(config)
        result = replay_lines(
            settings,
            folder,
            rows,
            target=folder / "replay" / stamp,
            waveforms=waveform_archive(settings),
            images=image_archive(settings),
        )
    except (DeployError, ValidationError) as error:
        raise _stop(error) from None
    _print(result.outcomes, f"{result.lines} line(s) of {folder.name} read again")
    if result.lost:
        console.print(f"{result.lost} row(s) could not be traced to a line that is still there.")
    console.print_json(json.dumps({"lines": result.lines, "accepted": result.accepted, "lost": result.lost}))
