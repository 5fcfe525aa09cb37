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
    kinds = rows.select(units).unique()
    as_ucum = (
        catalogue.conversions.filter(pl.col("unit_system") == UCUM)
        .drop("unit_system")
        .rename({"unit_code": "ucum", "factor": "factor_ucum", "offset": "offset_ucum"})
    )
    as_text = catalogue.conversions.filter(pl.col("unit_system").is_null()).drop("unit_system")
    code, text = pl.col("unit_code").replace("", None), pl.col("unit_text").replace("", None)
    known = (
        kinds.with_columns(
            pl.when(pl.col("unit_system") == UCUM).then(strip_annotations(code)).alias("ucum"),
            fold_text(pl.coalesce(code, text)).alias("text"),
            (code.is_not_null() | text.is_not_null()).alias("declared"),
        )
        .join(as_ucum, on=["feature", "ucum"], how="left")
        .join(as_text, left_on=["feature", "text"], right_on=["feature", "unit_code"], how="left")
        .select(
            *units,
            "declared",
            pl.coalesce("factor_ucum", "factor").alias("factor"),
            pl.coalesce("offset_ucum", "offset").alias("offset"),
        )
    )
    joined = rows.join(known, on=units, how="left", nulls_equal=True, maintain_order="left")
    stated = ~pl.col("declared")
    return joined.with_columns(
        pl.when(stated).then(pl.col("stated_factor")).otherwise("factor").alias("factor"),
        pl.when(stated).then(pl.col("stated_offset")).otherwise("offset").alias("offset"),
    )


def attach_levels(rows: pl.DataFrame, catalogue: Catalogue) -> pl.DataFrame:
    """Add ``level``, ``level_name`` and ``by_name`` to rows of ordinal and categorical features.

    A text is matched against the level's names; a number is the level itself or, where levels are ranges,
    falls into one.
    """
    names = catalogue.levels.select("feature", "level", pl.col("synonyms").alias("folded")).explode("folded")
    labels = catalogue.levels.select("feature", "level", level_name="name")
    ranged = catalogue.levels.filter(pl.col("at_most").is_not_null())["feature"].unique()
    bounds = (
        catalogue.levels.filter(pl.col("feature").is_in(ranged.implode()))
        .select("feature", pl.col("at_most").fill_null(float("inf")), ranged_level="level")
        .sort("at_most")
    )
    text = pl.when(pl.col("value").is_null()).then(fold_text(pl.col("text_value")))
    number = pl.col("converted") + pl.when(pl.col("sign") == ">").then(JUST_ABOVE).otherwise(0.0)
    return (
        rows.with_columns(text.alias("folded"), number.fill_nan(None).alias("at_most"))
        .join(
            names.rename({"level": "named_level"}),
            on=["feature", "folded"],
            how="left",
            maintain_order="left",
        )
        .sort("at_most", nulls_last=False)
        .join_asof(bounds, on="at_most", by="feature", strategy="forward", check_sortedness=False)
        .sort("row")
        .with_columns(
            pl.coalesce(
                "named_level",
                pl.when(pl.col("feature").is_in(ranged.implode()))
                .then(pl.col("ranged_level"))
                .otherwise("converted"),
            ).alias("level")
        )
        .join(labels, on=["feature", "level"], how="left", maintain_order="left")
        .with_columns(pl.col("named_level").is_not_null().alias("by_name"))
        .drop("folded", "at_most", "named_level", "ranged_level")
    )


def read_values(rows: pl.DataFrame, catalogue: Catalogue) -> pl.DataFrame:
    """Add ``numeric_value``, ``text`` and ``reason`` (null where the value is usable) to rows with a feature.

    ``rows`` carries ``row``, ``feature``, ``stated_*`` and the columns of the ``observations`` contract.
    """
    facts = catalogue.features.select(
        "feature", "kind", "requires_unit", "combine", pl.col("comparators").fill_null("")
    )
    rows = attach_conversion(
        read_texts(rows.join(facts, on="feature", how="left", maintain_order="left")), catalogue
    )
    rows = rows.with_columns(
        (pl.col("number") * pl.col("factor").fill_null(1.0) + pl.col("offset").fill_null(0.0)).alias(
            "converted"
        )
    )
    continuous = pl.col("kind") == "continuous"
    levelled = attach_levels(rows.filter(~continuous), catalogue)
    rows = pl.concat(
        [
            rows.filter(continuous).with_columns(
                pl.lit(None, pl.Float64).alias("level"),
                pl.lit(None, pl.String).alias("level_name"),
                pl.lit(False).alias("by_name"),
            ),
            levelled,
        ],
        how="diagonal",
    )
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
        .when(~continuous & pl.col("level_name").is_null())
        .then(pl.lit(str(Reason.VALUE_UNKNOWN_LEVEL)))
    )
    return rows.with_columns(
        reason.alias("reason"),
        pl.when(continuous)
        .then(pl.col("converted"))
        .otherwise("level")
        .cast(pl.Float32)
        .alias("numeric_value"),
        pl.when(~continuous).then(pl.col("level_name")).alias("text"),
    )
