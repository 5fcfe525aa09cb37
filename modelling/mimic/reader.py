"""``map_mimic``: the official folder layout of MIMIC-IV 2.x and 3.x to a table folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl

from modelling.catalogue import Catalogue
from modelling.errors import SourceTableError
from modelling.mapping.folder import Progress, TableFolder, no_progress
from modelling.mimic import files
from modelling.mimic.compact import COMPACT, write_official_layout
from modelling.mimic.files import Schema, table_path
from modelling.mimic.infections import TABLES as INFECTION_TABLES
from modelling.mimic.infections import read_suspicions
from modelling.mimic.observations import chart_observations, lab_observations, output_observations
from modelling.mimic.staging import ROWS_IN_MEMORY, Staging
from modelling.mimic.stays import read_diagnoses, read_encounters, read_outcomes, read_procedures
from modelling.mimic.supports import TABLES as SUPPORT_TABLES
from modelling.mimic.supports import read_supports
from validation.contracts import empty

Shaper = Callable[..., pl.DataFrame]
TABLES: tuple[tuple[str, str, Schema, Shaper], ...] = (
    ("icu/chartevents", "chart", files.CHARTEVENTS, chart_observations),
    ("hosp/labevents", "lab", files.LABEVENTS, lab_observations),
    ("icu/outputevents", "items", files.OUTPUTEVENTS, output_observations),
)
"""Table, alias of its code system, columns, and what makes observations of its rows."""
Beside = Callable[..., dict[str, int]]
"""Maps files that lie beside the tables: called with folder, encounters and ``progress``; returns counts."""
ROWS_A_SHARD = 200_000
"""Rows of catalogue items that a shard is planned for."""
SHARDS_AT_A_TIME = 2
"""Shards that are mapped at a time; memory grows with it."""


def check_dictionaries(root: Path, catalogue: Catalogue) -> None:
    """Compare the catalogue's item labels and fluids with the dictionaries of this release.

    Item ids have been given to other tests between releases; a label that differs would feed a model with
    another substance.

    Raises
    ------
    SourceTableError
        Naming the items.
    """
    labs = files.read_table(root, "hosp/d_labitems", files.D_LABITEMS)
    items = files.read_table(root, "icu/d_items", files.D_ITEMS)
    for alias, name, dictionary in (
        ("lab", "d_labitems", labs),
        ("chart", "d_items", items),
        ("items", "d_items", items),
    ):
        known = catalogue.codes_of(alias).select(
            pl.col("code").cast(pl.Int32).alias("itemid"), "expected", "fluid"
        )
        listed = known.join(dictionary, on="itemid", how="inner")
        other = listed.filter(pl.col("expected") != pl.col("label"))
        if alias == "lab":
            other = listed.filter(
                (pl.col("expected") != pl.col("label")) | (pl.col("fluid") != pl.col("fluid_right"))
            )
        if other.height:
            ids = ", ".join(str(item) for item in other["itemid"].sort())
            raise SourceTableError(
                f"{name}: item {ids} means something else here than in the catalogue; correct codes.csv for "
                "this release before mapping"
            )


def map_mimic(
    *,
    mimic: Path,
    out: Path,
    catalogue: Catalogue,
    n_shards: int | None = None,
    chartevents: Path | None = None,
    rows_in_memory: int = ROWS_IN_MEMORY,
    beside: Sequence[Beside] = (),
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Map a MIMIC-IV folder to a table folder (:mod:`modelling.mapping.folder`).

    Each large table is read once, in batches; rows of catalogue items go to shards of subjects, which are
    then mapped one at a time. A run that was interrupted goes on where it stopped.

    Parameters
    ----------
    mimic
        Folder that holds ``hosp/`` and ``icu/``.
    out
        Output folder.
    n_shards
        Number of shards; by the size of chartevents when None.
    chartevents
        Another file for chartevents, with the official columns.
    rows_in_memory
        Rows of a large table that may wait in memory.
    beside
        What else to map: :func:`modelling.mimic.ecg.map_ecg` and :func:`modelling.mimic.cxr.map_cxr`, bound to
        their folder and decoder.

    Raises
    ------
    SourceTableError
        Naming file, column and what to do.
    """
    check_dictionaries(mimic, catalogue)
    paths = {name: table_path(mimic, name) for name, *_ in TABLES if name != "icu/chartevents"}
    paths["icu/chartevents"] = chartevents or _chartevents(mimic, out)
    if n_shards is None:
        n_shards = plan_shards(paths["icu/chartevents"])
    folder = TableFolder(
        out,
        catalogue=catalogue,
        source={
            "kind": "mimic-iv",
            "bytes": {name: path.stat().st_size for name, path in sorted(paths.items())},
        },
        n_shards=n_shards,
    )
    encounters = read_encounters(mimic)
    folder.write_stays(encounters, read_outcomes(mimic), read_diagnoses(mimic), read_procedures(mimic))
    for name, needed, read in (
        ("suspicions", INFECTION_TABLES, read_suspicions),
        ("supports", SUPPORT_TABLES, read_supports),
    ):
        # Only sepsis asks for these; a folder without the tables answers all other questions.
        if _has_tables(mimic, needed):
            read(mimic).write_parquet(out / f"{name}.parquet")
    todo = folder.missing()
    if todo:
        map_tables(folder, todo, paths, catalogue, rows_in_memory=rows_in_memory, progress=progress)
    found: dict[str, int] = {}
    for part in beside:
        found |= part(folder, encounters, progress=progress)
    summary = folder.finish()
    name_unmapped(out, mimic, catalogue)
    return {
        **summary,
        **found,
        "icu_stays": encounters.filter(pl.col("kind") == "icu").height,
        "admissions": encounters.filter(pl.col("kind") == "hospital").height,
        "patients": encounters["subject_id"].n_unique(),
    }


