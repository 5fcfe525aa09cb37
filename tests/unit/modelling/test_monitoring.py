"""Monitoring: outcomes meet the scores written before, windows measure them, rules raise alarms."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from modelling.cohorts.tasks import get_task
from modelling.errors import MonitoringError
from modelling.monitoring.alarms import AlarmRules, find_alarms
from modelling.monitoring.outcomes import label_scores
from modelling.monitoring.performance import Window, measure_windows
from validation.contracts import empty

START = datetime(2026, 1, 1, 4, tzinfo=UTC)
TASK = get_task("in-hospital-mortality")
MONTH = timedelta(days=30)


def scored(probability: np.ndarray, at: datetime, *, prefix: str, role: str = "champion") -> pl.DataFrame:
    n = len(probability)
    return pl.DataFrame(
        {
            "score_key": [f"{prefix}{k}" for k in range(n)],
            "subject_id": range(n),
            "encounter_id": [f"{prefix}{k}" for k in range(n)],
            "patient_ref": ["Patient/x"] * n,
            "encounter_ref": ["Encounter/x"] * n,
            "prediction_time": [at] * n,
            "task": [TASK.name] * n,
            "model_name": ["m"] * n,
            "model_version": ["1"] * n,
            "model_digest": ["d" * 64] * n,
            "probability": probability,
            "value": [None] * n,
            "lower": [None] * n,
            "upper": [None] * n,
            "risk_level": ["high" if p > 0.5 else "low" for p in probability],
            "horizon_hours": [0.0] * n,
            "modalities_present": [["ehr"] if k % 2 else ["ehr", "ecg"] for k in range(n)],
            "modalities_missing": [[]] * n,
            "contributions": [[]] * n,
            "top_events": [[]] * n,
            "basis": [[]] * n,
            "computed_on": ["cpu"] * n,
        },
        schema=empty("scores").schema,
    ).with_columns(role=pl.lit(role))


def census(died: np.ndarray, at: datetime, *, prefix: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Stays and outcomes; NaN has not been discharged."""
    n = len(died)
    ended = [None if np.isnan(d) else at + timedelta(days=3) for d in died]
    encounters = pl.DataFrame(
        {
            "encounter_id": [f"{prefix}{k}" for k in range(n)], "subject_id": range(n),
            "patient_ref": ["Patient/x"] * n, "encounter_ref": ["Encounter/x"] * n, "kind": ["icu"] * n,
            "encounter_class": [None] * n, "status": ["finished"] * n, "part_of": [None] * n,
            "start": [at - timedelta(days=2)] * n, "end": ended, "ward": ["A" if k % 3 else "B" for k in range(n)],
            "moves": [[]] * n, "birth_date": [date(1950, 1, 1)] * n,
            "sex": ["male" if k % 2 else "female" for k in range(n)],
            "admission_source": [None] * n, "source_file": ["x"] * n, "source_line": [1] * n,
        },
        schema=empty("encounters").schema,
    )  # fmt: skip
    outcomes = pl.DataFrame(
        {
            "encounter_id": [f"{prefix}{k}" for k in range(n)],
            "subject_id": range(n),
            "discharge_time": ended,
            "death_time": [end if d == 1 else None for end, d in zip(ended, died, strict=True)],
            "died_in_hospital": [None if np.isnan(d) else bool(d) for d in died],
            "icu_days": [None] * n,
        },
        schema=empty("outcomes").schema,
    )
    return encounters, outcomes


