"""Values and units: numbers in texts, conversion by declared unit, levels, and why a value is refused."""

from __future__ import annotations

import polars as pl

from modelling.catalogue import UCUM, Catalogue, fold_text
from modelling.catalogue.catalogue import strip_annotations
from validation.reasons import Reason

NUMBER_ALONE = r"^\s*([-+]?\d+(?:\.\d+)?)[*.]*\s*$"
"""A text that is a number; the star is a laboratory's flag. "2 specimens" is no number."""
BOUND = r"^\s*(<=|>=|<|>)\s*([-+]?\d+(?:\.\d+)?)[*.]*(?:\s|$)"
"""A text that begins with a bound, such as ``<0.01.  CTROPNT ...``; laboratories add remarks after it."""

JUST_ABOVE = 1e-6
"""Added to the bound of ``>`` where levels are ranges, so that "> 3 s" lies above a limit of 3 s."""


def read_texts(rows: pl.DataFrame) -> pl.DataFrame:
    """Add ``number`` and ``sign``: the value and comparator as given, or those of a text."""
    text = pl.col("text_value")
    no_number = pl.col("value").is_null() & text.is_not_null()
    if not rows.select(no_number.any()).item():
        return rows.with_columns(pl.col("value").alias("number"), pl.col("comparator").alias("sign"))
    found = pl.when(no_number).then(text)
    return rows.with_columns(
        pl.coalesce(
            pl.col("value"),
            found.str.extract(BOUND, 2).cast(pl.Float64),
            found.str.extract(NUMBER_ALONE, 1).cast(pl.Float64),
        ).alias("number"),
        pl.coalesce(pl.col("comparator"), found.str.extract(BOUND, 1)).alias("sign"),
    )


def attach_conversion(rows: pl.DataFrame, catalogue: Catalogue) -> pl.DataFrame:
    """Add ``declared`` (a unit was given), ``factor`` and ``offset`` (null where no conversion is known).

    A UCUM code is looked up as such and, failing that, as text: "mmHg" under the UCUM system is not UCUM,
    but it is not ambiguous either. Without declared unit the unit that the catalogue states for the coding is
    taken, and without that none.
    """
    units = ["feature", "unit_system", "unit_code", "unit_text"]
    # Sources that never use a column need no comparison of it.
    given = [name for name in units if name == "feature" or rows[name].null_count() < rows.height]
    kinds = rows.select(given).unique()
    as_ucum = (
        catalogue.conversions.filter(pl.col("unit_system") == UCUM)
        .drop("unit_system")
        .rename({"unit_code": "ucum", "factor": "factor_ucum", "offset": "offset_ucum"})
    )
    as_text = catalogue.conversions.filter(pl.col("unit_system").is_null()).drop("unit_system")
    code, text = pl.col("unit_code").replace("", None), pl.col("unit_text").replace("", None)
    known = (
        kinds.with_columns(pl.lit(None, pl.String).alias(name) for name in units if name not in given)
        .with_columns(
            pl.when(pl.col("unit_system") == UCUM).then(strip_annotations(code)).alias("ucum"),
            fold_text(pl.coalesce(code, text)).alias("text"),
            (code.is_not_null() | text.is_not_null()).alias("declared"),
        )
        .join(as_ucum, on=["feature", "ucum"], how="left")
        .join(as_text, left_on=["feature", "text"], right_on=["feature", "unit_code"], how="left")
        .select(
            *given,
            "declared",
            pl.coalesce("factor_ucum", "factor").alias("factor"),
            pl.coalesce("offset_ucum", "offset").alias("offset"),
        )
    )
    # The joined columns are set beside the others, which a join of all of them would copy.
    found = rows.select(given).join(known, on=given, how="left", nulls_equal=True, maintain_order="left")
    joined = rows.hstack(found.drop(given))
    stated = ~pl.col("declared")
    return joined.with_columns(
        pl.when(stated).then(pl.col("stated_factor")).otherwise("factor").alias("factor"),
        pl.when(stated).then(pl.col("stated_offset")).otherwise("offset").alias("offset"),
    )


def read_levels(rows: pl.DataFrame, catalogue: Catalogue) -> pl.DataFrame:
    """Return ``place``, ``level``, ``named`` and ``by_name`` of rows of ordinal and categorical features.

    A text is matched against the level's names; a number is the level itself or, where levels are ranges,
    falls into one. ``named`` is the number of the level in the catalogue's table, null where it has none.
    """
    labels = catalogue.levels.with_row_index("named").select("feature", "level", "named")
    ranged = catalogue.levels.filter(pl.col("at_most").is_not_null())["feature"].unique()
    plain = pl.col("value").is_not_null() & ~pl.col("feature").is_in(ranged.implode())
    numbers = rows.filter(plain).select(
        "place", "feature", pl.col("converted").alias("level"), pl.lit(False).alias("by_name")
    )
    levels = pl.concat([numbers, _read_texts_and_ranges(rows.filter(~plain), catalogue, ranged)])
    return levels.join(labels, on=["feature", "level"], how="left").drop("feature")


