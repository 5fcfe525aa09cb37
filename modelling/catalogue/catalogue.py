"""Loading and checking the catalogue's reviewed files (``features.csv`` and its neighbours).

Units follow UCUM (https://ucum.org). A unit that a sender declares in UCUM is matched exactly, but for
annotations in braces, which carry no meaning; any other unit is matched as text, folded by
:func:`fold_text`, against the synonyms that the catalogue lists for the feature.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from modelling.errors import CatalogueError

UCUM = "http://unitsofmeasure.org"
"""System URL of UCUM in FHIR."""

FOLDER = Path(__file__).parent
KINDS = ("continuous", "ordinal", "categorical")
DIRECTIONS = ("vital", "lab", "output", "derived", "static")

_FEATURES = {
    "feature": pl.String,
    "label": pl.String,
    "kind": pl.String,
    "unit": pl.String,
    "unit_family": pl.String,
    "low": pl.Float64,
    "high": pl.Float64,
    "normal": pl.Float64,
    "direction": pl.String,
    "benchmark": pl.String,
    "requires_unit": pl.Boolean,
    "comparators": pl.String,
    "combine": pl.String,
    "sets": pl.String,
    "range_source": pl.String,
}
_CODES = {
    "feature": pl.String,
    "system": pl.String,
    "code": pl.String,
    "expected": pl.String,
    "fluid": pl.String,
    "unit": pl.String,
    "unit_source": pl.String,
    "priority": pl.Int32,
}
_UNITS = {
    "family": pl.String,
    "system": pl.String,
    "unit": pl.String,
    "factor": pl.Float64,
    "offset": pl.Float64,
}
_LEVELS = {
    "feature": pl.String,
    "level": pl.Float64,
    "name": pl.String,
    "at_most": pl.Float64,
    "synonyms": pl.String,
}
_SYSTEMS = {"alias": pl.String, "url": pl.String, "title": pl.String}


def fold_text(text: pl.Expr) -> pl.Expr:
    """Return text without white space, in lower case, with one spelling of micro and degree.

    Examples
    --------
    >>> pl.select(fold_text(pl.lit(" mm Hg"))).item()
    'mmhg'
    >>> pl.select(fold_text(pl.lit("µmol/L"))).item()
    'umol/l'
    """
    return (
        text.str.to_lowercase()
        .str.replace_all(r"\s+", "")
        .str.replace_all("[µμ]", "u")
        .str.replace_all("º", "°")
    )


def strip_annotations(code: pl.Expr) -> pl.Expr:
    """Return a UCUM code without annotations; one that is nothing else is the unity (UCUM section 2.1)."""
    bare = code.str.strip_chars().str.replace_all(r"\{[^}]*\}", "")
    return pl.when(bare == "").then(pl.lit("1")).otherwise(bare)


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """The catalogue as frames, joined on ``feature``.

    Attributes
    ----------
    features
        One row a feature: ``feature``, ``label``, ``kind`` (continuous, ordinal, categorical), ``unit``
        (canonical, UCUM), ``low``, ``high`` (plausible range, inclusive), ``normal``, ``direction`` (vital,
        lab, output, derived, static), ``benchmark`` (channel of Harutyunyan et al. 2019, or null),
        ``requires_unit``, ``comparators`` (those with which a bound may stand for the value), ``combine``
        (distinct or sum), ``sets``.
    codes
        One row a coding: ``coding`` (``system|code``), ``feature``, ``system`` (alias), ``code``,
        ``expected`` (label in the source's dictionary), ``fluid``, ``unit`` (used where the source declares
        none), ``unit_source``, ``priority`` (1 first), ``factor`` and ``offset`` of that unit.
    conversions
        ``feature``, ``unit_system`` (UCUM's URL, or null for text), ``unit_code``, ``factor``, ``offset``;
        the canonical value is ``value * factor + offset``.
    levels
        ``feature``, ``level`` (number), ``name``, ``at_most`` (upper bound in the canonical unit of the
        measured quantity, where levels are ranges), ``synonyms`` (list of folded texts).
    digest
        SHA-256 of the content as shipped.
    site_codes
        SHA-256 of the codings that a site added (:func:`modelling.catalogue.site_codes.add_site_codes`), if any.
    """

    features: pl.DataFrame
    codes: pl.DataFrame
    conversions: pl.DataFrame
    levels: pl.DataFrame
    systems: pl.DataFrame
    digest: str
    site_codes: str | None = None

    def with_feature_type(self) -> Catalogue:
        """Return the catalogue with ``feature`` as an Enum in every frame: it joins and sorts quickly."""
        kind = pl.Enum(self.features["feature"].cast(pl.String).sort())
        frames = {
            name: getattr(self, name).with_columns(pl.col("feature").cast(kind))
            for name in ("features", "codes", "conversions", "levels")
        }
        return replace(self, **frames)

    def limits(self) -> pl.DataFrame:
        """Return ``code``, ``low``, ``high`` of every feature, for :func:`validation.rules.judge_events`."""
        return self.features.select(pl.col("feature").alias("code"), "low", "high")

    def system_url(self, alias: str) -> str:
        """Return the URL of a system alias (``loinc``, ``chart``, ``items``, ``lab``, ``p12``)."""
        return str(self.systems.filter(pl.col("alias") == alias)["url"].item())

    def codes_of(self, alias: str) -> pl.DataFrame:
        """Return the codes of one system."""
        return self.codes.filter(pl.col("system") == alias)


def _read(folder: Path, name: str, schema: Mapping[str, type[pl.DataType]]) -> pl.DataFrame:
    path = folder / name
    if not path.is_file():
        raise CatalogueError(f"the catalogue lacks {name} in {folder}")
    frame = pl.read_csv(path, schema_overrides=schema)
    if frame.columns != list(schema):
        raise CatalogueError(f"{name}: columns must be {', '.join(schema)}")
    return frame


def refuse(rows: pl.DataFrame, column: str, complaint: str) -> None:
    """Raise :class:`CatalogueError` if there are such rows, naming ten of them by a column."""
    if rows.height:
        names = ", ".join(sorted(map(str, rows[column].unique().to_list()))[:10])
        raise CatalogueError(f"{complaint}: {names}")


def _conversions(features: pl.DataFrame, units: pl.DataFrame) -> pl.DataFrame:
    refuse(
        features.join(units, left_on="unit_family", right_on="family", how="anti"),
        "feature",
        "no unit of the family is known for",
    )
    is_ucum = pl.col("system") == "ucum"
    return (
        features.select("feature", family="unit_family")
        .join(units, on="family")
        .select(
            "feature",
            pl.when(is_ucum).then(pl.lit(UCUM)).alias("unit_system"),
            pl.when(is_ucum).then(pl.col("unit")).otherwise(fold_text(pl.col("unit"))).alias("unit_code"),
            "factor",
            "offset",
        )
        .sort("feature", "unit_system", "unit_code", nulls_last=True)
    )


def attach_stated_units(codes: pl.DataFrame, conversions: pl.DataFrame) -> pl.DataFrame:
    """Attach ``factor`` and ``offset`` of the unit that is stated for codings without declared unit."""
    as_ucum = pl.col("system") == "p12"
    stated = codes.with_columns(
        pl.when(as_ucum).then(pl.lit(UCUM)).alias("unit_system"),
        pl.when(as_ucum)
        .then(strip_annotations(pl.col("unit")))
        .otherwise(fold_text(pl.col("unit")))
        .alias("unit_code"),
    )
    return stated.join(
        conversions,
        on=["feature", "unit_system", "unit_code"],
        how="left",
        nulls_equal=True,
        maintain_order="left",
    ).drop("unit_system", "unit_code")


def without_conversion(codes: pl.DataFrame) -> pl.DataFrame:
    """Return the codings whose stated unit has no conversion."""
    return codes.filter(pl.col("unit").is_not_null() & pl.col("factor").is_null())


def _check(
    features: pl.DataFrame, codes: pl.DataFrame, conversions: pl.DataFrame, levels: pl.DataFrame
) -> None:
    refuse(features.filter(pl.col("feature").is_duplicated()), "feature", "feature listed twice")
    refuse(features.filter(~pl.col("kind").is_in(list(KINDS))), "feature", "unknown kind of")
    refuse(features.filter(~pl.col("direction").is_in(list(DIRECTIONS))), "feature", "unknown direction of")
    refuse(
        features.filter(~pl.col("combine").is_in(["distinct", "sum"])), "feature", "unknown combination of"
    )
    refuse(features.filter(~(pl.col("low") < pl.col("high")).fill_null(False)), "feature", "empty range of")
    refuse(codes.filter(pl.col("coding").is_duplicated()), "coding", "coding listed twice")
    refuse(codes.join(features, on="feature", how="anti"), "feature", "codes of an unknown feature")
    refuse(levels.join(features, on="feature", how="anti"), "feature", "levels of an unknown feature")
    named = features.filter(pl.col("kind") != "continuous")
    refuse(named.join(levels, on="feature", how="anti"), "feature", "no levels of")
    keys = ["feature", "unit_system", "unit_code"]
    refuse(conversions.filter(pl.struct(keys).is_duplicated()), "unit_code", "unit listed twice")
    synonyms = levels.select("feature", "synonyms").explode("synonyms").drop_nulls()
    refuse(
        synonyms.filter(pl.struct("feature", "synonyms").is_duplicated()), "synonyms", "synonym of two levels"
    )


def _digest(frames: dict[str, pl.DataFrame]) -> str:
    content = {name: frame.to_dicts() for name, frame in frames.items()}
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def load_catalogue(path: Path | None = None) -> Catalogue:
    """Load the catalogue from its folder of CSV files and check that it holds together.

    Parameters
    ----------
    path
        Folder with ``features.csv``, ``codes.csv``, ``units.csv``, ``levels.csv``, ``systems.csv``; the
        catalogue shipped with the package when None.

    Raises
    ------
    CatalogueError
        If a file is missing, or rows contradict one another; names the rows.
    """
    folder = path or FOLDER
    features = _read(folder, "features.csv", _FEATURES).sort("feature")
    systems = _read(folder, "systems.csv", _SYSTEMS).sort("alias")
    units = _read(folder, "units.csv", _UNITS)
    raw_codes = _read(folder, "codes.csv", _CODES)
    levels = (
        _read(folder, "levels.csv", _LEVELS)
        .with_columns(
            fold_text(pl.concat_str("name", "synonyms", separator="|", ignore_nulls=True))
            .str.split("|")
            .list.unique()
            .list.sort()
            .alias("synonyms")
        )
        .sort("feature", "level")
    )
    refuse(
        raw_codes.join(systems, left_on="system", right_on="alias", how="anti"),
        "system",
        "unknown code system",
    )
    conversions = _conversions(features, units)
    codes = (
        raw_codes.join(systems.select("alias", "url"), left_on="system", right_on="alias", how="left")
        .select(pl.concat_str("url", "code", separator="|").alias("coding"), pl.all().exclude("url"))
        .sort("coding")
    )
    _check(features, codes, conversions, levels)
    codes = attach_stated_units(codes, conversions)
    refuse(without_conversion(codes), "code", "stated unit without conversion")
    frames = {"features": features, "codes": codes, "conversions": conversions, "levels": levels}
    return Catalogue(
        features=features,
        codes=codes,
        conversions=conversions,
        levels=levels,
        systems=systems,
        digest=_digest(frames),
    )
