"""Finding and reading MIMIC-IV's official tables: ``hosp/labevents.csv.gz`` and its neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl

from modelling.errors import SourceTableError
from modelling.mimic.clock import to_utc

ROWS_A_BATCH = 250_000
"""Rows of a table that are looked at together."""
Schema = Mapping[str, type[pl.DataType]]

CHARTEVENTS: Schema = {
    "subject_id": pl.Int64,
    "stay_id": pl.Int64,
    "charttime": pl.String,
    "storetime": pl.String,
    "itemid": pl.Int32,
    "value": pl.String,
    "valuenum": pl.Float64,
    "valueuom": pl.String,
}
LABEVENTS: Schema = {
    "labevent_id": pl.Int64,
    "subject_id": pl.Int64,
    "hadm_id": pl.Int64,
    "charttime": pl.String,
    "storetime": pl.String,
    "itemid": pl.Int32,
    "value": pl.String,
    "valuenum": pl.Float64,
    "valueuom": pl.String,
    "comments": pl.String,
}
OUTPUTEVENTS: Schema = {
    "subject_id": pl.Int64,
    "stay_id": pl.Int64,
    "charttime": pl.String,
    "storetime": pl.String,
    "itemid": pl.Int32,
    "value": pl.Float64,
    "valueuom": pl.String,
}
PATIENTS: Schema = {
    "subject_id": pl.Int64,
    "gender": pl.String,
    "anchor_age": pl.Int32,
    "anchor_year": pl.Int32,
    "dod": pl.String,
}
ADMISSIONS: Schema = {
    "subject_id": pl.Int64,
    "hadm_id": pl.Int64,
    "admittime": pl.String,
    "dischtime": pl.String,
    "deathtime": pl.String,
    "admission_type": pl.String,
    "admission_location": pl.String,
    "hospital_expire_flag": pl.Int8,
}
ICUSTAYS: Schema = {
    "subject_id": pl.Int64,
    "hadm_id": pl.Int64,
    "stay_id": pl.Int64,
    "first_careunit": pl.String,
    "last_careunit": pl.String,
    "intime": pl.String,
    "outtime": pl.String,
    "los": pl.Float64,
}
TRANSFERS: Schema = {
    "subject_id": pl.Int64,
    "hadm_id": pl.Int64,
    "eventtype": pl.String,
    "careunit": pl.String,
    "intime": pl.String,
    "outtime": pl.String,
}
DIAGNOSES_ICD: Schema = {
    "subject_id": pl.Int64,
    "hadm_id": pl.Int64,
    "seq_num": pl.Int32,
    "icd_code": pl.String,
    "icd_version": pl.Int8,
}
PROCEDURES_ICD: Schema = {
    "subject_id": pl.Int64,
    "hadm_id": pl.Int64,
    "seq_num": pl.Int32,
    "chartdate": pl.String,
    "icd_code": pl.String,
    "icd_version": pl.Int8,
}
D_LABITEMS: Schema = {"itemid": pl.Int32, "label": pl.String, "fluid": pl.String}
D_ITEMS: Schema = {"itemid": pl.Int32, "label": pl.String, "linksto": pl.String, "unitname": pl.String}


def table_path(root: Path, name: str, *, dataset: str = "MIMIC-IV") -> Path:
    """Return the file of a table such as ``icu/chartevents``: ``.csv.gz``, ``.csv`` or ``.parquet``.

    Raises
    ------
    SourceTableError
        If there is none.
    """
    for suffix in (".csv.gz", ".csv", ".parquet"):
        path = root / f"{name}{suffix}"
        if path.is_file():
            return path
    module = name.rpartition("/")[0]
    again, holder = (f"{dataset}'s {module} module", "hosp/ and icu/") if module else (dataset, "it")
    raise SourceTableError(
        f"{name}.csv.gz is missing in {root}; download {again} again, or give the folder that holds {holder}"
    )


def header(path: Path) -> list[str]:
    """Return the column names of a table's file.

    Raises
    ------
    SourceTableError
        If the file cannot be read.
    """
    try:
        if path.suffix == ".parquet":
            return list(pl.read_parquet_schema(path))
        return pl.read_csv(path, n_rows=0).columns
    except (pl.exceptions.PolarsError, OSError):
        raise _unreadable(path) from None


def _unreadable(path: Path) -> SourceTableError:
    return SourceTableError(
        f"{path.name} cannot be read: it is empty, truncated or no table; compare its SHA-256 with the "
        "source's SHA256SUMS.txt and copy it again"
    )


def _check_columns(path: Path, schema: Schema, columns: list[str], dataset: str) -> None:
    absent = [name for name in schema if name not in columns]
    if absent:
        raise SourceTableError(
            f"{path.name}: column {', '.join(absent)} is missing; {dataset} has it, so use an official release"
        )


def scan_table(path: Path, schema: Schema, *, dataset: str = "MIMIC-IV 2.x and 3.x") -> pl.LazyFrame:
    """Return a table lazily: ``line`` (1 is the first row) and the columns of ``schema``.

    Raises
    ------
    SourceTableError
        If a column is missing, naming file and column.
    """
    columns = header(path)
    _check_columns(path, schema, columns, dataset)
    if path.suffix == ".parquet":
        frame = pl.scan_parquet(path).with_row_index("line", offset=1)
        return frame.select("line", *(pl.col(name).cast(dtype) for name, dtype in schema.items()))
    types = {name: schema.get(name, pl.String) for name in columns}
    return pl.scan_csv(path, schema=types, row_index_name="line", row_index_offset=1).select("line", *schema)


def batches(frame: pl.LazyFrame, path: Path) -> Iterator[pl.DataFrame]:
    """Yield a scanned table in batches, turning a reader's complaint into one that names the file.

    Raises
    ------
    SourceTableError
        If the file is truncated or a value does not fit its column.
    """
    try:
        yield from frame.collect_batches(chunk_size=ROWS_A_BATCH)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _described(path, error) from None


def _described(path: Path, error: Exception) -> SourceTableError:
    # The reader's own message may quote a value of the table; only a column's name is taken from it.
    text = str(error)
    _, found, rest = text.partition("at column '")
    if found:
        return SourceTableError(
            f"{path.name}: column {rest.partition(chr(39))[0]} holds something that is not of its type; "
            "compare the file's SHA-256 with the source's SHA256SUMS.txt and copy it again"
        )
    return _unreadable(path)


def read_table(
    root: Path, name: str, schema: Schema, *, dataset: str = "MIMIC-IV", where: pl.Expr | None = None
) -> pl.DataFrame:
    """Read a small table whole, or of a larger one the rows of a condition, without ever holding the others.

    Raises
    ------
    SourceTableError
        If the file is missing or corrupt, or lacks a column.
    """
    path = table_path(root, name, dataset=dataset)
    frame = scan_table(path, schema, dataset=dataset)
    if where is not None:
        frame = frame.filter(where)
    try:
        return frame.collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _described(path, error) from None


def time_column(name: str) -> pl.Expr:
    """Return a column of ``YYYY-MM-DD HH:MM:SS`` wall times in UTC; unreadable times become null."""
    return to_utc(pl.col(name).str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False, time_unit="us")).alias(name)


def with_times(rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows of a large table with ``charttime`` and ``storetime`` as moments."""
    return rows.with_columns(time_column("charttime"), time_column("storetime"))