def name_unmapped(out: Path, mimic: Path, catalogue: Catalogue) -> None:
    """Add ``label`` and, for laboratory items, ``fluid`` to ``unmapped.csv``, for the terminologist."""
    labs = files.read_table(mimic, "hosp/d_labitems", files.D_LABITEMS)
    items = files.read_table(mimic, "icu/d_items", files.D_ITEMS)
    names = pl.concat(
        [
            dictionary.select(
                pl.format("{}|{}", pl.lit(catalogue.system_url(alias)), "itemid").alias("coding"), *columns
            )
            for alias, dictionary, columns in (
                ("lab", labs, ("label", "fluid")),
                ("chart", items, ("label",)),
                ("items", items, ("label",)),
            )
        ],
        how="diagonal",
    ).unique("coding")
    path = out / "unmapped.csv"
    unmapped = pl.read_csv(path, schema_overrides={"coding": pl.String})
    unmapped.join(names, on="coding", how="left", maintain_order="left").write_csv(path)


def read_observations(mimic: Path, *, catalogue: Catalogue, work: Path) -> pl.DataFrame:
    """Return all rows of the large tables as observations, in memory: for small extracts and proofs.

    Raises
    ------
    SourceTableError
        Naming file, column and what to do.
    """
    check_dictionaries(mimic, catalogue)
    said = []
    for name, alias, schema, shape in TABLES:
        path = _chartevents(mimic, work) if name == "icu/chartevents" else table_path(mimic, name)
        rows = files.with_times(pl.concat(list(files.batches(files.scan_table(path, schema), path))))
        said.append(shape(rows, system=catalogue.system_url(alias), source_file=path.name))
    return pl.concat(said)


def _chartevents(mimic: Path, out: Path) -> Path:
    """Return chartevents, made from the compact form where the folder has only that."""
    compact = mimic / COMPACT
    if compact.is_file() and not any((mimic / "icu").glob("chartevents.*")):
        return write_official_layout(compact, out / "staging" / "chartevents.parquet")
    return table_path(mimic, "icu/chartevents")


def _has_tables(mimic: Path, names: Sequence[str]) -> bool:
    try:
        for name in names:
            table_path(mimic, name)
    except SourceTableError:
        return False
    return True


def plan_shards(chartevents: Path) -> int:
    """Return a number of shards such that one holds about :data:`ROWS_A_SHARD` rows of catalogue items.

    About a quarter of chartevents is of catalogue items; a row takes about nine bytes compressed, ninety
    plain.
    """
    bytes_a_row = {".csv": 90, ".parquet": 4}.get(chartevents.suffix, 9)
    return max(1, round(chartevents.stat().st_size / bytes_a_row / 4 / ROWS_A_SHARD))


def map_tables(
    folder: TableFolder,
    todo: list[int],
    paths: dict[str, Path],
    catalogue: Catalogue,
    *,
    rows_in_memory: int,
    progress: Progress,
) -> None:
    """Read the large tables into shards, and map the shards that are still missing."""
    staged: dict[str, Staging] = {}
    for name, alias, schema, _ in TABLES:
        if name not in paths:
            continue
        staging = Staging(
            folder.root / "staging" / Path(name).name, n_shards=folder.n_shards, rows_in_memory=rows_in_memory
        )
        items = catalogue.codes_of(alias)["code"].cast(pl.Int32).to_list()
        staging.fill(paths[name], schema, items=items, progress=progress, stage=f"read {Path(name).name}")
        staged[name] = staging
    urls = {name: catalogue.system_url(alias) for name, alias, *_ in TABLES}
    folder.note_unmapped(
        {
            f"{urls[name]}|{item}": n
            for name, staging in staged.items()
            for item, n in staging.other_items.items()
        }
    )

    def write(shard: int) -> None:
        said = [
            shape(rows, system=urls[name], source_file=paths[name].name)
            for name, _, _, shape in TABLES
            if name in staged and (rows := staged[name].read(shard)).height
        ]
        folder.write_shard(shard, pl.concat(said) if said else empty("observations"))

    with ThreadPoolExecutor(SHARDS_AT_A_TIME) as threads:
        # While one shard is compressed and hashed, on one core, the next is mapped on the others.
        written = [threads.submit(write, shard) for shard in todo]
        try:
            for done, shard in enumerate(written):
                progress("map", done, len(todo))
                shard.result()
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    progress("map", len(todo), len(todo))
    for staging in staged.values():
        staging.clear()
