"""Patients, admissions and ICU stays as encounters, outcomes and diagnoses."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from modelling.mapping.folder import DIAGNOSES, PROCEDURES
from modelling.mimic import files
from modelling.mimic.files import read_table, time_column
from validation.contracts import empty

SEX = {"F": "female", "M": "male"}
_MOVE = pl.List(
    pl.Struct({"ward": pl.String, "start": pl.Datetime("us", "UTC"), "end": pl.Datetime("us", "UTC")})
)


def _times(frame: pl.DataFrame, *names: str) -> pl.DataFrame:
    return frame.with_columns(time_column(name) for name in names)


def read_encounters(root: Path) -> pl.DataFrame:
    """Return admissions and ICU stays as rows of the ``Encounters`` contract.

    An ICU stay is ``part_of`` its admission. MIMIC-IV gives an age in an anchor year instead of a birth
    date: the first of January of the year that follows from them stands for it.
    """
    patients = read_table(root, "hosp/patients", files.PATIENTS).select(
        "subject_id",
        pl.date(pl.col("anchor_year") - pl.col("anchor_age"), 1, 1).alias("birth_date"),
        pl.col("gender").replace_strict(SEX, default="unknown", return_dtype=pl.String).alias("sex"),
    )
    transfers = _times(read_table(root, "hosp/transfers", files.TRANSFERS), "intime", "outtime").filter(
        pl.col("hadm_id").is_not_null() & pl.col("careunit").is_not_null() & pl.col("intime").is_not_null()
    )
    admissions = _times(read_table(root, "hosp/admissions", files.ADMISSIONS), "admittime", "dischtime")
    stays = _times(read_table(root, "icu/icustays", files.ICUSTAYS), "intime", "outtime")
    hospital = admissions.join(_moves(transfers), on="hadm_id", how="left").select(
        pl.col("hadm_id").cast(pl.String).alias("encounter_id"),
        "subject_id",
        pl.format("admissions:{}", "hadm_id").alias("encounter_ref"),
        pl.lit("hospital").alias("kind"),
        pl.col("admission_type").alias("encounter_class"),
        pl.lit(None, pl.String).alias("part_of"),
        pl.col("admittime").alias("start"),
        pl.col("dischtime").alias("end"),
        pl.lit(None, pl.String).alias("ward"),
        "moves",
        pl.col("admission_location").alias("admission_source"),
        pl.lit("admissions").alias("source_file"),
        pl.col("line").alias("source_line"),
    )
    within = (
        transfers.join(stays.select("hadm_id", "stay_id", begin="intime", finish="outtime"), on="hadm_id")
        .filter(
            (pl.col("intime") >= pl.col("begin"))
            & ((pl.col("intime") < pl.col("finish")) | pl.col("finish").is_null())
        )
        .drop("hadm_id")
        .rename({"stay_id": "hadm_id"})
    )
    icu = (
        stays.join(_moves(within).rename({"hadm_id": "stay_id"}), on="stay_id", how="left")
        .join(admissions.select("hadm_id", "admission_location"), on="hadm_id", how="left")
        .select(
            pl.col("stay_id").cast(pl.String).alias("encounter_id"),
            "subject_id",
            pl.format("icustays:{}", "stay_id").alias("encounter_ref"),
            pl.lit("icu").alias("kind"),
            pl.lit("ACUTE").alias("encounter_class"),
            pl.col("hadm_id").cast(pl.String).alias("part_of"),
            pl.col("intime").alias("start"),
            pl.col("outtime").alias("end"),
            pl.col("first_careunit").alias("ward"),
            "moves",
            pl.col("admission_location").alias("admission_source"),
            pl.lit("icustays").alias("source_file"),
            pl.col("line").alias("source_line"),
        )
    )
    frame = (
        pl.concat([hospital, icu])
        .join(patients, on="subject_id", how="left")
        .with_columns(
            pl.format("patients:{}", "subject_id").alias("patient_ref"),
            pl.lit("finished").alias("status"),
            pl.col("sex").fill_null("unknown"),
            pl.col("moves").fill_null(pl.lit([], _MOVE)),
        )
        .filter(pl.col("start").is_not_null())
    )
    schema = empty("encounters").schema
    return frame.select(pl.col(name).cast(dtype) for name, dtype in schema.items()).sort(
        "subject_id", "start", "encounter_id"
    )


def _moves(transfers: pl.DataFrame) -> pl.DataFrame:
    move = pl.struct(ward="careunit", start="intime", end="outtime")
    return (
        transfers.sort("hadm_id", "intime").group_by("hadm_id", maintain_order=True).agg(move.alias("moves"))
    )


def read_outcomes(root: Path) -> pl.DataFrame:
    """Return discharge, death (in hospital to the minute, later to the day) and days in intensive care."""
    died_later = read_table(root, "hosp/patients", files.PATIENTS).select(
        "subject_id",
        (pl.col("dod").str.slice(0, 10).str.to_datetime("%Y-%m-%d", strict=False, time_unit="us"))
        .dt.offset_by("1d")
        .dt.replace_time_zone("UTC")
        .alias("end_of_dod"),
    )
    admissions = (
        _times(read_table(root, "hosp/admissions", files.ADMISSIONS), "dischtime", "deathtime")
        .join(died_later, on="subject_id", how="left")
        .select(
            "hadm_id",
            "subject_id",
            pl.col("dischtime").alias("discharge_time"),
            pl.coalesce("deathtime", "end_of_dod").alias("death_time"),
            (pl.col("hospital_expire_flag") == 1).alias("died_in_hospital"),
        )
    )
    stays = read_table(root, "icu/icustays", files.ICUSTAYS)
    days = stays.group_by("hadm_id").agg(pl.col("los").sum().alias("icu_days"))
    hospital = admissions.join(days, on="hadm_id", how="left").with_columns(
        pl.col("hadm_id").cast(pl.String).alias("encounter_id")
    )
    icu = (
        stays.select("hadm_id", "stay_id", icu_days="los")
        .join(admissions, on="hadm_id")
        .with_columns(pl.col("stay_id").cast(pl.String).alias("encounter_id"))
    )
    columns = empty("outcomes").columns
    return pl.concat([hospital.select(columns), icu.select(columns)]).sort("subject_id", "encounter_id")


def read_diagnoses(root: Path) -> pl.DataFrame:
    """Return discharge diagnoses; labels only."""
    return (
        read_table(root, "hosp/diagnoses_icd", files.DIAGNOSES_ICD)
        .select(
            "subject_id",
            pl.col("hadm_id").cast(pl.String).alias("encounter_id"),
            "icd_version",
            pl.col("icd_code").str.strip_chars(),
            pl.col("seq_num").alias("position"),
        )
        .select(list(DIAGNOSES))
        .sort("subject_id", "encounter_id", "position")
    )


def read_procedures(root: Path) -> pl.DataFrame:
    """Return the admissions' coded procedures; labels only."""
    return (
        read_table(root, "hosp/procedures_icd", files.PROCEDURES_ICD)
        .select(
            "subject_id",
            pl.col("hadm_id").cast(pl.String).alias("encounter_id"),
            "icd_version",
            pl.col("icd_code").str.strip_chars(),
            pl.col("seq_num").alias("position"),
            pl.col("chartdate").str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False).alias("date"),
        )
        .select(list(PROCEDURES))
        .sort("subject_id", "encounter_id", "position")
    )
