"""Values that Nightingale computes: the Glasgow Coma Scale total, marked as derived."""

from __future__ import annotations

import polars as pl

PARTS = ("gcs_eye", "gcs_verbal", "gcs_motor")
TOTAL = "gcs_total"


def derive_gcs_total(rows: pl.DataFrame) -> pl.DataFrame:
    """Return totals for moments with one value of each part and no charted total (Teasdale and Jennett 1974).

    MIMIC-IV charts the parts only. An intubated patient's verbal response counts 1, as the benchmark of
    Harutyunyan et al. has it. The total is known when the last part is, and refers to the motor response.

    Parameters
    ----------
    rows
        Merged rows of the parts and of charted totals: ``row``, ``subject_id``, ``time``, ``feature``,
        ``numeric_value``, ``available_time``. Further columns are null in the totals.
    """
    moment = ["subject_id", "time"]
    parts = rows.filter(pl.col("feature").is_in(list(PARTS)))
    charted = rows.filter(pl.col("feature") == TOTAL).select(moment).unique()
    motor = pl.col("feature") == "gcs_motor"
    totals = (
        parts.group_by(moment)
        .agg(
            pl.len().alias("n"),
            pl.col("feature").n_unique().alias("kinds"),
            pl.col("numeric_value").sum(),
            pl.col("available_time").max(),
            pl.col("row").filter(motor).first(),
        )
        .filter((pl.col("n") == len(PARTS)) & (pl.col("kinds") == len(PARTS)))
        .join(charted, on=moment, how="anti")
        .with_columns(
            pl.lit(TOTAL).cast(rows.schema["feature"]).alias("feature"),
            pl.col("numeric_value").cast(pl.Int32).cast(pl.String).alias("text"),
            pl.lit(True).alias("derived"),
        )
        .drop("n", "kinds")
    )
    return pl.concat([rows.clear(), totals], how="diagonal")
