"""``nightingale train``: a model on mapped tables with known outcomes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from deploy.command_line.mapping import Bars

if TYPE_CHECKING:
    import polars as pl

    from modelling.evaluation.mapped import MappedFolder
    from modelling.training import Auxiliary, TrainedRun, TrainingConfig

app = typer.Typer(no_args_is_help=True, add_completion=False)
_ERRORS = Console(stderr=True)


@app.command("train")
def train_command(
    task: Annotated[str, typer.Option(help="in-hospital-mortality, phenotyping, icu-length-of-stay, ...")],
    model: Annotated[str, typer.Option(help="medfuse, mufuse, medm2t or nightingale.")],
    data: Annotated[
        Path, typer.Option(help="Folder of mapped tables with outcomes, such as map-mimic writes.")
    ],
    out: Annotated[Path, typer.Option(help="Model folder to write; a run that was stopped there goes on.")],
    preset: Annotated[
        str | None, typer.Option(help="demo or paper; the model's defaults without it.")
    ] = None,
    settings: Annotated[Path | None, typer.Option(help="JSON file with settings.")] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="One setting, such as epochs=20 or model.width=64; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of split, weights, order and noise.")] = 0,
    seeds: Annotated[int, typer.Option(help="Train so many seeds, into OUT/seed-N.", min=1)] = 1,
    search: Annotated[
        int, typer.Option(help="Draw so many learning rates at random, keep the best on the tuning split.")
    ] = 0,
    start_from: Annotated[
        Path | None, typer.Option(help="Model folder whose weights are taken where names and shapes agree.")
    ] = None,
    other_patients: Annotated[
        bool, typer.Option("--other-patients", help="No patient of DATA was in the training of START_FROM.")
    ] = False,
    also: Annotated[
        list[str] | None, typer.Option("--also", help="A further task to learn beside TASK; may be repeated.")
    ] = None,
    image_labels: Annotated[
        bool, typer.Option("--image-labels", help="Train the image encoder on DATA's 14 X-ray labels first.")
    ] = False,
    description: Annotated[str, typer.Option(help="What the data are, for the model card.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print digest and metrics as JSON.")] = False,
) -> None:
    """Train MODEL on the labelled samples of DATA; leaves weights, configuration, card, metrics and curves.

    On a GPU, mixed precision and torch.compile are on unless set otherwise. With torchrun, all processes
    train one model: torchrun --nproc-per-node=2 -m deploy.command_line.training --task ...
    """
    from modelling.errors import ModellingError
    from modelling.training.workers import current_workers, leave_workers

    try:
        config = read_settings(model, preset, settings, change or [], device=device)
        runs = _train(
            task=task,
            model=model,
            data=data,
            out=out,
            config=config,
            seeds=range(seed, seed + seeds),
            search=search,
            start_from=start_from,
            other_patients=other_patients,
            also=also or [],
            image_labels=image_labels,
            description=description,
        )
    except ModellingError as error:
        _ERRORS.print(f"error: {error}", style="red", highlight=False, markup=False)
        raise typer.Exit(1) from None
    if current_workers().rank == 0:
        fields = [{"folder": str(run.folder), "digest": run.digest, "metrics": run.metrics} for run in runs]
        if as_json:
            typer.echo(json.dumps(fields if seeds > 1 else fields[0], indent=2, sort_keys=True))
        else:
            _show(fields)
    leave_workers()


def read_settings(
    model: str, preset: str | None, file: Path | None, changes: list[str], *, device: str = "auto"
) -> TrainingConfig:
    """Return the settings of a run: a preset, then a file, then single changes.

    Parameters
    ----------
    changes
        ``name=value`` with a JSON value (a bare word is a string); ``model.`` and ``encoding.`` reach into
        those.

    Raises
    ------
    TrainingError
        If there is no such preset or setting, or the file is not JSON.
    """
    from modelling.errors import TrainingError
    from modelling.training import PRESETS, TrainingConfig
    from modelling.training import preset as find_preset
    from modelling.training.workers import choose_device

    if preset is not None:
        find_preset(preset, model)
    fields: dict[str, Any] = _merged({}, PRESETS[preset][model]) if preset is not None else {}
    if file is not None:
        try:
            given = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TrainingError(f"{file} holds no settings in JSON ({type(error).__name__})") from None
        fields = _merged(fields, given)
    for change in changes:
        name, separator, text = change.partition("=")
        if not separator:
            raise TrainingError(f"--set {change!r} is not name=value")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        for part in reversed(name.split(".")):
            value = {part: value}
        fields = _merged(fields, value)
    on_gpu = choose_device(device).startswith("cuda")
    fast = {"precision": "bfloat16", "compile": True} if on_gpu else {}
    return replace(TrainingConfig.from_dict({**fast, **fields}), device=device)


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(first)
    for name, value in second.items():
        held = result.get(name)
        if isinstance(held, Mapping) and isinstance(value, Mapping):
            result[name] = _merged(held, value)
        else:
            result[name] = value
    return result


def _train(
    *,
    task: str,
    model: str,
    data: Path,
    out: Path,
    config: TrainingConfig,
    seeds: range,
    search: int,
    start_from: Path | None,
    other_patients: bool,
    also: list[str],
    image_labels: bool,
    description: str,
) -> list[TrainedRun]:
    from modelling.batches import Encoding
    from modelling.catalogue import load_catalogue
    from modelling.cohorts.tasks import get_task
    from modelling.errors import TrainingError
    from modelling.evaluation.mapped import labelled_cohort, read_mapped
    from modelling.registry.folder import read_folder
    from modelling.training import train
    from modelling.training.search import search_rates
    from modelling.training.workers import choose_device, join_workers

    asked = get_task(task)
    workers = join_workers(choose_device(config.device))
    folder = read_mapped(data)
    cohort = labelled_cohort(folder, task)
    heads, further = further_targets(folder, also)
    config = replace(config, auxiliary=(*config.auxiliary, *heads))
    if image_labels and folder.image_labels is None:
        raise TrainingError(f"{data} holds no image_labels.parquet; map-mimic writes it with --cxr")
    begun = read_folder(start_from) if start_from is not None else None

    kept = begun.config.get("encoding") if begun else None
    encoding = Encoding.from_dict(kept) if kept else None

    def run_seed(seed: int, target: Path, watch: Callable[[str, int, int], None] | None) -> TrainedRun:
        def once(settings: TrainingConfig, where: Path) -> TrainedRun:
            return train(
                samples=cohort.samples,
                labels=cohort.labels,
                classes=cohort.classes,
                further=further,
                kind=asked.kind,
                encounters=folder.encounters,
                events=folder.events,
                recordings=folder.recordings,
                images=folder.images,
                findings=folder.findings,
                image_labels=folder.image_labels if image_labels else None,
                run_folder=folder.root,
                catalogue=load_catalogue(),
                task=task,
                horizon_hours=asked.horizon_hours,
                model=model,
                config=settings,
                out=where,
                seed=seed,
                description=description,
                initial_weights=begun.weights if begun else None,
                encoding=encoding,
                initial_split=begun.config.get("split_digest") if begun and not other_patients else None,
                progress=watch,
            )

        return (
            search_rates(once, config, count=search, seed=seed, out=target)
            if search
            else once(config, target)
        )

    runs = []
    for seed in seeds:
        with Bars() if workers.rank == 0 else nullcontext() as bars:
            runs.append(run_seed(seed, out / f"seed-{seed}" if len(seeds) > 1 else out, bars))
    return runs


def further_targets(
    folder: MappedFolder, tasks: list[str]
) -> tuple[tuple[Auxiliary, ...], pl.DataFrame | None]:
    """Return a head for each further task, and each stay's labels of them.

    Raises
    ------
    TrainingError
        If a task has several labels.
    """
    import polars as pl

    from modelling.cohorts.tasks import get_task
    from modelling.errors import TrainingError
    from modelling.evaluation.mapped import labelled_cohort
    from modelling.training import Auxiliary

    heads: list[Auxiliary] = []
    table: pl.DataFrame | None = None
    for name in tasks:
        kind = get_task(name).kind
        if kind not in ("binary", "regression"):
            raise TrainingError(f"--also {name}: a further task answers yes or no, or with one number")
        column = "boolean_value" if kind == "binary" else "float_value"
        stays = (
            labelled_cohort(folder, name)
            .samples.group_by("encounter_id")
            .agg(pl.col(column).cast(pl.Float64).last().alias(name))
        )
        table = stays if table is None else table.join(stays, on="encounter_id", how="full", coalesce=True)
        heads.append(Auxiliary(name=name, kind=kind))
    return tuple(heads), table


def _show(runs: list[dict[str, Any]]) -> None:
    console = Console()
    for run in runs:
        names = sorted({name for split in run["metrics"].values() for name in split} - {"outputs"})
        table = Table("Split", *names, title=f"{run['folder']}  {run['digest'][:12]}", title_justify="left")
        for split, values in run["metrics"].items():
            table.add_row(split, *("–" if values.get(name) is None else str(values[name]) for name in names))
        console.print(table)


if __name__ == "__main__":
    app()
