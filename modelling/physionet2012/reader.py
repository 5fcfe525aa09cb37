"""Records and outcomes of the challenge, as Parquet or as the original text files.

A record is the first 48 hours of an ICU stay, with times relative to admission; every stay gets the same
made-up start. Values of -1 are the challenge's way to say *unknown*.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from modelling.catalogue import Catalogue
from modelling.cohorts.tasks import get_task
from modelling.cohorts.training import training_samples
from modelling.errors import SourceTableError
from modelling.mapping.folder import Progress, TableFolder, no_progress, shard_of
from validation.contracts import empty, write_table

START = datetime(2000, 1, 1, tzinfo=UTC)
"""Admission of every record; the challenge gives none."""
HOURS = 48
UNITS = {1: "Coronary Care Unit", 2: "Cardiac Surgery Recovery Unit", 3: "Medical ICU", 4: "Surgical ICU"}
"""ICUType, from the challenge's description."""
STATIC = ("RecordID", "Age", "Gender", "ICUType")
"""General descriptors that describe the stay rather than observe it."""
SEX = {0: "female", 1: "male"}
RECORDS = {"patient": pl.Int64, "feature": pl.String, "value": pl.Float64, "time_min": pl.Int64}
OUTCOMES = ("RecordID", "Length_of_stay", "Survival", "In-hospital_death")


def read_records(path: Path) -> pl.DataFrame:
    """Read records: ``patient``, ``feature``, ``value``, ``time_min``, ``line`` (1 is the first of its file).

    Parameters
    ----------
    path
        A Parquet file of those columns, one text record (``132539.txt``), or a folder of text records.

    Raises
    ------
    SourceTableError
        Naming the file, the column and what to do.
    """
    if path.suffix == ".parquet":
        frame = _columns(_parquet(path), list(RECORDS), path)
        return frame.select(pl.col(name).cast(dtype) for name, dtype in RECORDS.items()).with_row_index(
            "line", offset=1
        )
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    files = [file for file in files if not file.name.startswith("Outcomes")]
    if not files or not files[0].is_file():
        raise SourceTableError(f"{path}: no records; give a Parquet file, a text record or a folder of them")
    return pl.concat([_text_record(file) for file in files])


def read_outcomes(path: Path) -> pl.DataFrame:
    """Read outcomes (Parquet, or the challenge's ``Outcomes-a.txt``): RecordID, stay, survival, death."""
    frame = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    return _columns(frame, list(OUTCOMES), path).select(pl.col(name).cast(pl.Int64) for name in OUTCOMES)


