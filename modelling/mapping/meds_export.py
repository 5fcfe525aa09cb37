"""A table folder as a MEDS dataset (https://github.com/Medical-Event-Data-Standard/meds, version 0.4).

MEDS has times without zone; they are UTC here. Birth and death are added as MEDS's own codes; everything else
that happened after discharge, diagnoses above all, stays out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import meds
import polars as pl
from pyarrow import parquet

from modelling.catalogue import Catalogue
from modelling.cohorts.splits import split_subjects
from modelling.mapping.folder import Progress, no_progress, shard_of
from validation.contracts import write_json

EXTRA = ("available_time", "encounter_id", "source_ref", "derived")


def write_meds(
    folder: Path,
    out: Path,
    *,
    catalogue: Catalogue,
    splits: pl.DataFrame | None = None,
    progress: Progress = no_progress,
) -> dict[str, int]:
    """Write a table folder's events as a MEDS dataset, one data file a shard.

    Parameters
    ----------
    folder
        What :func:`modelling.mimic.map_mimic` or :func:`modelling.physionet2012.map_physionet2012` wrote.
    splits
        ``subject_id``, ``split``; by hash when None.

    Returns
    -------
    dict
        ``events``, ``subjects``, ``codes``, ``files``.
    """
    begun = json.loads((folder / "source.json").read_text("utf-8"))
    encounters = pl.read_parquet(folder / "encounters.parquet")
    outcomes = pl.read_parquet(folder / "outcomes.parquet")
    people = encounters.group_by("subject_id").agg(pl.col("birth_date").drop_nulls().first())
    deaths = outcomes.group_by("subject_id").agg(pl.col("death_time").drop_nulls().first())
    files = sorted((folder / "events").glob("*.parquet"))
    (out / "data").mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    n_events = 0
    for number, path in enumerate(files):
        progress("write MEDS", number, len(files))
        mine = shard_of(pl.col("subject_id"), int(begun["shards"])) == int(path.stem)
        data = _with_births_and_deaths(pl.read_parquet(path), people.filter(mine), deaths.filter(mine))
        _write(data, meds.DataSchema, out / meds.data_subdirectory / f"{path.stem}.parquet")
        seen.update(data["code"].unique())
        n_events += data.height
    progress("write MEDS", len(files), len(files))
    if splits is None:
        splits = split_subjects(people["subject_id"])
    (out / "metadata").mkdir(exist_ok=True)
    _write(splits, meds.SubjectSplitSchema, out / meds.subject_splits_filepath)
    _write(_codes(catalogue), meds.CodeMetadataSchema, out / meds.code_metadata_filepath)
    write_json(
        {
            "dataset_name": begun["source"]["kind"],
            "etl_name": "nightingale",
            "etl_version": catalogue.digest[:12],
            "meds_version": "0.4.1",
            "raw_source_id_columns": ["source_ref", "encounter_id"],
            "other_extension_columns": ["available_time", "derived"],
        },
        out / meds.dataset_metadata_filepath,
    )
    return {"events": n_events, "subjects": people.height, "codes": len(seen), "files": len(files)}


def _write(frame: pl.DataFrame, schema: Any, path: Path) -> None:
    """Write a table in the Arrow types that MEDS asks for; its package refuses polars' large strings."""
    temporary = path.with_name(f".{path.name}.tmp")
    parquet.write_table(schema.align(frame.to_arrow()), temporary, compression="zstd")
    temporary.replace(path)


def _with_births_and_deaths(events: pl.DataFrame, people: pl.DataFrame, deaths: pl.DataFrame) -> pl.DataFrame:
    births = people.drop_nulls().select(
        "subject_id",
        pl.col("birth_date").cast(pl.Datetime("us", "UTC")).alias("time"),
        pl.lit(meds.birth_code).alias("code"),
    )
    ends = deaths.drop_nulls().select(
        "subject_id", pl.col("death_time").alias("time"), pl.lit(meds.death_code).alias("code")
    )
    return (
        pl.concat([events, births, ends], how="diagonal_relaxed")
        .with_columns(pl.col("time", "available_time").dt.replace_time_zone(None))
        .sort("subject_id", "time", "code", maintain_order=True)
        .select("subject_id", "time", "code", "numeric_value", "text_value", *EXTRA)
    )


def _codes(catalogue: Catalogue) -> pl.DataFrame:
    """Return the metadata of every code: its label, and the LOINC codes that mean it."""
    loinc = (
        catalogue.codes_of("loinc")
        .sort("feature", "priority")
        .group_by("feature", maintain_order=True)
        .agg(pl.format("LOINC/{}", "code").alias("parent_codes"))
    )
    features = catalogue.features.join(loinc, on="feature", how="left", maintain_order="left").select(
        pl.col("feature").alias("code"),
        pl.format("{} ({})", "label", "unit").alias("description"),
        pl.col("parent_codes").fill_null([]),
    )
    own = pl.DataFrame(
        {
            "code": [meds.birth_code, meds.death_code],
            "description": ["Birth", "Death"],
            "parent_codes": [["SNOMED/3950001"], ["SNOMED/419620001"]],
        }
    )
    return pl.concat([features, own])
