"""Who is asked about on a night: open stays, each of them a sample or skipped with a reason."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelling.cohorts.night import night_samples, replay_samples
from modelling.cohorts.tasks import get_task
from modelling.cohorts.training import training_samples
from modelling.cohorts.visibility import visible
from modelling.errors import CohortError
from validation.contracts import empty
from validation.contracts.store import check_table
from validation.reasons import Reason

NIGHT = datetime(2150, 1, 10, 6, tzinfo=UTC)
TASK = get_task("in-hospital-mortality")


def hours(n: float) -> datetime:
    return NIGHT + timedelta(hours=n)


def stay(name: str, subject: int, start: float, end: float | None, **fields: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(empty("encounters").columns)
    row |= {
        "encounter_id": name,
        "subject_id": subject,
        "patient_ref": f"Patient/{subject}",
        "encounter_ref": f"Encounter/{name}",
        "kind": "icu",
        "status": "in-progress",
        "start": hours(start),
        "end": None if end is None else hours(end),
        "moves": [],
        "birth_date": date(2080, 1, 1),
        "sex": "female",
        "source_file": "Encounter.ndjson",
        "source_line": 1,
    }
    return row | fields


def ward(*stays: dict[str, Any]) -> pl.DataFrame:
    return check_table(pl.DataFrame(stays, schema=dict(empty("encounters").schema)), "encounters")


def test_open_stays_are_samples_or_skipped_with_a_reason() -> None:
    encounters = ward(
        stay("long", 1, -30, None),
        stay("ends-tomorrow", 2, -26, 20),
        stay("fresh", 3, -3, None),
        stay("ended-now", 4, -50, 0),
        stay("ageless", 5, -40, 1, birth_date=None),
        stay("child", 6, -40, 50, birth_date=date(2140, 1, 1)),
        stay("ward-patient", 7, -60, 50, kind="hospital"),
        stay("mistake", 8, -60, 50, status="entered-in-error"),
        stay("tomorrow", 9, 5, 50),
    )
    samples, skipped = night_samples(encounters, task=TASK, prediction_time=NIGHT, partition="2150-01-09")
    check_table(samples, "samples")
    check_table(skipped, "skipped")
    assert samples["encounter_id"].to_list() == ["long", "ends-tomorrow"]
    assert dict(skipped.select("encounter_id", "reason").iter_rows()) == {
        "fresh": Reason.SKIP_STAY_TOO_SHORT,
        "ageless": Reason.SKIP_AGE_UNKNOWN,
        "child": Reason.SKIP_TOO_YOUNG,
    }
    assert samples["lookback_start"].unique().to_list() == [hours(-48)]


def test_a_future_end_changes_nothing() -> None:
    answers = [
        night_samples(ward(stay("a", 1, -30, end)), task=TASK, prediction_time=NIGHT, partition="x")
        for end in (None, 0.1, 500)
    ]
    for samples, skipped in answers[1:]:
        assert samples.equals(answers[0][0])
        assert skipped.equals(answers[0][1])


def test_of_two_open_stays_the_later_is_asked_about() -> None:
    encounters = ward(stay("first", 1, -90, None), stay("second", 1, -30, None), stay("fresh", 1, -2, None))
    samples, skipped = night_samples(encounters, task=TASK, prediction_time=NIGHT, partition="x")
    assert samples["encounter_id"].to_list() == ["second"]
    assert dict(skipped.select("encounter_id", "reason").iter_rows()) == {
        "first": Reason.SKIP_OTHER_STAY_SCORED,
        "fresh": Reason.SKIP_STAY_TOO_SHORT,
    }


def test_a_prediction_time_without_zone_is_refused() -> None:
    with pytest.raises(CohortError, match="night 2150-01-09: the prediction time needs a time zone"):
        night_samples(ward(), task=TASK, prediction_time=datetime(2150, 1, 10, 6), partition="2150-01-09")  # noqa: DTZ001


def test_a_replay_asks_about_every_stay_at_its_own_time() -> None:
    encounters = ward(stay("exactly", 1, -48, 0), stay("short", 2, -30, 17.9), stay("open", 3, -30, None))
    samples, skipped = replay_samples(encounters, task=TASK, after=timedelta(hours=48))
    assert samples["encounter_id"].to_list() == ["exactly", "open"]
    assert samples["prediction_time"].to_list() == [hours(0), hours(18)]
    assert skipped["reason"].to_list() == [Reason.SKIP_STAY_TOO_SHORT]


STAYS = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.floats(-200, 10),
        st.one_of(st.none(), st.floats(0.1, 300)),
        st.sampled_from(["icu", "hospital"]),
        st.sampled_from([None, date(2080, 1, 1), date(2145, 6, 1)]),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(STAYS)
def test_eligible_is_samples_and_skipped(
    stays: list[tuple[int, float, float | None, str, date | None]],
) -> None:
    encounters = ward(
        *[
            stay(
                f"e{n}",
                subject,
                start,
                None if length is None else start + length,
                kind=kind,
                birth_date=birth,
            )
            for n, (subject, start, length, kind, birth) in enumerate(stays)
        ]
    )
    samples, skipped = night_samples(encounters, task=TASK, prediction_time=NIGHT, partition="x")
    opened = encounters.filter(
        (pl.col("kind") == "icu")
        & (pl.col("start") <= NIGHT)
        & (pl.col("end").is_null() | (pl.col("end") > NIGHT))
    )
    asked = [*samples["encounter_id"], *skipped["encounter_id"]]
    assert sorted(asked) == sorted(opened["encounter_id"])
    assert samples["subject_id"].is_unique().all()
    replayed = replay_samples(encounters, task=TASK, after=timedelta(hours=48))
    assert sum(map(len, replayed)) == encounters.filter(pl.col("kind") == "icu").height


def outcome(name: str, subject: int, *, died: bool | None, death: float | None = None) -> dict[str, Any]:
    return {
        "encounter_id": name,
        "subject_id": subject,
        "discharge_time": None,
        "death_time": None if death is None else hours(death),
        "died_in_hospital": died,
        "icu_days": None,
    }


def outcomes(*rows: dict[str, Any]) -> pl.DataFrame:
    return check_table(pl.DataFrame(rows, schema=dict(empty("outcomes").schema)), "outcomes")


def test_labels_come_from_the_stay_or_its_hospital_encounter() -> None:
    encounters = ward(
        stay("a", 1, 0, 60, part_of="h"), stay("b", 2, 0, 60), stay("c", 3, 0, 40), stay("dead", 4, 0, 60)
    )
    known = outcomes(
        outcome("h", 1, died=True, death=55),
        outcome("b", 2, died=False),
        outcome("dead", 4, died=True, death=47),
    )
    cohort = training_samples(encounters, known, task=TASK, mode="fixed", at_hours=48)
    assert dict(cohort.samples.select("encounter_id", "boolean_value").iter_rows()) == {"a": True, "b": False}
    assert cohort.attrition["stays"].to_list() == [4, 4, 4, 3, 3, 3, 2, 2]


def test_landmarks_are_the_nights_of_the_stay() -> None:
    encounters = ward(stay("a", 1, 0, 60))
    cohort = training_samples(
        encounters,
        outcomes(outcome("a", 1, died=False)),
        task=TASK,
        mode="landmark",
        clock=time(7),
        zone="UTC",
    )
    assert cohort.samples["prediction_time"].to_list() == [hours(25), hours(49)]


def event(subject: int, at: float, known: float, value: float, **fields: Any) -> dict[str, Any]:
    return {
        "subject_id": subject,
        "time": hours(at),
        "code": "lactate",
        "numeric_value": value,
        "text_value": None,
        "available_time": hours(known),
        "encounter_id": None,
        "source_ref": f"Observation/{subject}-{at:g}",
        "derived": False,
    } | fields


def test_only_what_was_known_is_visible() -> None:
    encounters = ward(stay("a", 1, -60, None), stay("b", 2, -60, None))
    samples, _ = night_samples(encounters, task=TASK, prediction_time=NIGHT, partition="x")
    events = pl.DataFrame(
        [
            event(1, -49, -48.5, 1.0),
            event(1, -10, -9, 2.0),
            event(1, -1, 0, 3.0),
            event(1, -1, 0.5, 4.0),
            event(1, 1, 1, 5.0),
            event(2, -5, -4, 6.0),
            event(2, -5, -3, 7.0),
            event(2, -5, 3, 8.0),
        ],
        schema=dict(empty("events").schema),
    )
    seen = visible(events, samples)
    assert seen.sort("row", "hours", descending=[False, True])["numeric_value"].to_list() == [2.0, 3.0, 7.0]
    assert seen.sort("row", "hours", descending=[False, True])["hours"].to_list() == [10.0, 1.0, 5.0]
    further = visible(events, samples, extra_lookback_hours=72)
    assert 1.0 in further["numeric_value"]
