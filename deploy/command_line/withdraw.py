"""``nightingale withdraw``: a run's or a model's scores marked entered-in-error where they were written."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from deploy.command_line.options import ConfigOption
from deploy.command_line.progress import StageBars

app = typer.Typer(no_args_is_help=True, add_completion=False)
console = Console()


@app.command("withdraw", no_args_is_help=True)
def withdraw_command(
    run: Annotated[
        str | None, typer.Option(help="Name of the run, such as 2026-01-19 or replay-icu+48h.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Digest of the model's weights, or its first eight or more characters."),
    ] = None,
    also_amended: Annotated[
        bool, typer.Option(help="Mark scores that someone has changed too; their changes stay.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
    config: ConfigOption = None,
) -> None:
    """Mark written scores entered-in-error; a rerun of their night does not write them again.

    Scores that someone has changed at the destination are left alone and counted. Exit code 1 where a
    score could not be marked.

    Examples:

      nightingale withdraw --run 2026-01-19

      nightingale withdraw --model 3fa9c1d2 --yes
    """
    from deploy.errors import SettingsError
    from deploy.night.connections import database
    from deploy.night.writing import open_destination
    from deploy.settings import load_settings
    from fhir_adapter.store import Ledger
    from fhir_adapter.write_back import withdraw

    if run is None and model is None:
        raise SettingsError("say what to withdraw: --run NAME, --model DIGEST, or both")
    settings = load_settings(config)
    destination = open_destination(settings)
    ledger = Ledger(database(settings))
    try:
        digest = None if model is None else _digest(model, ledger.models(destination.key))
        found = ledger.find(
            destination.key, run=run, model_digest=digest, resource_type="RiskAssessment", withdrawn=False
        )
        if not found:
            names = ", ".join(ledger.runs(destination.key)[-5:]) or "none"
            raise SettingsError(f"no score of that run or model was written; latest runs: {names}")
        if not yes:
            typer.confirm(f"Mark {len(found)} score(s) entered-in-error?", abort=True)
        with StageBars() as bars:
            summary = withdraw(
                ledger=ledger,
                destination=destination,
                run=run,
                model_digest=digest,
                also_amended=also_amended,
                progress=lambda done, total: bars("withdraw", done, total),
            )
    finally:
        ledger.close()
    if as_json:
        typer.echo(json.dumps(summary.to_dict(), indent=2))
    else:
        table = Table("Scores", "n")
        for name, count in summary.to_dict().items():
            if isinstance(count, int):
                table.add_row(name.replace("_", " "), str(count))
        for name, count in summary.errors.items():
            table.add_row(f"failed: {name.replace('_', ' ')}", str(count))
        console.print(table)
    if summary.failed:
        raise typer.Exit(1)


def _digest(text: str, known: list[str]) -> str:
    """Return the one digest that begins with a text.

    Raises
    ------
    SettingsError
        If none or several do.
    """
    from deploy.errors import SettingsError

    matches = [digest for digest in known if digest.startswith(text)]
    if len(text) < 8 or len(matches) != 1:
        shown = ", ".join(digest[:12] for digest in known) or "none"
        raise SettingsError(f"--model {text}: names no single model that wrote scores; they are: {shown}")
    return matches[0]
