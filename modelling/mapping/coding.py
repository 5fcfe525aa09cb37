"""Which feature an observation means: the first of its codings by the catalogue's priority."""

from __future__ import annotations

import polars as pl

from modelling.catalogue import Catalogue


def choose_codings(codings: pl.Series, catalogue: Catalogue) -> pl.Series:
    """Return the coding that counts for each row.

    All codings are looked at; the lowest priority number wins, then the resource's own order. A row none of
    whose codings the catalogue knows keeps its first coding.

    Parameters
    ----------
    codings
        Lists of ``system|code``.
    """
    chosen = codings.list.first().alias("coding")
    several = codings.list.len() > 1
    if not several.any():
        return chosen
    best = (
        pl.DataFrame({"row": several.arg_true(), "coding": codings.filter(several)})
        .explode("coding")
        .with_columns(pl.int_range(pl.len()).over("row").alias("position"))
        .join(catalogue.codes.select("coding", "priority"), on="coding", how="left", maintain_order="left")
        .sort("row", "priority", "position", nulls_last=True)
        .unique("row", keep="first", maintain_order=True)
    )
    return chosen.scatter(best["row"], best["coding"])


def find_features(codings: pl.Series, catalogue: Catalogue) -> pl.DataFrame:
    """Return ``coding`` (as an Enum of those known), ``feature``, ``stated_factor`` and ``stated_offset``.

    All are null where the catalogue does not know the coding; the latter two belong to the stated unit.
    """
    codes = catalogue.codes.select("feature", stated_factor="factor", stated_offset="offset")
    # Each text is looked up once; what belongs to it is then taken by number.
    known = codings.cast(pl.Enum(catalogue.codes["coding"]), strict=False).alias("coding")
    number = known.to_physical()
    return pl.DataFrame([known, *(column.gather(number) for column in codes)])
