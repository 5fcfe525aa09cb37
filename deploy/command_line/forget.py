"""``nightingale forget``: a patient's right to be forgotten, carried out and proven."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy.command_line.options import ConfigOption

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command("forget")
def forget_command(
    patient: Annotated[str, typer.Option(help="FHIR id of the patient.")],
    config: ConfigOption = None,
    encounter: Annotated[
        list[str] | None, typer.Option(help="Further encounter id, of runs whose folders are gone.")
    ] = None,
    audit_key_env: Annotated[
        str | None,
        typer.Option(
            help="Environment variable with the audit log's key; unset, that of storage.audit_key_env."
        ),
    ] = None,
    scan: Annotated[
        list[Path] | None, typer.Option(help="Further folder to search, such as Airflow's logs.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; this cannot be undone.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Remove a patient from run folders, downloads, arrays, quarantine, written files, audit log and database.

    Then search everything again; exit code 1 where a trace is left. Not reached: the source system, scores on a
    FHIR server (`nightingale withdraw` marks those), backups, copies that others made.

    Example: nightingale forget --patient 4711 --config site.toml
    """
    from deploy.forget.erase import ForgetError, forget
    from deploy.night.auditing import audit_key
    from deploy.settings import load_settings

    console = Console()
    settings = load_settings(config)
    variable = audit_key_env or settings.storage.audit_key_env
    key = audit_key(variable) if variable else None
    if not yes:
        typer.confirm(f"Forget one patient at {settings.site.name} for good?", abort=True)
    try:
        erased = forget(
            settings,
            patient=patient,
            encounters=encounter or (),
            audit_key=key,
            scan=scan or (),
            now=datetime.now(UTC),
        )
    except ForgetError as error:
        Console(stderr=True).print(
            f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps(erased.to_dict(), indent=2))
        return
    if not erased.known:
        console.print(
            "No table knows this patient; files, audit log and database were searched all the same."
        )
    for name in ("rows", "arrays", "lines", "audit_events", "ledger_rows", "quarantine_blanked"):
        console.print(f"{name.replace('_', ' '):<20}{getattr(erased, name):>10}")
    searched = f"{erased.files_searched} files with {erased.rows_searched} rows or lines"
    console.print(
        f"searched again: {searched}, {erased.database_rows_searched} database rows: nothing left",
        soft_wrap=True,
    )
    console.print(f"record: {erased.record}", soft_wrap=True, highlight=False)
