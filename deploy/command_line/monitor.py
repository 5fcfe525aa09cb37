"""``nightingale monitor``: what became of the patients that were scored."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from deploy.command_line.options import ConfigOption

app = typer.Typer(add_completion=False)
console = Console()


@app.command("monitor")
def monitor_command(
    config: ConfigOption = None,
    day: Annotated[str | None, typer.Option(help="Name of the run; unset, today's date.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Join later outcomes to earlier scores, measure, and alarm by rule. Exit code 1 with an alarm.

    Example: nightingale monitor --config site.toml
    """
    from deploy.monitoring_job import steps
    from deploy.settings import CONFIG_VARIABLE

    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config.resolve())
    job = steps.open_job(day=day)
    counts = steps.join_outcomes(job)
    steps.measure(job)
    page = steps.report(job)
    summary = steps.read_summary(Path(job["run"]["folder"]))
    alarms = steps.alarm(job)
    if as_json:
        typer.echo(json.dumps(summary, indent=2, sort_keys=True))
    else:
        table = Table("Model", "From", "Scored", "Known", "Events", "AUROC", "High risk")
        for window in summary["windows"]:
            auroc = window["metrics"]["auroc"] if window["metrics"] else None
            table.add_row(
                f"{window['role']} {window['digest'][:12]}",
                window["start"][:10],
                str(window["scored"]),
                str(window["known"]),
                "too few" if window["events"] is None else str(window["events"]),
                "–"
                if auroc is None
                else f"{auroc['value']:.3f} ({auroc['lower']:.3f} to {auroc['upper']:.3f})",
                f"{100 * window['alert_rate']:.1f} %",
            )
        console.print(
            f"{counts['scores']} scores, the outcome of {counts['known']} is known", highlight=False
        )
        console.print(table)
        for item in alarms:
            console.print(
                f"ALARM {item['rule']}, model {item['digest'][:12]}: {item['text']}",
                style="bold red",
                highlight=False,
            )
        console.print(f"Page   {page}", highlight=False, soft_wrap=True)
    if alarms:
        raise typer.Exit(1)
