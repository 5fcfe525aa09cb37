"""Commands of the catalogue and the mapper: catalogue, map-mimic, map-physionet2012, compare-sources."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from modelling.errors import ModellingError

app = typer.Typer(no_args_is_help=True, help="The feature catalogue and the mapping of training data.")
console = Console(width=None if sys.stdout.isatty() else 140)  # a pipe has no width of its own
Folder = Annotated[Path | None, typer.Option("--catalogue", help="Folder of the catalogue's files.")]


def print_frame(frame: pl.DataFrame, *, title: str) -> None:
    """Print a frame as a table."""
    table = Table(title=title, title_justify="left")
    for name, dtype in frame.schema.items():
        table.add_column(name, justify="right" if dtype.is_numeric() else "left", overflow="fold")
    for row in frame.iter_rows():
        table.add_row(*("" if value is None else str(value) for value in row))
    console.print(table)


class Bars:
    """Shows progress: one bar a stage."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Move the bar of a stage; a total of 0 is not known."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total or None)
        self._progress.update(self._tasks[stage], completed=done, total=total or None)


def stop(error: ModellingError) -> typer.Exit:
    """Print what is wrong and what to do; exit code 2."""
    Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
    return typer.Exit(2)


@app.command("catalogue")
def catalogue_command(
    folder: Folder = None,
    codes: Annotated[bool, typer.Option("--codes", help="List the codes of every feature.")] = False,
    site_codes: Annotated[
        Path | None, typer.Option("--site-codes", help="CSV file of a site's own codings, checked and added.")
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the list as CSV instead.")] = None,
) -> None:
    """Print the feature catalogue: features, units, ranges and codes."""
    from modelling.catalogue import add_site_codes, load_catalogue

    try:
        catalogue = load_catalogue(folder)
        if site_codes:
            catalogue = add_site_codes(catalogue, site_codes)
    except ModellingError as error:
        raise stop(error) from None
    counts = catalogue.codes.group_by("feature").agg(pl.len().alias("codes"))
    frame = catalogue.features.select(
        "feature", "kind", "direction", "unit", "low", "high", "normal", "sets"
    ).join(counts, on="feature", how="left")
    if codes:
        frame = catalogue.codes.select(
            "feature", "system", "code", "expected", "fluid", "unit", "unit_source", "priority"
        ).sort("feature", "system", "priority")
    if csv:
        frame.write_csv(csv)
        console.print(f"{frame.height} rows written to {csv}")
        return
    print_frame(frame, title=f"{catalogue.features.height} features, catalogue {catalogue.digest[:12]}")


def _print_summary(summary: dict[str, Any], out: Path) -> None:
    counts = pl.DataFrame(
        [("rows", key, int(n)) for key, n in sorted(summary["counts"].items())]
        + [("refused", key, int(n)) for key, n in sorted(summary["reasons"].items())]
        + [
            (table, key, int(n))
            for table in ("recordings", "images")
            for key, n in summary.get(table, {}).items()
        ]
        + [("", key, int(n)) for key, n in summary.items() if isinstance(n, int)],
        schema={"": pl.String, "what": pl.String, "n": pl.Int64},
        orient="row",
    )
    print_frame(counts, title=str(out))
    unmapped = pl.read_csv(out / "unmapped.csv").with_columns(
        pl.col("coding").str.extract("(?:mimic-)?([^/]*)$")
    )
    if unmapped.height:
        print_frame(unmapped.head(10), title=f"unmapped codes, most frequent of {unmapped.height}")


@app.command("map-mimic")
def map_mimic_command(
    mimic: Annotated[Path, typer.Option("--mimic", help="Folder with hosp/ and icu/.")],
    out: Annotated[Path, typer.Option("--out", help="Output folder; a run that was stopped goes on.")],
    shards: Annotated[int | None, typer.Option("--shards", min=1, help="Number of shards.")] = None,
    chartevents: Annotated[
        Path | None, typer.Option("--chartevents", help="Another chartevents file.")
    ] = None,
    meds: Annotated[Path | None, typer.Option("--meds", help="Also write a MEDS dataset here.")] = None,
    splits: Annotated[
        Path | None, typer.Option("--splits", help="Published splits: subject_id, split.")
    ] = None,
    ecg: Annotated[Path | None, typer.Option("--ecg", help="Folder of MIMIC-IV-ECG.")] = None,
    cxr: Annotated[Path | None, typer.Option("--cxr", help="Folder of MIMIC-CXR-JPG or MIMIC-CXR.")] = None,
    folder: Folder = None,
) -> None:
    """Map MIMIC-IV's official tables to events, and its ECGs and radiographs to recordings and images."""
    from deploy.mimic_archives import archives
    from modelling.catalogue import load_catalogue
    from modelling.cohorts.splits import read_splits
    from modelling.mapping.meds_export import write_meds
    from modelling.mimic import map_mimic

    try:
        catalogue = load_catalogue(folder)
        published = read_splits(splits) if splits else None
        with Bars() as bars:
            summary = map_mimic(
                mimic=mimic,
                out=out,
                catalogue=catalogue,
                n_shards=shards,
                chartevents=chartevents,
                beside=archives(ecg=ecg, cxr=cxr),
                progress=bars,
            )
            if meds:
                write_meds(out, meds, catalogue=catalogue, splits=published, progress=bars)
    except ModellingError as error:
        raise stop(error) from None
    _print_summary(summary, out)


@app.command("map-physionet2012")
def map_physionet2012_command(
    records: Annotated[Path, typer.Option("--records", help="Parquet file, text record or folder of them.")],
    outcomes: Annotated[Path, typer.Option("--outcomes", help="Outcomes, Parquet or text.")],
    out: Annotated[Path, typer.Option("--out", help="Output folder.")],
    shards: Annotated[int, typer.Option("--shards", min=1, help="Number of shards.")] = 4,
    folder: Folder = None,
) -> None:
    """Map a set of the PhysioNet/CinC Challenge 2012 to events."""
    from modelling.catalogue import load_catalogue
    from modelling.physionet2012 import map_physionet2012

    try:
        with Bars() as bars:
            summary = map_physionet2012(
                records=records,
                outcomes_file=outcomes,
                out=out,
                catalogue=load_catalogue(folder),
                n_shards=shards,
                progress=bars,
            )
    except ModellingError as error:
        raise stop(error) from None
    _print_summary(summary, out)


@app.command("compare-sources")
def compare_sources_command(
    mimic: Annotated[Path, typer.Option("--mimic", help="Folder with hosp/ and icu/.")],
    fhir: Annotated[Path, typer.Option("--fhir", help="MIMIC-IV on FHIR of the same patients.")],
    folder: Folder = None,
) -> None:
    """Show that tables and FHIR give the same events; exit code 1 if a difference is unexplained."""
    from deploy.compare_sources import compare_sources
    from modelling.catalogue import load_catalogue

    try:
        compared = compare_sources(mimic=mimic, fhir=fhir, catalogue=load_catalogue(folder))
    except ModellingError as error:
        raise stop(error) from None
    print_frame(
        compared.by_feature.rename({"only_left": "only_tables", "only_right": "only_fhir"}), title="events"
    )
    sides = pl.col("side").replace({"left": "tables", "right": "fhir"})
    causes = (
        compared.differences.with_columns(sides)
        .group_by("side", "origin", "cause")
        .agg(pl.col("n").sum())
        .sort("n", descending=True)
    )
    print_frame(causes, title="differences by cause")
    console.print(
        f"{compared.equal} events of {compared.subjects} patients equal, "
        f"{compared.unexplained} differences unexplained"
    )
    if compared.unexplained:
        raise typer.Exit(1)
