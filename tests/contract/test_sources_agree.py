"""The proof: the same patients by two routes, MIMIC-IV tables and MIMIC-IV on FHIR, give the same events."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from deploy.compare_sources import CAUSES, compare_sources
from modelling.catalogue import load_catalogue
from modelling.mapping.comparison import Comparison, compare_events
from validation.contracts import empty


@pytest.fixture(scope="module")
def comparison(data_dir: Path) -> Comparison:
    return compare_sources(
        mimic=data_dir / "mimic-iv-demo", fhir=data_dir / "mimic-iv-demo-fhir", catalogue=load_catalogue()
    )


@pytest.mark.data
@pytest.mark.slow
def test_every_feature_value_and_time_is_equal(comparison: Comparison) -> None:
    assert comparison.unexplained == 0, comparison.differences
    assert comparison.equal > 130_000
    assert comparison.by_feature["only_left"].sum() == 0
    assert comparison.by_feature["other_availability"].sum() == 0
    assert comparison.by_feature.filter(pl.col("equal") > 0).height >= 60


@pytest.mark.data
@pytest.mark.slow
def test_every_difference_has_a_cause_that_the_data_hold(comparison: Comparison) -> None:
    assert set(comparison.differences["cause"]) == set(CAUSES.values())
    assert set(comparison.differences["side"]) == {"right"}


def test_a_difference_is_found_and_counted_by_origin() -> None:
    rows = pl.DataFrame(
        {
            "subject_id": [1, 1],
            "time": ["2150-01-01 00:00", "2150-01-01 01:00"],
            "code": ["lactate", "lactate"],
            "numeric_value": [1.0, 2.0],
            "origin": ["labevents", "labevents"],
        }
    ).with_columns(
        pl.col("time").str.to_datetime("%Y-%m-%d %H:%M", time_unit="us", time_zone="UTC"),
        pl.col("numeric_value").cast(pl.Float32),
    )
    rows = rows.with_columns(available_time=pl.col("time"))
    assert set(rows.columns) - {"origin"} <= set(empty("events").columns)
    changed = rows.with_columns(
        pl.when(pl.col("numeric_value") == 2)
        .then(2.5)
        .otherwise("numeric_value")
        .cast(pl.Float32)
        .alias("numeric_value")
    )
    compared = compare_events(rows, changed)
    assert compared.equal == 1
    assert compared.unexplained == 2
    assert compared.differences.select("side", "code", "origin", "n").rows() == [
        ("left", "lactate", "labevents", 1),
        ("right", "lactate", "labevents", 1),
    ]
    excused = compare_events(rows, changed, causes={("left", "labevents"): "a known gap"})
    assert excused.unexplained == 1
