from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from ward_tables import LIMITS, NIGHT, event, table, ward

from validation import rules as rules_module
from validation.contracts import empty
from validation.contracts.store import check_table
from validation.rules import EventRules, judge_events


def judge(*rows: dict, **kwargs):
    return judge_events(table("events", list(rows)), LIMITS, **kwargs)


def test_a_clean_ward_passes_untouched() -> None:
    events = ward()["events"]
    judgement = judge_events(events, LIMITS)
    assert judgement.counts == {}
    assert_frame_equal(judgement.accepted, events)


def test_no_events_give_empty_tables_of_the_contracts() -> None:
    judgement = judge_events(empty("events"), LIMITS)
    assert judgement.accepted.height == 0
    check_table(judgement.quarantine, "quarantine")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (event(1, "heart_rate", 900.0), "value.out_of_range"),
        (event(1, "heart_rate", -0.5), "value.out_of_range"),
        (event(1, "heart_rate", float("nan")), "value.invalid"),
        (event(1, "heart_rate", float("inf")), "value.invalid"),
        (event(1, "heart_rate", None), "value.missing"),
        (event(1, "lactate_in_ascites", 2.0), "code.unknown"),
        (event(1, "heart_rate", 80.0, available_time=NIGHT - timedelta(hours=3)), "time.in_future"),
    ],
)
def test_a_row_that_cannot_be_right_is_refused_with_its_reason(row: dict, reason: str) -> None:
    good = event(1, "creatinine", 1.0)
    judgement = judge(row, good)
    assert judgement.counts == {reason: 1}
    assert judgement.accepted["code"].to_list() == ["creatinine"]
    assert judgement.quarantine["source_ref"].to_list() == [row["source_ref"]]
    assert judgement.quarantine["feature"].to_list() == [row["code"]]
    check_table(judgement.quarantine, "quarantine")


def test_the_limits_themselves_are_inside_and_a_missing_limit_refuses_nothing() -> None:
    assert judge(event(1, "heart_rate", 0.0), event(2, "heart_rate", 350.0)).counts == {}
    limits = pl.DataFrame(
        {"code": ["heart_rate"], "low": [None], "high": [None]},
        schema_overrides={"low": pl.Float64, "high": pl.Float64},
    )
    assert judge_events(table("events", [event(1, "heart_rate", 1e9)]), limits).counts == {}


def test_charting_up_to_an_hour_ahead_is_accepted() -> None:
    row = event(1, "heart_rate", 80.0)
    for minutes, refused in ((59, 0), (61, 1)):
        ahead = row | {"available_time": row["time"] - timedelta(minutes=minutes)}
        assert judge(ahead).quarantine.height == refused


def test_a_categorical_level_without_number_is_accepted() -> None:
    assert judge(event(1, "gcs_eye", None, text_value="spontaneously")).counts == {}


def test_a_repeated_row_is_refused_once_and_the_first_is_kept() -> None:
    first = event(1, "heart_rate", 80.0, source_ref="Observation/first")
    again = first | {"source_ref": "Observation/again"}
    other = first | {"numeric_value": 81.0, "source_ref": "Observation/other device"}
    judgement = judge(first, again, other)
    assert judgement.counts == {"value.duplicate": 1}
    assert judgement.quarantine["source_ref"].to_list() == ["Observation/again"]


def test_times_far_outside_the_stay_are_refused_where_encounters_are_given() -> None:
    encounters = ward()["encounters"]
    inside, before = event(1, "heart_rate", 80.0, hours_ago=80), event(1, "heart_rate", 80.0, hours_ago=85)
    assert judge(inside, before).counts == {}
    judgement = judge(inside, before, encounters=encounters)
    assert judgement.counts == {"time.outside_encounter": 1}
    no_stay = event(1, "heart_rate", 80.0, hours_ago=900, encounter_id=None)
    assert judge(no_stay, encounters=encounters).counts == {}


