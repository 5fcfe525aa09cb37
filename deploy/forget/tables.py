"""Take a patient's rows out of Parquet tables, and keep the manifests true."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from deploy.forget.trace import Trace
from validation.contracts import write_json
from validation.contracts.store import file_digest

NAMES = ("source_ref", "patient_ref", "encounter_ref", "patient_id", "encounter_id", "score_key", "part_of")


def rows_of(trace: Trace, columns: dict[str, Any]) -> pl.Expr:
    """Return whether a row belongs to the patient, by every column that can tell."""
    tests = [pl.lit(False)]
    if "subject_id" in columns:
        tests.append(pl.col("subject_id").is_in(list(trace.subject_ids)))
    known = (
        trace.references
        | trace.encounter_ids
        | trace.score_keys
        | {reference.partition("/")[2] for reference in trace.references if reference.startswith("Patient/")}
    )
    tests += [
        pl.col(name).cast(pl.String).is_in(list(known)).fill_null(False) for name in NAMES if name in columns
    ]
    return pl.any_horizontal(tests)


def clean_table(path: Path, trace: Trace) -> int:
    """Rewrite a table without the patient's rows; return how many there were."""
    frame = pl.read_parquet(path)
    gone = frame.select(rows_of(trace, dict(frame.schema)).alias("gone")).to_series()
    count = int(gone.sum())
    if count:
        replace_table(frame.filter(~gone), path)
    return count


def replace_table(frame: pl.DataFrame, path: Path) -> None:
    """Write a table under a temporary name, flush it, and rename it into place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    frame.write_parquet(temporary, compression="zstd", statistics=True)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def arrays_of(folder: Path) -> set[str]:
    """Return the array files that tables of a run still name."""
    found: set[str] = set()
    for path in folder.rglob("*.parquet"):
        if "array_path" in pl.read_parquet_schema(path):
            found.update(pl.read_parquet(path, columns=["array_path"])["array_path"].drop_nulls().to_list())
    return found


def blank_unowned(folder: Path) -> int:
    """Take place and reference from quarantine rows that no table ties to a patient; return how many.

    A refused resource may be the forgotten patient's, and nothing tells any more. Reason and count stay.
    """
    owned: set[str] = set()
    for path in folder.rglob("*.parquet"):
        columns = pl.read_parquet_schema(path)
        if "subject_id" in columns and "source_ref" in columns:
            owned.update(pl.read_parquet(path, columns=["source_ref"])["source_ref"].drop_nulls().to_list())
        if path.name == "subjects.parquet":
            owned.update(pl.read_parquet(path, columns=["patient_ref"])["patient_ref"].to_list())
        if path.name == "encounters.parquet":
            owned.update(pl.read_parquet(path, columns=["encounter_ref"])["encounter_ref"].to_list())
    blanked = 0
    for path in folder.rglob("*.parquet"):
        columns = pl.read_parquet_schema(path)
        if not {"reason", "source_ref", "source_line", "whole"} <= set(columns):
            continue
        frame = pl.read_parquet(path)
        unowned = pl.col("source_ref").is_not_null() & ~pl.col("source_ref").is_in(list(owned))
        unowned |= pl.col("source_ref").is_null() & pl.col("source_line").is_not_null()
        count = int(frame.select(unowned.sum()).item())
        if count:
            hidden = [
                pl.when(unowned).then(None).otherwise(pl.col(name)).alias(name)
                for name in ("source_ref", "source_line")
            ]
            replace_table(frame.with_columns(hidden), path)
            blanked += count
    return blanked


def mend_manifests(folder: Path) -> int:
    """Bring every manifest below a folder into line with its table; return how many changed."""
    changed = 0
    for path in sorted(folder.rglob("*.json")):
        try:
            value = json.loads(path.read_text("utf-8"))
        except ValueError:
            continue
        touched = False
        for manifest in _manifests(value):
            table = folder / manifest["path"]
            if table.is_file() and (digest := file_digest(table)) != manifest["sha256"]:
                manifest["sha256"] = digest
                manifest["rows"] = pl.scan_parquet(table).select(pl.len()).collect().item()
                touched = True
        if touched:
            write_json(value, path)
            changed += 1
    return changed


def _manifests(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if {"table", "path", "rows", "sha256"} <= set(value):
            yield value
        for item in value.values():
            yield from _manifests(item)
    elif isinstance(value, list):
        for item in value:
            yield from _manifests(item)
