"""Chart events of the MIMIC-IV demo in the compact form in which the open data folder holds them."""

from __future__ import annotations

from pathlib import Path

import polars as pl

COMPACT = "compact/chartevents_numeric.parquet"


def write_official_layout(compact: Path, target: Path) -> Path:
    """Write compact chart events with the columns of the official table; return ``target``.

    The compact form keeps numbers as float32, no text and no storetime. Numbers are taken by their shortest
    decimal form, which is what was charted.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    frame = pl.scan_parquet(compact).select(
        pl.col("subject_id").cast(pl.Int64),
        pl.col("stay_id").cast(pl.Int64),
        pl.col("charttime").dt.strftime("%Y-%m-%d %H:%M:%S"),
        pl.lit(None, pl.String).alias("storetime"),
        pl.col("itemid").cast(pl.Int32),
        pl.lit(None, pl.String).alias("value"),
        pl.col("valuenum").cast(pl.Float32).cast(pl.String).cast(pl.Float64).alias("valuenum"),
        "valueuom",
    )
    frame.sink_parquet(target)
    return target