def _read_texts_and_ranges(rows: pl.DataFrame, catalogue: Catalogue, ranged: pl.Series) -> pl.DataFrame:
    names = catalogue.levels.select("feature", "level", pl.col("synonyms").alias("folded")).explode("folded")
    is_ranged = pl.col("feature").is_in(ranged.implode())
    bounds = (
        catalogue.levels.filter(is_ranged)
        .select("feature", pl.col("at_most").fill_null(float("inf")), ranged_level="level")
        .sort("at_most")
    )
    text = pl.when(pl.col("value").is_null()).then(fold_text(pl.col("text_value")))
    number = pl.col("converted") + pl.when(pl.col("sign") == ">").then(JUST_ABOVE).otherwise(0.0)
    return (
        rows.select(
            "place", "feature", "converted", text.alias("folded"), number.fill_nan(None).alias("at_most")
        )
        .join(
            names.rename({"level": "named_level"}),
            on=["feature", "folded"],
            how="left",
            maintain_order="left",
        )
        .sort("at_most", nulls_last=False)
        .join_asof(bounds, on="at_most", by="feature", strategy="forward", check_sortedness=False)
        .select(
            "place",
            "feature",
            pl.coalesce(
                "named_level", pl.when(is_ranged).then(pl.col("ranged_level")).otherwise("converted")
            ).alias("level"),
            pl.col("named_level").is_not_null().alias("by_name"),
        )
    )


def _attach_levels(rows: pl.DataFrame, catalogue: Catalogue) -> pl.DataFrame:
    """Add ``level``, ``named`` and ``by_name`` of :func:`read_levels`; null, and false, of other rows."""
    levelled = read_levels(rows.with_row_index("place").filter(~pl.col("continuous")), catalogue)
    columns = {
        "level": pl.repeat(None, rows.height, dtype=pl.Float64, eager=True),
        "named": pl.repeat(None, rows.height, dtype=pl.UInt32, eager=True),
        "by_name": pl.repeat(value=False, n=rows.height, dtype=pl.Boolean, eager=True),
    }
    return rows.with_columns(
        column.scatter(levelled["place"], levelled[name]).alias(name) for name, column in columns.items()
    )


def read_values(rows: pl.DataFrame, catalogue: Catalogue) -> pl.DataFrame:
    """Add ``numeric_value``, ``text``, ``summed`` and ``reason`` (null where the value is usable).

    ``rows`` carries ``feature`` (an Enum of the catalogue's), ``stated_factor``, ``stated_offset`` and value,
    text, comparator and unit of the ``observations`` contract.
    """
    facts = catalogue.features.sort("feature").select(
        (pl.col("kind") == "continuous").alias("continuous"),
        "requires_unit",
        (pl.col("combine") == "sum").alias("summed"),
        pl.col("comparators").fill_null(""),
    )
    feature = rows["feature"].to_physical()
    rows = attach_conversion(read_texts(rows.hstack([column.gather(feature) for column in facts])), catalogue)
    rows = rows.with_columns(
        (pl.col("number") * pl.col("factor").fill_null(1.0) + pl.col("offset").fill_null(0.0)).alias(
            "converted"
        )
    )
    rows = _attach_levels(rows, catalogue)
    continuous = pl.col("continuous")
    # Few values have a comparator; splitting the list for every row would take a tenth of the time.
    bounds = pl.when(pl.col("sign").is_not_null()).then(pl.col("comparators")).str.split(" ")
    reason = (
        pl.when(pl.col("value").is_null() & pl.col("text_value").is_null())
        .then(pl.lit(str(Reason.VALUE_MISSING)))
        .when(pl.col("by_name"))
        .then(None)
        .when(continuous & pl.col("number").is_null())
        .then(pl.lit(str(Reason.VALUE_TYPE_NOT_SUPPORTED)))
        .when(pl.col("number").is_null())
        .then(pl.lit(str(Reason.VALUE_UNKNOWN_LEVEL)))
        .when(~pl.col("converted").cast(pl.Float32).is_finite())
        .then(pl.lit(str(Reason.VALUE_INVALID)))
        .when(pl.col("sign").is_not_null() & ~pl.col("sign").is_in(bounds))
        .then(pl.lit(str(Reason.VALUE_COMPARATOR)))
        .when(pl.col("declared") & pl.col("factor").is_null())
        .then(pl.lit(str(Reason.UNIT_UNKNOWN)))
        .when(pl.col("requires_unit") & pl.col("factor").is_null())
        .then(pl.lit(str(Reason.UNIT_MISSING)))
        .when(~continuous & pl.col("named").is_null())
        .then(pl.lit(str(Reason.VALUE_UNKNOWN_LEVEL)))
    )
    return rows.with_columns(
        reason.alias("reason"),
        pl.when(continuous)
        .then(pl.col("converted"))
        .otherwise("level")
        .cast(pl.Float32)
        .alias("numeric_value"),
        catalogue.levels["name"].gather(rows["named"]).alias("text"),
    )
