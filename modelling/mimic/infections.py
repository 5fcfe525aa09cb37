"""Suspected infections: an antibiotic and a culture close together (Seymour et al. 2016)."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from modelling.cohorts.sepsis import suspicion_times
from modelling.mimic.files import Schema, read_table, table_path, time_column

INPUTEVENTS: Schema = {"subject_id": pl.Int64, "starttime": pl.String, "ordercategoryname": pl.String}
PRESCRIPTIONS: Schema = {
    "subject_id": pl.Int64,
    "starttime": pl.String,
    "drug": pl.String,
    "route": pl.String,
}
MICROBIOLOGY: Schema = {"subject_id": pl.Int64, "chartdate": pl.String, "charttime": pl.String}

ANTIBIOTIC = (
    r"(?i)(cillin|cef|ceph|penem|bactam|floxacin|mycin|micin|cycline|sulfameth|trimethoprim|vancomycin|"
    r"metronidazole|linezolid|daptomycin|aztreonam|colistin|polymyxin b|nitrofurantoin|rifampin|amikacin)"
)
"""Name stems of systemic antibacterials."""
SYSTEMIC = ("IV", "PO", "PO/NG", "NG", "ORAL", "IM", "IV DRIP", "IVPCA")
"""Routes that are not topical, inhaled or into the eye or ear."""
TABLES = ("icu/inputevents", "hosp/prescriptions", "hosp/microbiologyevents")


def read_suspicions(root: Path) -> pl.DataFrame:
    """Return ``subject_id``, ``time`` of suspected infections.

    Antibiotics are the infusions that the ICU files under antibiotics and systemic prescriptions by name; a
    culture without time counts from its day's end.

    Raises
    ------
    SourceTableError
        If one of the three tables is missing or corrupt, or lacks a column.
    """
    for name in TABLES:
        table_path(root, name)
    infusions = read_table(
        root,
        "icu/inputevents",
        INPUTEVENTS,
        where=pl.col("ordercategoryname").str.contains("Antibiotics", literal=True),
    )
    prescribed = read_table(
        root,
        "hosp/prescriptions",
        PRESCRIPTIONS,
        where=pl.col("drug").str.contains(ANTIBIOTIC) & pl.col("route").is_in(list(SYSTEMIC)),
    )
    given = pl.concat(
        [infusions.select("subject_id", "starttime"), prescribed.select("subject_id", "starttime")]
    )
    given = given.with_columns(time_column("starttime").alias("time")).drop_nulls("time")
    day = pl.col("chartdate").str.slice(0, 10) + pl.lit(" 23:59:00")
    cultures = (
        read_table(root, "hosp/microbiologyevents", MICROBIOLOGY)
        .with_columns(pl.coalesce("charttime", day).alias("charttime"))
        .with_columns(time_column("charttime").alias("time"))
        .drop_nulls("time")
    )
    return suspicion_times(
        given.select("subject_id", "time").unique(), cultures.select("subject_id", "time").unique()
    )
