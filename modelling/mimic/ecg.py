"""MIMIC-IV-ECG 1.0 (doi 10.13026/4nqg-sb35) to recordings and findings.

The folder holds ``record_list.csv``, ``machine_measurements.csv`` and the WFDB records below ``files/``. The
recorder's clock is not synchronised with the hospital's (the data set's own usage notes), so a recording's
time may be off; it is also the time from which the recording was known, since no other is given.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from modelling.mapping.arrays import store_array
from modelling.mapping.folder import Progress, TableFolder
from modelling.mimic.archives import ReadSignal, enclosing_encounters, map_archive
from modelling.mimic.files import Schema, read_table, table_path, time_column
from validation.ecg_quality import judge_recordings
from validation.reasons import Reason

DATASET = "MIMIC-IV-ECG"
RECORD_LIST: Schema = {
    "subject_id": pl.Int64,
    "study_id": pl.Int64,
    "ecg_time": pl.String,
    "path": pl.String,
}
SENTINELS = (29999, 32767)
"""What the recorder writes where it measured nothing."""
MEASUREMENTS: dict[str, tuple[float, float]] = {
    "rr_interval": (150, 6000),
    "p_onset": (0, 10_000),
    "p_end": (0, 10_000),
    "qrs_onset": (0, 10_000),
    "qrs_end": (0, 10_000),
    "t_end": (0, 10_000),
    "p_axis": (-360, 360),
    "qrs_axis": (-360, 360),
    "t_axis": (-360, 360),
}
"""Machine measurements and their plausible ranges, in milliseconds and degrees: 10 to 400 beats a minute, the
length of a recording, a circle. Further sentinels (65535, -32768) fall outside."""
REPORT_LINES = tuple(f"report_{number}" for number in range(18))
MACHINE: Schema = {
    "subject_id": pl.Int64,
    "study_id": pl.Int64,
    **dict.fromkeys(REPORT_LINES, pl.String),
    **dict.fromkeys(MEASUREMENTS, pl.Float64),
}


def recording_id(study: pl.Expr) -> pl.Expr:
    """Return the key of a recording: the table that lists it and its study number."""
    return pl.format("record_list:{}", study)


def read_record_list(root: Path, encounters: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Return the list's rows of the encounters' patients, and the number of rows of other patients.

    Raises
    ------
    SourceTableError
        Naming file, column and what to do.
    """
    listed = read_table(root, "record_list", RECORD_LIST, dataset=DATASET)
    mine = (
        listed.join(encounters.select("subject_id").unique(), on="subject_id", how="semi")
        .with_columns(time_column("ecg_time"), recording_id(pl.col("study_id")).alias("source_ref"))
        .rename({"ecg_time": "time"})
        .with_columns(
            pl.when(pl.col("time").is_null())
            .then(pl.lit(str(Reason.TIME_INVALID)))
            .when(pl.col("study_id").is_duplicated())
            .then(pl.lit(str(Reason.RESOURCE_DUPLICATE)))
            .alias("refused")
        )
    )
    return enclosing_encounters(mine, encounters), listed.height - mine.height


def read_findings(root: Path, encounters: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Return the machine's measurements and statements, and how many measurements were sentinels or absurd.

    Returns
    -------
    polars.DataFrame
        ``recording_id``, ``name``, ``value``: a measurement in ms or degrees, or null for a statement of the
        machine's report, whose ``name`` it is in lower case.

    Raises
    ------
    SourceTableError
        Naming file, column and what to do.
    """
    machine = (
        read_table(root, "machine_measurements", MACHINE, dataset=DATASET)
        .join(encounters.select("subject_id").unique(), on="subject_id", how="semi")
        .with_columns(recording_id(pl.col("study_id")).alias("recording_id"))
    )
    measured = (
        machine.select("recording_id", *MEASUREMENTS)
        .unpivot(index="recording_id", variable_name="name", value_name="value")
        .drop_nulls("value")
    )
    ranges = pl.DataFrame(
        [(name, float(low), float(high)) for name, (low, high) in MEASUREMENTS.items()],
        schema={"name": pl.String, "low": pl.Float64, "high": pl.Float64},
        orient="row",
    )
    good = measured.join(ranges, on="name").filter(
        ~pl.col("value").is_in([float(value) for value in SENTINELS])
        & pl.col("value").is_between(pl.col("low"), pl.col("high"))
    )
    said = (
        machine.select("recording_id", *REPORT_LINES)
        .unpivot(index="recording_id", variable_name="line", value_name="name")
        .select("recording_id", pl.col("name").str.strip_chars(" .").str.to_lowercase())
        .filter(pl.col("name") != "")
        .with_columns(pl.lit(None, pl.Float64).alias("value"))
    )
    findings = pl.concat([good.select("recording_id", "name", "value"), said]).unique()
    return findings.sort("recording_id", "name"), measured.height - good.height


def map_ecg(
    ecg: Path, folder: TableFolder, encounters: pl.DataFrame, *, read_signal: ReadSignal, progress: Progress
) -> dict[str, int]:
    """Write ``recordings/`` and ``findings.parquet`` of a table folder; return what was left out of the list.

    Parameters
    ----------
    ecg
        Folder of MIMIC-IV-ECG.
    encounters
        Whose recordings are read, and in which stay each lies.
    read_signal
        Decoder of a WFDB record.

    Raises
    ------
    SourceTableError
        Naming file, column and what to do.
    """
    rows, others = read_record_list(ecg, encounters)
    findings, cleaned = read_findings(ecg, encounters)
    folder.begin("recordings", {"bytes": table_path(ecg, "record_list", dataset=DATASET).stat().st_size})
    findings.write_parquet(folder.root / "findings.parquet")
    map_archive(
        folder,
        "recordings",
        rows,
        read=partial(_recording, ecg=ecg, root=folder.root, read_signal=read_signal),
        judge=judge_recordings,
        source_file="record_list.csv",
        progress=progress,
    )
    return {"ecgs_of_other_patients": others, "ecg_measurements_cleaned": cleaned}


def _recording(row: dict[str, Any], *, ecg: Path, root: Path, read_signal: ReadSignal) -> dict[str, Any]:
    signal = read_signal(ecg, row["path"] or "")
    path, digest = store_array(signal.samples, root)
    return {
        "recording_id": row["source_ref"],
        "subject_id": row["subject_id"],
        "encounter_id": row["encounter_id"],
        "time": row["time"],
        "available_time": row["time"],
        "sampling_rate": signal.sampling_rate,
        "leads": list(signal.leads),
        "samples": signal.samples.shape[1],
        "unit": "mV",
        "array_path": path,
        "array_sha256": digest,
        "carrier": "wfdb",
        "source_ref": row["source_ref"],
    }