class TestPhysiology:
    def test_systolic_at_or_below_diastolic_refuses_both(self) -> None:
        judgement = judge(
            event(1, "systolic_bp", 62.0), event(1, "diastolic_bp", 101.0), event(2, "systolic_bp", 62.0)
        )
        assert judgement.counts == {"physiology.contradiction": 2}
        assert judgement.accepted["subject_id"].to_list() == [2]

    def test_another_minute_or_another_patient_is_no_contradiction(self) -> None:
        rows = (
            event(1, "systolic_bp", 62.0),
            event(1, "diastolic_bp", 101.0, hours_ago=2),
            event(2, "diastolic_bp", 101.0),
        )
        assert judge(*rows).counts == {}

    def test_two_cuffs_at_one_minute_may_differ(self) -> None:
        rows = (
            event(1, "systolic_bp", 120.0),
            event(1, "systolic_bp", 88.0),
            event(1, "diastolic_bp", 90.0),
            event(1, "diastolic_bp", 60.0),
        )
        assert judge(*rows).counts == {}

    def test_a_refused_pressure_is_no_witness(self) -> None:
        assert judge(event(1, "systolic_bp", 120.0), event(1, "diastolic_bp", 700.0)).counts == {
            "value.out_of_range": 1
        }

    def test_mean_pressure_has_five_millimetres_of_tolerance(self) -> None:
        assert judge(event(1, "systolic_bp", 120.0), event(1, "mean_bp", 125.0)).counts == {}
        assert judge(event(1, "systolic_bp", 120.0), event(1, "mean_bp", 126.0)).quarantine.height == 2

    def test_a_pressure_of_zero_over_zero_does_not_take_the_mean_with_it(self) -> None:
        rows = (event(1, "systolic_bp", 0.0), event(1, "diastolic_bp", 0.0), event(1, "mean_bp", 77.0))
        assert judge(*rows).accepted["code"].to_list() == ["mean_bp"]

    def test_a_gcs_total_that_is_not_the_sum_is_refused_and_its_parts_kept(self) -> None:
        parts = [event(1, "gcs_eye", 4.0), event(1, "gcs_verbal", 5.0), event(1, "gcs_motor", 6.0)]
        assert judge(*parts, event(1, "gcs_total", 15.0)).counts == {}
        judgement = judge(*parts, event(1, "gcs_total", 9.0))
        assert judgement.counts == {"physiology.contradiction": 1}
        assert judgement.quarantine["feature"].to_list() == ["gcs_total"]

    def test_a_gcs_total_with_a_missing_part_is_left_alone(self) -> None:
        assert (
            judge(event(1, "gcs_eye", 4.0), event(1, "gcs_motor", 6.0), event(1, "gcs_total", 3.0)).counts
            == {}
        )

    def test_it_can_be_switched_off(self) -> None:
        rows = (event(1, "systolic_bp", 62.0), event(1, "diastolic_bp", 101.0))
        assert judge(*rows, rules=EventRules(check_physiology=False)).counts == {}


rows = st.builds(
    event,
    subject=st.integers(1, 3),
    code=st.sampled_from(["heart_rate", "systolic_bp", "diastolic_bp", "mean_bp", "nonsense"]),
    value=st.sampled_from([None, float("nan"), 40.0, 70.0, 120.0, 9000.0]),
    hours_ago=st.sampled_from([1.0, 2.0]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(rows, max_size=30), st.randoms(use_true_random=False))
def test_the_verdict_does_not_depend_on_row_order_nor_on_pieces(made: list[dict], random) -> None:
    """Sorted and shuffled tables, whole or cut, take different paths to the same counts."""
    made = [row | {"source_ref": f"Observation/{n}"} for n, row in enumerate(made)]
    shuffled = random.sample(made, len(made))
    events = table("events", shuffled)
    if not made:
        return
    ordered = events.sort("subject_id", "time", "code")
    whole = judge_events(ordered, LIMITS)
    former, rules_module.PIECE_ROWS = rules_module.PIECE_ROWS, 3
    try:
        cut = judge_events(ordered, LIMITS)
    finally:
        rules_module.PIECE_ROWS = former
    assert judge_events(events, LIMITS).counts == whole.counts == cut.counts
    assert_frame_equal(whole.accepted, cut.accepted)
    assert whole.accepted.height + whole.quarantine.height == len(made)


def test_the_quarantine_holds_no_value() -> None:
    marked = event(1, "heart_rate", 98765.4321, text_value="Marked Patient")
    text = judge(marked).quarantine.write_json()
    assert "98765" not in text
    assert "Marked" not in text
