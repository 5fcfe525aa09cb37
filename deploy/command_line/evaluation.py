"""``nightingale evaluate``: a trained model on mapped tables with known outcomes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

app = typer.Typer(no_args_is_help=True, add_completion=False)
_ERRORS = Console(stderr=True)


@app.command("evaluate")
def evaluate_command(
    data: Annotated[
        Path, typer.Option(help="Folder of mapped tables with outcomes, such as map-physionet2012 writes.")
    ],
    run: Annotated[Path, typer.Option(help="Model folder: weights.safetensors, config.json, card.json.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole evaluation as JSON.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Also write evaluation.json, .html, .png and .svg to this folder.")
    ] = None,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples.", min=1)] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:N.")] = "auto",
) -> None:
    """Score every labelled sample of DATA with the model RUN and say how good the scores are."""
    from modelling.catalogue import load_catalogue
    from modelling.errors import ModellingError
    from modelling.evaluation import write_evaluation
    from modelling.evaluation.mapped import evaluate_folder, read_mapped
    from modelling.scoring import load_model

    try:
        model = load_model(run, device=device, catalogue_digest=load_catalogue().digest)
        folder = read_mapped(data)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=_ERRORS, transient=True) as bar:
            task = bar.add_task("scoring", total=None)
            evaluation, _ = evaluate_folder(
                model,
                folder,
                resamples=resamples,
                seed=seed,
                progress=lambda stage, done, total: bar.update(task, completed=done, total=total),
            )
        if out is not None:
            write_evaluation(evaluation, out)
    except ModellingError as error:
        _ERRORS.print(f"error: {error}", style="red", highlight=False, markup=False)
        raise typer.Exit(1) from None
    fields = {**evaluation.to_dict(), "model_digest": model.digest}
    if as_json:
        typer.echo(json.dumps(fields, indent=2, sort_keys=True))
    else:
        _show(fields, out)


def _show(fields: dict[str, Any], out: Path | None) -> None:
    from modelling.evaluation.report import NAMES

    console = Console()
    share = f", {fields['events']} with the outcome" if fields["events"] is not None else ""
    console.print(f"{fields['model']}: {fields['task']}, {fields['samples']} samples{share}", markup=False)
    for reason, n in fields["skipped"].items():
        console.print(f"not scored: {n} ({reason})", markup=False)
    table = Table("Metric", "Value", "95 % interval")
    for name, interval in fields["metrics"].items():
        numbers = [
            "–" if interval[key] is None else f"{interval[key]:.4f}" for key in ("value", "lower", "upper")
        ]
        table.add_row(NAMES.get(name, name), numbers[0], f"{numbers[1]} to {numbers[2]}")
    console.print(table)
    if out is not None:
        console.print(f"Report: {out / 'evaluation.html'}", markup=False)
