"""``nightingale doctor``: check a site before its first night, and after every change."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from deploy.command_line.options import ConfigOption
from deploy.doctor.check import Check, State

app = typer.Typer(no_args_is_help=False, add_completion=False)
COLOURS = {State.OK: "green", State.WARNING: "yellow", State.FAILED: "red"}


@app.command("doctor")
def doctor_command(
    config: ConfigOption = None,
    hapi: Annotated[
        bool, typer.Option("--hapi", help="Fail also where `make demo FHIR=hapi` lacks a program.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
) -> None:
    """Check programs, settings, connections, rights, codes, pools, disk, clock, model and database.

    One line a check: ok, warning or failed, and what to do. Exit code 1 where a check failed.

    Example: nightingale doctor --config site.toml
    """
    from deploy.doctor.examine import examine

    console = Console()
    checks = examine(config=config, hapi=hapi, tell=None if as_json else lambda check: _show(console, check))
    bad = [check for check in checks if check.state is State.FAILED]
    if as_json:
        fields = {"ok": not bad, "checks": [check.to_dict() for check in checks]}
        typer.echo(json.dumps(fields, indent=2))
    else:
        counts = {state: sum(check.state is state for check in checks) for state in State}
        console.print(", ".join(f"{n} {state}" for state, n in counts.items()))
    raise typer.Exit(1 if bad else 0)


def _show(console: Console, check: Check) -> None:
    line = Text.assemble(
        (f"{check.state:<8}", COLOURS[check.state]), (f"{check.subject}: ", "bold"), check.found
    )
    console.print(line, soft_wrap=True)
    if check.remedy and check.state is not State.OK:
        console.print(Text(f"        → {check.remedy}", "dim"), soft_wrap=True)
