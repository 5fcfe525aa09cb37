"""Organ support in intensive care: vasoactive infusions and ventilation, for the SOFA score of labels."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from modelling.mimic.files import Schema, read_table, time_column

INPUTEVENTS: Schema = {
    "subject_id": pl.Int64,
    "starttime": pl.String,
    "endtime": pl.String,
    "itemid": pl.Int32,
    "rate": pl.Float64,
    "rateuom": pl.String,
}
PROCEDUREEVENTS: Schema = {
    "subject_id": pl.Int64,
    "starttime": pl.String,
    "endtime": pl.String,
    "itemid": pl.Int32,
}
INFUSIONS = {
    221906: ("norepinephrine", "Norepinephrine"),
    221289: ("epinephrine", "Epinephrine"),
    229617: ("epinephrine", "Epinephrine."),
    221662: ("dopamine", "Dopamine"),
    221653: ("dobutamine", "Dobutamine"),
}
"""Items of inputevents: the drug, and the label in ``d_items``."""
VENTILATION = {225792: "Invasive Ventilation", 225794: "Non-invasive Ventilation"}
"""Items of procedureevents, with their label."""
PER_KILOGRAM_AND_MINUTE = {"mcg/kg/min": 1.0, "mg/kg/min": 1000.0, "mcg/kg/hour": 1 / 60}
"""Factors to microgram per kilogram and minute, in which SOFA counts; other units are left out."""
TABLES = ("icu/inputevents", "icu/procedureevents")
SUPPORTS: dict[str, pl.DataType | type[pl.DataType]] = {
    "subject_id": pl.Int64,
    "start": pl.Datetime("us", "UTC"),
    "end": pl.Datetime("us", "UTC"),
    "kind": pl.String,
    "rate": pl.Float64,
}


def read_supports(root: Path) -> pl.DataFrame:
    """Return ``subject_id``, ``start``, ``end``, ``kind``, ``rate`` (ug/kg/min; null for ventilation).

    Raises
    ------
    SourceTableError
        If a table is missing or corrupt, or lacks a column.
    """
    drugs = {item: drug for item, (drug, _) in INFUSIONS.items()}
    infusions = read_table(
        root, "icu/inputevents", INPUTEVENTS, where=pl.col("itemid").is_in(list(INFUSIONS))
    ).select(
        "subject_id",
        "starttime",
        "endtime",
        pl.col("itemid").replace_strict(drugs, default=None, return_dtype=pl.String).alias("kind"),
        (
            pl.col("rate")
            * pl.col("rateuom").replace_strict(PER_KILOGRAM_AND_MINUTE, default=None, return_dtype=pl.Float64)
        ).alias("rate"),
    )
    ventilated = read_table(
        root, "icu/procedureevents", PROCEDUREEVENTS, where=pl.col("itemid").is_in(list(VENTILATION))
    ).select(
        "subject_id",
        "starttime",
        "endtime",
        pl.lit("ventilation").alias("kind"),
        pl.lit(None, pl.Float64).alias("rate"),
    )
    given = infusions.filter(pl.col("rate") > 0)
    return (
        pl.concat([given, ventilated])
        .with_columns(time_column("starttime").alias("start"), time_column("endtime").alias("end"))
        .drop_nulls(["start", "end"])
        .select(pl.col(name).cast(dtype) for name, dtype in SUPPORTS.items())
        .sort("subject_id", "start", "kind", "end")
    )
