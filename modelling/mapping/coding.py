"""Which feature an observation means: the first of its codings by the catalogue's priority."""

from __future__ import annotations

import polars as pl

from modelling.catalogue import Catalogue

_ATTACHED = ("feature", "stated_factor", "stated_offset")


def attach_feature(rows: pl.DataFrame, catalogue: Catalogue) -> pl.DataFrame:
    """Add ``coding``, ``feature`` and the stated unit's ``stated_factor`` and ``stated_offset``.

    Rows carry ``row`` and ``codings``; the latter is dropped.

    All codings are looked at; the lowest priority number wins, then the resource's own order. A row none of
    whose codings the catalogue knows keeps its first coding and a null feature.
    """
    codes = catalogue.codes.select(
        "coding", "feature", "priority", stated_factor="factor", stated_offset="offset"
    )
    several = pl.col("codings").list.len() > 1
    single = (
        rows.filter(~several)
        .with_columns(pl.col("codings").list.first().alias("coding"))
        .join(codes.drop("priority"), on="coding", how="left", maintain_order="left")
    )
    many = rows.filter(several)
    if many.is_empty():
        return single.drop("codings")
    chosen = (
        many.select("row", coding="codings")
        .explode("coding")
        .with_columns(pl.int_range(pl.len()).over("row").alias("position"))
        .join(codes, on="coding", how="left", maintain_order="left")
        .sort("row", "priority", "position", nulls_last=True)
        .unique("row", keep="first", maintain_order=True)
        .select("row", "coding", *_ATTACHED)
    )
    joined = many.join(chosen, on="row", how="left", maintain_order="left")
    return pl.concat(
        [single.drop("codings"), joined.drop("codings").select(single.drop("codings").columns)]
    ).sort("row")
