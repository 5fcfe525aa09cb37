"""Writing and reading contract tables: checked, atomic, described by a small manifest.

Tasks hand manifests to one another, never data (Airflow's XCom is for small values only).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import dataframely as dy
import polars as pl

from validation.contracts.tables import TABLES
from validation.errors import ContractError, ManifestError


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Where a table lies and what it must hold.

    Attributes
    ----------
    table
        Name of the contract in :data:`validation.contracts.TABLES`.
    path
        File, absolute or relative to the run folder.
    rows
        Number of rows.
    sha256
        Hex digest of the file.
    shard
        Shard number, or None for a table that is not sharded.
    """

    table: str
    path: str
    rows: int
    sha256: str
    shard: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Build a manifest from :meth:`to_dict`'s result."""
        return cls(**fields)


def file_digest(path: Path) -> str:
    """Return the SHA-256 hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_table(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    """Cast a frame to its contract and return it with the contract's columns only.

    Raises
    ------
    ContractError
        Naming columns and rules that fail, with counts and never with values.
    """
    schema: type[dy.Schema] = TABLES[table]
    missing = [name for name in schema.column_names() if name not in frame.columns]
    if missing:
        raise ContractError(f"table {table!r} lacks column(s) {', '.join(missing)}")
    try:
        _, failures = schema.filter(frame.select(schema.column_names()), cast=True)
    except (dy.exc.SchemaError, pl.exceptions.PolarsError) as error:
        raise ContractError(f"table {table!r} has columns of a wrong type ({type(error).__name__})") from None
    if len(failures):
        counts = ", ".join(f"{rule}: {n} row(s)" for rule, n in sorted(failures.counts().items()))
        raise ContractError(f"table {table!r} breaks its contract: {counts}")
    return frame.select(pl.col(name).cast(dtype) for name, dtype in empty_schema(table).items())


@cache
def empty_schema(table: str) -> Mapping[str, pl.DataType]:
    """Return column names and polars types of a table."""
    return dict(TABLES[table].create_empty().schema)


def write_table(
    frame: pl.DataFrame, table: str, path: Path, *, shard: int | None = None, relative_to: Path | None = None
) -> Manifest:
    """Check a frame, write it as Parquet under a temporary name, and rename it into place.

    Parameters
    ----------
    frame
        Rows of the contract ``table``; extra columns are dropped.
    path
        Target ``.parquet`` file; its folder is made.
    shard
        Shard number for the manifest.
    relative_to
        When given, the manifest's path is relative to this folder.

    Raises
    ------
    ContractError
        If the frame breaks its contract; nothing is written then.
    """
    checked = check_table(frame, table)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        checked.write_parquet(temporary, compression="zstd", statistics=True)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        digest = file_digest(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    shown = path.relative_to(relative_to) if relative_to else path
    return Manifest(table=table, path=str(shown), rows=checked.height, sha256=digest, shard=shard)


def verify_manifest(manifest: Manifest, *, folder: Path | None = None) -> Path:
    """Return the manifest's file after checking that it is the file described.

    Raises
    ------
    ManifestError
        If the file is missing or has another digest.
    """
    path = (folder / manifest.path) if folder else Path(manifest.path)
    if not path.is_file():
        raise ManifestError(f"{manifest.table}: {path.name} is missing; run the stage that writes it again")
    if file_digest(path) != manifest.sha256:
        raise ManifestError(f"{manifest.table}: {path.name} was changed after it was written")
    return path


def read_table(manifest: Manifest, *, folder: Path | None = None) -> pl.DataFrame:
    """Read a table that :func:`write_table` wrote, verified by digest and row count."""
    frame = pl.read_parquet(verify_manifest(manifest, folder=folder))
    if frame.height != manifest.rows:
        raise ManifestError(f"{manifest.table}: expected {manifest.rows} rows, found {frame.height}")
    return frame


def write_json(value: Any, path: Path) -> None:
    """Write JSON atomically: temporary name, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
