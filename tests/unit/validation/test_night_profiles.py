from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from ward_tables import NIGHT, event, table, ward

from validation.contracts import empty
from validation.equations import Counts
from validation.profiles import (
    NO_WARD,
    SMALL_WARDS,
    count_refusals,
    merge_profiles,
    profile_night,
    profile_shard,
)
from validation.profiles.features import counted_quantiles


def feature(profiles, name: str) -> dict:
    return profiles.features.filter(pl.col("feature") == name).row(0, named=True)


def test_a_ward_in_numbers() -> None:
    tables = ward()
    profiles = profile_night(
        **tables, counts=Counts(pulled=1200, accepted=1188, quarantined=12, eligible=26, skipped=2)
    )
    night = profiles.night.row(0, named=True)
    assert night["quarantined_share"] == pytest.approx(0.01)
    assert (night["lost"], night["events"], night["samples"], night["recordings"]) == (0, 24 * 12 * 4, 24, 12)
    assert night["samples_with_events_share"] == 1.0
    heart_rate = feature(profiles, "heart_rate")
    assert heart_rate["n_events"] == 24 * 12
    assert heart_rate["coverage"] == 1.0
    assert heart_rate["missing_rate"] == 0.0
    assert heart_rate["stale_hours"] == 3.0
    assert heart_rate["unknown_unit_rate"] == pytest.approx(1 / (24 * 12 + 1))
    assert heart_rate["q50"] == pytest.approx(80, abs=3)
    missing = feature(profiles, "temperature")
    assert (missing["n_events"], missing["coverage"], missing["missing_rate"]) == (0, 0.0, 1.0)


def test_the_missing_rate_counts_intervals_without_a_value() -> None:
    tables = ward()
    sparse = tables["events"].filter(
        (pl.col("code") != "heart_rate") | (pl.col("time") > NIGHT - timedelta(hours=12))
    )
    profiles = profile_night(**{**tables, "events": sparse}, cadence={"heart_rate": 12.0})
    assert feature(profiles, "heart_rate")["missing_rate"] == pytest.approx(0.75)


def test_what_was_not_known_yet_is_not_counted() -> None:
    tables = ward()
    late = tables["events"].with_columns(
        pl.lit(NIGHT + timedelta(hours=1)).dt.cast_time_unit("us").alias("available_time")
    )
    profiles = profile_night(**{**tables, "events": late})
    assert feature(profiles, "heart_rate")["coverage"] == 0.0
    assert profiles.wards["with_events"].sum() == 0


def test_small_groups_are_hidden() -> None:
    tables = ward()
    few = tables["events"].filter(pl.col("subject_id") < 9)
    profiles = profile_night(**{**tables, "events": few})
    row = feature(profiles, "heart_rate")
    assert row["n_subjects"] == 9
    assert all(row[name] is None for name in ("mean", "std", "q05", "q25", "q50", "q75", "q95"))
    assert profiles.wards["ward"].to_list() == [SMALL_WARDS, "north", "south"]
    assert profiles.wards["samples"].to_list() == [3, 11, 10]


def test_a_missing_ward_is_named_so() -> None:
    tables = ward()
    nameless = tables["encounters"].with_columns(pl.lit(None, pl.String).alias("ward"))
    assert profile_night(**{**tables, "encounters": nameless}).wards["ward"].to_list() == [NO_WARD]


def test_modalities_by_ward_and_rows_by_source() -> None:
    profiles = profile_night(**ward())
    north = profiles.wards.filter(pl.col("ward") == "north").row(0, named=True)
    assert (north["with_events_share"], north["with_ecg"], north["with_image"]) == (1.0, 6, 0)
    sources = {row["source"]: row for row in profiles.sources.iter_rows(named=True)}
    assert sources["Observation"]["accepted"] == 1152
    assert sources["Observation"]["quarantined"] == 1
    assert sources["DocumentReference"]["accepted"] == 12


def test_an_empty_night_has_a_profile_too() -> None:
    names = ("events", "encounters", "samples", "quarantine", "recordings", "images")
    profiles = profile_night(**{name: empty(name) for name in names})
    assert profiles.night.row(0, named=True)["pulled"] == 0
    assert profiles.wards.height == 0
    assert set(profiles.features["n_events"]) == {0}


def test_two_samples_of_one_patient_are_counted_apart() -> None:
    tables = ward(patients=12)
    earlier = tables["samples"].with_columns(
        pl.col("prediction_time") - timedelta(hours=100), pl.col("lookback_start") - timedelta(hours=100)
    )
    both = pl.concat([tables["samples"], earlier])
    profiles = profile_night(**{**tables, "samples": both})
    assert feature(profiles, "heart_rate")["coverage"] == pytest.approx(0.5)


def test_refused_rows_of_unknown_origin_do_not_break_the_profile() -> None:
    tables = ward()
    odd = table("quarantine", [{"stage": "extract", "reason": "json.unreadable", "whole": True}])
    sources = profile_night(**{**tables, "quarantine": odd}).sources
    unknown = sources.filter(pl.col("source") == "(unknown)")
    assert unknown.select("quarantined", "quarantined_share").rows() == [(1, None)]


def test_rows_outside_the_look_back_do_not_count_as_coverage() -> None:
    tables = ward(patients=12)
    old = table("events", [event(i, "lactate", 2.0, hours_ago=55) for i in range(12)])
    profiles = profile_night(**{**tables, "events": old})
    assert feature(profiles, "lactate")["coverage"] == 0.0


@pytest.mark.parametrize("shards", [2, 5])
def test_the_profile_does_not_depend_on_how_the_night_was_sharded(shards: int) -> None:
    tables = ward(patients=40)
    counts = Counts(pulled=1200, accepted=1188, quarantined=12, eligible=42, skipped=2)
    whole = profile_night(**tables, counts=counts)
    names = ("events", "samples", "recordings", "images")
    parts = [
        profile_shard(
            encounters=tables["encounters"],
            **{name: tables[name].filter(pl.col("subject_id") % shards == number) for name in names},
        )
        for number in range(shards)
    ]
    merged = merge_profiles(
        parts,
        encounters=tables["encounters"].height,
        refusals=count_refusals(tables["quarantine"]),
        counts=counts,
    )
    for name, frame in whole.tables().items():
        assert_frame_equal(frame, merged.tables()[name], check_exact=False, rel_tol=1e-12)


def test_quantiles_are_those_of_the_values() -> None:
    rng = np.random.default_rng(3)
    values = np.round(rng.lognormal(1, 0.7, 999), 1)
    counts = pl.DataFrame({"feature": "a", "value": values}).group_by("feature", "value").len("n")
    found = counted_quantiles(counts.with_columns(pl.col("n").cast(pl.Int64)), {"q05": 0.05, "q75": 0.75})
    assert found.row(0)[1:] == pytest.approx(tuple(np.quantile(values, [0.05, 0.75])))