def _parquet(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise SourceTableError(f"{path}: no such file")
    try:
        return pl.read_parquet(path)
    except pl.exceptions.PolarsError:
        raise SourceTableError(
            f"{path.name}: cannot be read as Parquet; copy it from the source again"
        ) from None


def _csv(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise SourceTableError(f"{path}: no such file")
    try:
        return pl.read_csv(path)
    except pl.exceptions.PolarsError:
        raise SourceTableError(f"{path.name}: cannot be read as CSV; copy it from the source again") from None


def _columns(frame: pl.DataFrame, names: list[str], path: Path) -> pl.DataFrame:
    absent = [name for name in names if name not in frame.columns]
    if absent:
        raise SourceTableError(
            f"{path.name}: column {', '.join(absent)} is missing; expected {', '.join(names)}"
        )
    return frame


def _text_record(path: Path) -> pl.DataFrame:
    """Read ``Time,Parameter,Value`` lines; the record's number is in its first line and in its name."""
    frame = _columns(_csv(path), ["Time", "Parameter", "Value"], path)
    number = path.stem
    if not number.isdigit():
        raise SourceTableError(f"{path.name}: a text record is named after its RecordID, such as 132539.txt")
    clock = pl.col("Time").str.split_exact(":", 1)
    minutes = (
        clock.struct[0].cast(pl.Int64, strict=False) * 60 + clock.struct[1].cast(pl.Int64, strict=False)
    ).alias("time_min")
    record = frame.with_row_index("line", offset=1).select(
        "line",
        pl.lit(int(number), pl.Int64).alias("patient"),
        pl.col("Parameter").cast(pl.String).alias("feature"),
        pl.col("Value").cast(pl.Float64, strict=False).alias("value"),
        minutes,
    )
    if record["time_min"].null_count():
        raise SourceTableError(f"{path.name}: column Time is not of the form HH:MM")
    return record.select("line", *RECORDS)


def observations(records: pl.DataFrame, *, system: str, source_file: str) -> pl.DataFrame:
    """Return records as rows of the ``Observations`` contract; the catalogue states the series' units."""
    return records.filter(~pl.col("feature").is_in(list(STATIC))).select(
        pl.col("patient").alias("subject_id"),
        pl.col("patient").cast(pl.String).alias("encounter_id"),
        (pl.lit(START) + pl.duration(minutes=pl.col("time_min")))
        .cast(pl.Datetime("us", "UTC"))
        .alias("time"),
        pl.lit(None, pl.Datetime("us", "UTC")).alias("available_time"),
        pl.concat_list(pl.concat_str(pl.lit(f"{system}|"), "feature")).alias("codings"),
        pl.when(pl.col("value") != -1).then(pl.col("value").fill_nan(None)).alias("value"),
        *(
            pl.lit(None, pl.String).alias(name)
            for name in ("text_value", "comparator", "unit_system", "unit_code", "unit_text")
        ),
        pl.lit("final").alias("status"),
        pl.format("physionet2012:{}/{}", "patient", "line").alias("source_ref"),
        pl.lit(source_file).alias("source_file"),
        pl.col("line").cast(pl.UInt32).alias("source_line"),
        pl.lit(0, pl.UInt16).alias("component"),
    )


def stays(records: pl.DataFrame, *, source_file: str) -> pl.DataFrame:
    """Return one encounter a record; age gives the birth date, ICUType the ward. The end is not known."""
    statics = (
        records.filter(pl.col("feature").is_in(["Age", "Gender", "ICUType"]))
        .group_by("patient")
        .agg(
            *(
                pl.col("value").filter(pl.col("feature") == name).first().alias(name)
                for name in ("Age", "Gender", "ICUType")
            )
        )
    )
    everyone = records.group_by("patient").agg(pl.col("line").min())
    whole = {int(code): name for code, name in UNITS.items()}
    born = pl.lit(START.date()) - pl.duration(days=(pl.col("Age") * 365.2425).ceil().cast(pl.Int64))
    frame = everyone.join(statics, on="patient", how="left").select(
        pl.col("patient").cast(pl.String).alias("encounter_id"),
        pl.col("patient").alias("subject_id"),
        pl.format("physionet2012:{}", "patient").alias("patient_ref"),
        pl.format("physionet2012:{}", "patient").alias("encounter_ref"),
        pl.lit("icu").alias("kind"),
        pl.lit("finished").alias("status"),
        pl.lit(START).cast(pl.Datetime("us", "UTC")).alias("start"),
        pl.col("ICUType")
        .cast(pl.Int64)
        .replace_strict(whole, default=None, return_dtype=pl.String)
        .alias("ward"),
        pl.when(pl.col("Age") >= 0).then(born).cast(pl.Date).alias("birth_date"),
        pl.col("Gender")
        .cast(pl.Int64)
        .replace_strict(SEX, default="unknown", return_dtype=pl.String)
        .alias("sex"),
        pl.lit(source_file).alias("source_file"),
        pl.col("line").cast(pl.UInt32).alias("source_line"),
    )
    return _complete(frame, "encounters").sort("subject_id")


def outcomes(table: pl.DataFrame) -> pl.DataFrame:
    """Return outcomes as the contract has them.

    Length of stay and survival are whole days, so the times are ends of days; both lie after the record,
    which only stays of 48 hours and more have.
    """
    after = pl.lit(START + timedelta(hours=HOURS, minutes=1))

    def end_of_day(name: str) -> pl.Expr:
        day = pl.lit(START) + pl.duration(days=pl.col(name) + 1)
        return pl.when(pl.col(name) >= 0).then(pl.max_horizontal(day, after)).cast(pl.Datetime("us", "UTC"))

    frame = table.select(
        pl.col("RecordID").cast(pl.String).alias("encounter_id"),
        pl.col("RecordID").alias("subject_id"),
        end_of_day("Length_of_stay").alias("discharge_time"),
        end_of_day("Survival").alias("death_time"),
        (pl.col("In-hospital_death") == 1).alias("died_in_hospital"),
    )
    return _complete(frame, "outcomes").sort("subject_id")


def _complete(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    """Add the contract's other columns as nulls (lists as empty ones)."""
    missing = [
        (pl.lit([], dtype) if isinstance(dtype, pl.List) else pl.lit(None, dtype)).alias(name)
        for name, dtype in empty(table).schema.items()
        if name not in frame.columns
    ]
    return frame.with_columns(missing).select(empty(table).columns)


def map_physionet2012(
    *,
    records: Path,
    outcomes_file: Path,
    out: Path,
    catalogue: Catalogue,
    n_shards: int = 4,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Map one set of the challenge to a table folder (:mod:`modelling.mapping.folder`).

    Besides the folder's tables ``samples.parquet`` is written: one sample a stay of 48 hours, labelled with
    death in hospital.

    Returns
    -------
    dict
        The folder's summary, with ``stays`` and ``deaths``.

    Raises
    ------
    SourceTableError
        If a file is missing or not as described; the message says which and what to do.
    """
    table = read_records(records)
    results = outcomes(read_outcomes(outcomes_file))
    unknown = results.join(table.select(subject_id="patient").unique(), on="subject_id", how="anti").height
    if unknown == results.height:
        raise SourceTableError(
            f"{outcomes_file.name} holds no record of {records.name}; give files of one set"
        )
    encounters = stays(table, source_file=records.name)
    folder = TableFolder(
        out,
        catalogue=catalogue,
        source={"kind": "physionet2012", "records": records.name, "outcomes": outcomes_file.name},
        n_shards=n_shards,
    )
    folder.write_stays(encounters, results)
    todo = folder.missing()
    for done, shard in enumerate(todo):
        progress("map", done, len(todo))
        part = table.filter(shard_of(pl.col("patient"), n_shards) == shard)
        described = part.filter(pl.col("feature").is_in(list(STATIC))).height
        said = observations(part, system=catalogue.system_url("p12"), source_file=records.name)
        folder.write_shard(shard, said, rows=part.height, descriptors=described)
    progress("map", len(todo), len(todo))
    # The challenge asks about every record, the six aged 15 to 17 among them.
    task = replace(get_task("in-hospital-mortality"), minimum_age=0.0, benchmark_rules=())
    cohort = training_samples(encounters, results, task=task, mode="fixed", at_hours=HOURS)
    write_table(cohort.samples, "samples", out / "samples.parquet")
    cohort.attrition.write_csv(out / "attrition.csv")
    return {
        **folder.finish(),
        "stays": encounters.height,
        "samples": cohort.samples.height,
        "deaths": int(cohort.samples["boolean_value"].sum()),
    }
