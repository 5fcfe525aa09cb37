"""The one mapper: FHIR, MIMIC-IV and PhysioNet observations all pass through it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from modelling.catalogue import Catalogue
from modelling.errors import MappingError
from modelling.mapping.coding import choose_codings, find_features
from modelling.mapping.derived import PARTS, TOTAL, derive_gcs_total
from modelling.mapping.merging import merge_repeats, sum_outlets, superseded
from modelling.mapping.values import read_values
from validation.contracts import empty
from validation.reasons import Reason

STAGE = "map"
_READ = (
    *("subject_id", "time", "available_time", "value", "text_value", "comparator"),
    *("unit_system", "unit_code", "unit_text", "status", "component"),
)
"""Columns that decide what becomes of a row; the others are fetched for the rows that remain."""


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """What became of a table of observations.

    Attributes
    ----------
    events
        Rows of the ``Events`` contract, sorted by subject, time and feature.
    quarantine
        Rows of the ``Quarantine`` contract; ``whole`` is false, since a row is not a resource.
    unmapped
        ``coding`` (``system|code``) and ``n``, most frequent first: what the catalogue does not use.
    counts
        Rows by fate: ``observations``, ``events`` (not derived), ``derived``, ``unmapped``, ``merged``,
        ``quarantined``.
    """

    events: pl.DataFrame
    quarantine: pl.DataFrame
    unmapped: pl.DataFrame
    counts: dict[str, int]


def map_observations(
    observations: pl.DataFrame, catalogue: Catalogue, *, as_of: datetime | None = None
) -> Mapping:
    """Map observations to events of catalogue features in canonical units.

    Every row ends as an event, as unmapped, as a merged repeat, or in quarantine, and the account of these is
    checked. A null ``available_time`` is taken as the clinical time: the source does not say when it knew.
    Plausible ranges are not applied here but by :func:`validation.rules.judge_events`.

    Parameters
    ----------
    observations
        Rows of the ``Observations`` contract.
    as_of
        The moment up to which corrections are applied (a night passes its prediction time). When None, a
        correction replaces only values that were not known before it.

    Raises
    ------
    MappingError
        If the account does not add up.
    """
    catalogue = catalogue.with_feature_type()
    codings = choose_codings(observations["codings"], catalogue)
    found = find_features(codings, catalogue)
    is_known = found["feature"].is_not_null()
    unmapped = (
        codings.filter(~is_known)
        .to_frame()
        .group_by("coding")
        .len("n")
        .sort("n", "coding", descending=[True, False])
    )
    rows = _kept(observations.select(_READ).hstack(found).with_row_index("row"), is_known).with_columns(
        pl.col("available_time").is_null().alias("assumed"),
        pl.col("available_time").fill_null(pl.col("time")),
    )
    known = read_values(rows, catalogue)
    replaced = superseded(known, as_of)
    if replaced.any():
        known = known.with_columns(
            pl.when(pl.col("reason").is_null() & replaced)
            .then(pl.lit(str(Reason.RESOURCE_SUPERSEDED)))
            .otherwise("reason")
            .alias("reason")
        )
    refused = known.filter(pl.col("reason").is_not_null())
    good = _kept(
        known.select(
            *("row", "subject_id", "time", "feature", "numeric_value", "text", "available_time", "assumed"),
            pl.when("summed").then("coding").alias("outlet"),
            pl.lit(False).alias("derived"),
        ),
        known["reason"].is_null(),
    )
    totals = derive_gcs_total(merge_repeats(good.filter(pl.col("feature").is_in([*PARTS, TOTAL]))))
    merged = sum_outlets(merge_repeats(pl.concat([good, totals])))
    counts = {
        "observations": observations.height,
        "events": merged.height - totals.height,
        "derived": totals.height,
        "unmapped": observations.height - known.height,
        "merged": good.height - (merged.height - totals.height),
        "quarantined": refused.height,
    }
    _check_account(counts)
    return Mapping(
        events=_events(merged, observations),
        quarantine=_quarantine(refused, observations),
        unmapped=unmapped,
        counts=counts,
    )


def _kept(rows: pl.DataFrame, mask: pl.Series) -> pl.DataFrame:
    """Filter, without the copy that it costs where every row stays."""
    return rows if mask.all() else rows.filter(mask)


def _events(rows: pl.DataFrame, observations: pl.DataFrame) -> pl.DataFrame:
    return rows.hstack(observations.select("encounter_id", "source_ref")[rows["row"]]).select(
        "subject_id",
        "time",
        pl.col("feature").cast(pl.String).alias("code"),
        "numeric_value",
        pl.col("text").alias("text_value"),
        "available_time",
        "encounter_id",
        "source_ref",
        "derived",
    )


def _quarantine(refused: pl.DataFrame, observations: pl.DataFrame) -> pl.DataFrame:
    origin = observations.select("source_file", "source_line", "source_ref")[refused["row"]]
    unit = pl.coalesce("unit_code", "unit_text").str.slice(0, 20)
    return (
        refused.hstack(origin)
        .select(
            pl.lit(STAGE).alias("stage"),
            "reason",
            "source_file",
            "source_line",
            "source_ref",
            "component",
            pl.col("feature").cast(pl.String),
            pl.when(pl.col("reason") == str(Reason.UNIT_UNKNOWN))
            .then(pl.format("unit {}", unit))
            .alias("detail"),
            pl.lit(False).alias("whole"),
        )
        .cast(empty("quarantine").schema)
    )


def _check_account(counts: dict[str, int]) -> None:
    ends = counts["events"] + counts["unmapped"] + counts["merged"] + counts["quarantined"]
    if counts["observations"] != ends or min(counts.values()) < 0:
        raise MappingError(f"rows were lost or made in mapping: {counts}")