def ward(n: int, seed: int, *, shift: float = 0.0, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Risks that the model says, and deaths drawn from the true risk."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-1, 1.5, n)
    died = (rng.random(n) < 1 / (1 + np.exp(-(z + shift)))).astype(float)
    return 1 / (1 + np.exp(-(z + noise * rng.normal(0, 1, n)))), died


def labelled(*months: tuple[np.ndarray, np.ndarray]) -> pl.DataFrame:
    frames, encounters, outcomes = [], [], []
    for number, (probability, died) in enumerate(months):
        at = START + number * MONTH
        frames.append(scored(probability, at, prefix=f"m{number}-"))
        tables = census(died, at, prefix=f"m{number}-")
        encounters.append(tables[0])
        outcomes.append(tables[1])
    return label_scores(pl.concat(frames), pl.concat(encounters), pl.concat(outcomes), task=TASK)


def windows(*months: tuple[np.ndarray, np.ndarray]) -> list[Window]:
    return measure_windows(labelled(*months), length=MONTH, resamples=150)


def test_outcomes_meet_their_scores_and_open_stays_wait() -> None:
    probability, died = ward(60, 1)
    died[:10] = np.nan
    scores = scored(probability, START, prefix="a")
    joined = label_scores(
        pl.concat([scores, scores, scores.with_columns(role=pl.lit("shadow"))]),
        *census(died, START, prefix="a"),
        task=TASK,
    )
    assert joined.filter(pl.col("role") == "champion").height == 60  # a score in two folders counts once
    assert joined.filter(pl.col("role") == "shadow").height == 60
    champion = joined.filter(pl.col("role") == "champion")
    assert champion["label"].null_count() == 10
    assert champion["label"].drop_nulls().cast(pl.Float64).to_list() == died[10:].tolist()
    assert set(champion["modalities"]) == {"ehr", "ecg+ehr"} and set(champion["unit"]) == {"A", "B"}
    with pytest.raises(MonitoringError, match="regression"):
        label_scores(scores, *census(died, START, prefix="a"), task=get_task("icu-length-of-stay"))


def test_a_death_before_the_prediction_is_no_outcome_of_it() -> None:
    probability, died = ward(30, 2)
    encounters, outcomes = census(died, START, prefix="a")
    early = outcomes.with_columns(
        death_time=pl.lit(START - timedelta(hours=1)).cast(pl.Datetime("us", "UTC"))
    )
    joined = label_scores(scored(probability, START, prefix="a"), encounters, early, task=TASK)
    assert joined["label"].null_count() == 30


def test_windows_measure_what_was_known() -> None:
    first, second = ward(300, 3), ward(300, 4)
    found = windows(first, second)
    assert [item.scored for item in found] == [300, 300] and found[0].start < found[1].start
    for item, (probability, died) in zip(found, (first, second), strict=True):
        assert item.metrics["auroc"]["value"] == pytest.approx(roc_auc_score(died, probability))
        assert item.alert_rate == pytest.approx((probability > 0.5).mean(), abs=1e-6)
        assert item.events == died.sum()
        assert sum(row["known"] for row in item.subgroups if row["subgroup"] == "sex") == 300
    assert found[0].stability is None and found[1].stability < 0.1


def test_small_windows_and_groups_show_their_size_alone() -> None:
    probability, died = ward(8, 5)
    (found,) = windows((probability, died))
    assert found.metrics is None and found.events is None and found.subgroups == []
    probability, died = ward(26, 7)
    (found,) = windows((probability, died))
    few = [row for row in found.subgroups if row["known"] < 10]
    assert few and all(row["events"] is None and row["auroc"] is None for row in few)


def rules_of(alarms: list) -> set[str]:
    return {alarm.rule for alarm in alarms}


def test_a_steady_model_raises_no_alarm() -> None:
    found = windows(*(ward(600, seed) for seed in range(3)))
    held_out = found[0].metrics["auroc"]["value"]
    assert find_alarms(found, reference={"d" * 64: held_out}, rules=AlarmRules()) == []


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        ({"noise": 4.0}, "auroc_fall"),
        ({"shift": 1.5}, "miscalibrated"),
        ({"shift": -2.0}, "miscalibrated"),
    ],
)
def test_outcomes_that_turn_against_the_model_raise_an_alarm(later: dict, expected: str) -> None:
    found = windows(ward(600, 1), ward(600, 2, **later))
    alarms = find_alarms(found, reference={"d" * 64: 0.84}, rules=AlarmRules())
    assert expected in rules_of(alarms) and {alarm.start for alarm in alarms} == {found[1].start}
    assert find_alarms(found, reference={}, rules=AlarmRules(fewest_events=400)) == [
        alarm for alarm in alarms if alarm.rule in {"score_drift", "alert_rate"}
    ]


def test_a_change_of_the_patients_raises_an_alarm_before_any_outcome() -> None:
    probability, _ = ward(600, 1)
    sicker = 1 / (1 + np.exp(-(np.log(probability / (1 - probability)) + 2)))
    found = windows((probability, np.full(600, np.nan)), (sicker, np.full(600, np.nan)))
    assert found[1].known == 0
    assert rules_of(find_alarms(found, reference={}, rules=AlarmRules())) == {"score_drift", "alert_rate"}


def test_one_group_alone_can_raise_an_alarm() -> None:
    probability, died = ward(1200, 1)
    odd = np.arange(1200) % 2 == 1
    rng = np.random.default_rng(0)
    broken = np.where(odd, rng.random(1200), probability)
    found = windows((broken, died))
    alarms = find_alarms(found, reference={"d" * 64: 0.84}, rules=AlarmRules(auroc_fall=0.5))
    assert any(alarm.rule == "subgroup_fall" and "sex male" in alarm.text for alarm in alarms)
    assert not any("sex female" in alarm.text for alarm in alarms)


def test_shadows_are_measured_and_raise_no_alarm() -> None:
    probability, died = ward(400, 1, noise=6.0)
    joined = labelled((probability, died)).with_columns(role=pl.lit("shadow"))
    found = measure_windows(joined, length=MONTH, resamples=100)
    assert found[0].role == "shadow" and found[0].metrics is not None
    assert find_alarms(found, reference={"d" * 64: 0.99}, rules=AlarmRules()) == []
