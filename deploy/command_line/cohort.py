"""``nightingale cohort``: the labelled samples of a task, and what led to them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import polars as pl
import typer

from deploy.command_line.mapping import console, print_frame, stop
from modelling.errors import ModellingError

if TYPE_CHECKING:
    from modelling.cohorts.tasks import TaskSpec
    from modelling.cohorts.training import Cohort

app = typer.Typer(no_args_is_help=True, add_completion=False)


@dataclass(frozen=True)
class Clock:
    """When landmark mode asks."""

    at: time
    zone: str


@app.command("cohort")
def cohort_command(
    task: Annotated[str, typer.Option("--task", help="Name of a task, or all.")],
    data: Annotated[Path, typer.Option("--data", help="Folder of mapped tables.")],
    landmark: Annotated[
        bool, typer.Option("--landmark", help="Ask every night, as in deployment, not as the benchmark.")
    ] = False,
    at: Annotated[str, typer.Option("--at", help="Clock of the nights, HH:MM.")] = "06:00",
    zone: Annotated[str, typer.Option("--zone", help="Zone of that clock.")] = "America/New_York",
    out: Annotated[
        Path | None, typer.Option("--out", help="Write samples (and labels, attrition) into this folder.")
    ] = None,
    splits: Annotated[
        Path | None, typer.Option("--splits", help="Published splits: subject_id, split. Default: by hash.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown, as docs/cohorts.md has it.")
    ] = False,
) -> None:
    """Build a cohort: inclusion with its attrition, prediction times, labels and the split of patients."""
    from modelling.cohorts.folder import build_cohort
    from modelling.cohorts.splits import read_splits, split_subjects
    from modelling.cohorts.tasks import TASKS, get_task

    clock = Clock(_clock(at), zone)
    try:
        published = read_splits(splits) if splits else None
        for spec in TASKS.values() if task == "all" else [get_task(task)]:
            try:
                cohort = build_cohort(
                    data, spec, mode="landmark" if landmark else None, clock=clock.at, zone=clock.zone
                )
            except ModellingError as error:
                if task != "all":
                    raise
                console.print(f"{spec.name}: not possible here: {error}", highlight=False, soft_wrap=True)
                continue
            divided = published if published is not None else split_subjects(cohort.samples["subject_id"])
            show = _print_markdown if markdown else _print
            show(spec, cohort, divided, landmark=landmark, clock=clock)
            if out is not None:
                _write(cohort, spec, divided, out)
    except ModellingError as error:
        raise stop(error) from None


def _clock(text: str) -> time:
    try:
        return time.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("expected HH:MM", param_hint="--at") from None


def _title(spec: TaskSpec, *, landmark: bool, clock: Clock) -> str:
    mode = f"nights at {clock.at:%H:%M} {clock.zone}" if landmark else "benchmark"
    if spec.label == "cardiovascular":
        mode = "every ECG"
    return f"{spec.name}: {spec.title} ({mode})"


def _describe_splits(cohort: Cohort, divided: pl.DataFrame) -> str:
    placed = cohort.samples.select("subject_id").unique().join(divided, on="subject_id", how="left")
    counts = dict(placed.group_by("split").len().sort("split", nulls_last=True).iter_rows())
    return ", ".join(f"{n} {name or 'in no split'}" for name, n in counts.items())


def _print(spec: TaskSpec, cohort: Cohort, divided: pl.DataFrame, *, landmark: bool, clock: Clock) -> None:
    print_frame(cohort.attrition, title=_title(spec, landmark=landmark, clock=clock))
    console.print(f"labels: {describe_labels(spec, cohort)}", soft_wrap=True)
    console.print(f"patients: {_describe_splits(cohort, divided)}\n", soft_wrap=True)


def _print_markdown(
    spec: TaskSpec, cohort: Cohort, divided: pl.DataFrame, *, landmark: bool, clock: Clock
) -> None:
    lines = [f"### {_title(spec, landmark=landmark, clock=clock)}", ""]
    lines += ["| step | stays | patients | samples |", "|---|---|---|---|"]
    lines += [f"| {step} | {a} | {b} | {c} |" for step, a, b, c in cohort.attrition.iter_rows()]
    lines += [
        "",
        f"Labels: {describe_labels(spec, cohort)}. Patients: {_describe_splits(cohort, divided)}.",
        "",
    ]
    typer.echo("\n".join(lines))


def describe_labels(spec: TaskSpec, cohort: Cohort) -> str:
    """Say in a line how a cohort's labels are distributed."""
    samples = cohort.samples
    if samples.is_empty():
        return "none"
    if cohort.labels is not None:
        names = cohort.labels.columns[2:]
        positive = cohort.labels.select(pl.col(names).sum()).row(0, named=True)
        most = sorted(positive.items(), key=lambda item: (-item[1], item[0]))
        return f"{len(names)} phenotypes, most often " + ", ".join(f"{name} {n}" for name, n in most[:3])
    if spec.kind == "binary":
        n = int(samples["boolean_value"].sum())
        return f"{n} of {samples.height} positive ({n / samples.height:.1%})"
    values = samples["float_value"].to_numpy()
    if spec.kind == "multiclass":
        from modelling.cohorts.cardiovascular import CLASSES

        return ", ".join(f"{name} {(values == number).sum()}" for number, name in enumerate(CLASSES))
    return f"median {np.median(values):.3g} {spec.unit}, {values.min():.3g} to {values.max():.3g}"


def _write(cohort: Cohort, spec: TaskSpec, divided: pl.DataFrame, out: Path) -> None:
    from validation.contracts import write_table

    folder = out / spec.name
    write_table(cohort.samples, "samples", folder / "samples.parquet")
    cohort.attrition.write_csv(folder / "attrition.csv")
    divided.write_parquet(folder / "splits.parquet")
    if cohort.labels is not None:
        cohort.labels.write_parquet(folder / "labels.parquet")
