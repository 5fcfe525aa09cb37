"""A hospital's own codings of the catalogue's features, kept in a file of the site.

They say how the source names what the catalogue knows; they change no feature, unit, range or level. So the
catalogue's digest stays, and with it every model that was trained with it: what a value means to a model is
the same, whichever code it came under.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import polars as pl

from modelling.catalogue.catalogue import Catalogue, attach_stated_units, refuse, without_conversion
from modelling.errors import CatalogueError

COLUMNS = {
    "feature": pl.String,
    "system": pl.String,
    "code": pl.String,
    "label": pl.String,
    "unit": pl.String,
    "priority": pl.Int32,
}
SITE = "site"
"""Alias of every system that a site's file names."""
PRIORITY = 5
"""Of a coding that states none: after LOINC, where a resource carries both."""


def add_site_codes(catalogue: Catalogue, path: Path) -> Catalogue:
    """Return the catalogue with the codings of a site's CSV file.

    Parameters
    ----------
    catalogue
        The catalogue as shipped.
    path
        CSV file with ``feature`` (a feature of the catalogue), ``system`` (the code system's URL, as in
        ``Observation.code.coding.system``), ``code``, ``label``, ``unit`` (only where the source declares
        none: one of the feature's units) and ``priority`` (1 first; empty: 5). The last three may be empty.

    Returns
    -------
    Catalogue
        Same ``digest``; ``site_codes`` is the digest of what was added.

    Raises
    ------
    CatalogueError
        If the file is missing or malformed, or contradicts the catalogue; names the rows.
    """
    stated = _read(path).select(
        pl.concat_str("system", "code", separator="|").alias("coding"),
        "feature",
        pl.lit(SITE).alias("system"),
        "code",
        pl.col("label").alias("expected"),
        pl.lit(None, pl.String).alias("fluid"),
        "unit",
        pl.when(pl.col("unit").is_not_null()).then(pl.lit(path.name)).alias("unit_source"),
        pl.col("priority").fill_null(PRIORITY),
    )
    rows = attach_stated_units(stated, catalogue.conversions).sort("coding")
    _check(rows, catalogue)
    codes = pl.concat([catalogue.codes, rows.select(catalogue.codes.columns)]).sort("coding")
    digest = hashlib.sha256(rows.drop("unit_source").write_csv().encode()).hexdigest()
    return replace(catalogue, codes=codes, site_codes=digest)


def _read(path: Path) -> pl.DataFrame:
    try:
        frame = pl.read_csv(path, schema_overrides=COLUMNS)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise CatalogueError(
            f"site codes cannot be read from {path}: {type(error).__name__}; it must be a CSV file with the "
            f"columns {', '.join(COLUMNS)}"
        ) from None
    if frame.columns != list(COLUMNS):
        raise CatalogueError(f"{path}: columns must be {', '.join(COLUMNS)}")
    text = pl.selectors.string()
    return frame.with_columns(text.str.strip_chars()).with_columns(text.replace("", None))


def _check(rows: pl.DataFrame, catalogue: Catalogue) -> None:
    known = catalogue.codes.select("coding", meant="feature")
    for wrong, complaint in (
        (rows.filter(pl.any_horizontal(pl.col("feature", "coding").is_null())), "incomplete"),
        (rows.join(catalogue.features, on="feature", how="anti"), "of a feature that the catalogue lacks"),
        (rows.filter(pl.col("coding").is_duplicated()), "listed twice"),
        (rows.join(known, on="coding"), "that the catalogue knows already"),
        (without_conversion(rows), "in an unknown unit"),
        (rows.filter(pl.col("priority") < 1), "with a priority below 1"),
    ):
        named = wrong.with_columns(pl.format("{} = {}", "feature", "code").alias("named"))
        refuse(named, "named", f"site codes: {complaint}")
