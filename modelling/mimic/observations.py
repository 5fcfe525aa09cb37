"""Rows of chartevents, labevents and outputevents as observations, coded as MIMIC-IV on FHIR codes them.

Rows come with ``line`` and their times as moments (:func:`modelling.mimic.files.with_times`).
"""

from __future__ import annotations

import polars as pl

from validation.contracts import empty

CORRECTED = "(?i)corrected"
REMARK = r"^\s*((?:<=|>=|<|>)\s*\d+(?:\.\d+)?)"
"""A bound at the start of a laboratory remark (``<0.01.  CTROPNT ...``); nothing else of it is kept."""


def _shape(
    rows: pl.DataFrame, *, system: str, table: str, source_file: str, **columns: pl.Expr
) -> pl.DataFrame:
    schema = empty("observations").schema
    columns = {
        "encounter_id": pl.col("encounter").cast(pl.String),
        "time": pl.col("charttime"),
        "available_time": pl.col("storetime"),
        "codings": pl.concat_list("coding"),
        "comparator": pl.lit(None, pl.String),
        "text_value": pl.lit(None, pl.String),
        "unit_system": pl.lit(None, pl.String),
        "unit_code": pl.lit(None, pl.String),
        "unit_text": pl.col("valueuom"),
        "status": pl.lit("final"),
        "source_ref": pl.concat_str(pl.lit(f"{table}:"), pl.col("line").cast(pl.String)),
        "source_file": pl.lit(source_file),
        "source_line": pl.col("line"),
        "component": pl.lit(0, pl.UInt16),
        **columns,
    }
    # Every item's coding is made once and shared by its rows.
    items = rows["itemid"].unique().sort()
    texts = items.to_frame().select(pl.concat_str(pl.lit(f"{system}|"), pl.col("itemid").cast(pl.String)))
    coding = texts.to_series().gather(items.search_sorted(rows["itemid"])).alias("coding")
    return (
        rows.with_columns(coding)
        .select("subject_id", *(expression.alias(name) for name, expression in columns.items()))
        .select(pl.col(name).cast(dtype) for name, dtype in schema.items())
    )


def chart_observations(rows: pl.DataFrame, *, system: str, source_file: str) -> pl.DataFrame:
    """Return chartevents as observations: the number where there is one, else the text."""
    return _shape(
        rows.rename({"stay_id": "encounter"}),
        system=system,
        table="chartevents",
        source_file=source_file,
        value=pl.col("valuenum"),
        text_value=pl.when(pl.col("valuenum").is_null()).then(pl.col("value")),
    )


def lab_observations(rows: pl.DataFrame, *, system: str, source_file: str) -> pl.DataFrame:
    """Return labevents as observations.

    Without number the text counts, and where that is blanked (``___``) the bound that begins the remark.
    A remark that says so makes the status ``corrected``; the table holds the corrected value only.
    """
    text = pl.col("value").replace("___", None)
    return _shape(
        rows.rename({"hadm_id": "encounter"}),
        system=system,
        table="labevents",
        source_file=source_file,
        value=pl.col("valuenum"),
        text_value=pl.when(pl.col("valuenum").is_null()).then(
            pl.coalesce(text, pl.col("comments").str.extract(REMARK, 1))
        ),
        status=pl.when(pl.col("comments").str.contains(CORRECTED))
        .then(pl.lit("corrected"))
        .otherwise(pl.lit("final")),
        source_ref=pl.concat_str(pl.lit("labevents:"), pl.col("labevent_id").cast(pl.String)),
    )


def output_observations(rows: pl.DataFrame, *, system: str, source_file: str) -> pl.DataFrame:
    """Return outputevents as observations."""
    return _shape(
        rows.rename({"stay_id": "encounter"}),
        system=system,
        table="outputevents",
        source_file=source_file,
        value=pl.col("value"),
    )
