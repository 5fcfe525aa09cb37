"""Severity scores of patients whose points are worked out by hand from the published charts."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from modelling.baselines.clinical_scores import CLINICAL_SCORES, mews, news2, sofa_like
from modelling.baselines.quantities import QUANTITIES


def patient(**values: float | list[tuple[float, float]]) -> pl.DataFrame:
    """One patient; a number is charted an hour before the prediction, a list gives (hours before, value)."""
    rows = [
        (0, QUANTITIES[name][0], hours, value)
        for name, charted in values.items()
        for hours, value in (charted if isinstance(charted, list) else [(1.0, charted)])
    ]
    schema = {"row": pl.UInt32, "code": pl.String, "hours_before": pl.Float32, "value": pl.Float32}
    return pl.DataFrame(rows, schema=schema, orient="row").sort(
        "row", "code", "hours_before", descending=[False, False, True], maintain_order=True
    )


WELL = {
    "respiratory_rate": 16, "oxygen_saturation": 97, "inspired_oxygen": 0.21, "systolic_pressure": 120,
    "heart_rate": 70, "glasgow_coma_scale": 15, "temperature": 37.0,
}  # fmt: skip


def test_a_well_patient_scores_nothing_and_lacks_nothing() -> None:
    score = news2(patient(**WELL), rows=1)
    assert score.total.tolist() == [0]
    assert score.missing() == [[]]
    assert score.available.tolist() == [7]


@pytest.mark.parametrize(
    ("name", "value", "points"),
    [
        ("respiratory_rate", 8, 3), ("respiratory_rate", 9, 1), ("respiratory_rate", 11, 1),
        ("respiratory_rate", 12, 0), ("respiratory_rate", 20, 0), ("respiratory_rate", 21, 2),
        ("respiratory_rate", 24, 2), ("respiratory_rate", 25, 3),
        ("oxygen_saturation", 91, 3), ("oxygen_saturation", 92, 2), ("oxygen_saturation", 93, 2),
        ("oxygen_saturation", 94, 1), ("oxygen_saturation", 95, 1), ("oxygen_saturation", 96, 0),
        ("inspired_oxygen", 0.3, 2),
        ("systolic_pressure", 90, 3), ("systolic_pressure", 91, 2), ("systolic_pressure", 100, 2),
        ("systolic_pressure", 101, 1), ("systolic_pressure", 110, 1), ("systolic_pressure", 111, 0),
        ("systolic_pressure", 219, 0), ("systolic_pressure", 220, 3),
        ("heart_rate", 40, 3), ("heart_rate", 41, 1), ("heart_rate", 50, 1), ("heart_rate", 51, 0),
        ("heart_rate", 90, 0), ("heart_rate", 91, 1), ("heart_rate", 110, 1), ("heart_rate", 111, 2),
        ("heart_rate", 130, 2), ("heart_rate", 131, 3),
        ("glasgow_coma_scale", 14, 3),
        ("temperature", 35.0, 3), ("temperature", 35.1, 1), ("temperature", 36.0, 1),
        ("temperature", 36.1, 0), ("temperature", 38.0, 0), ("temperature", 38.1, 1),
        ("temperature", 39.0, 1),
        ("temperature", 39.1, 2),
    ],
)  # fmt: skip
def test_news2_follows_chart_1(name: str, value: float, points: int) -> None:
    assert news2(patient(**(WELL | {name: value})), rows=1).total.tolist() == [points]


@pytest.mark.parametrize(
    ("saturation", "oxygen", "points"),
    [(83, 0.21, 3), (84, 0.21, 2), (86, 0.21, 1), (88, 0.21, 0), (97, 0.21, 0), (92, 0.4, 0), (93, 0.4, 1),
     (95, 0.4, 2), (97, 0.4, 3)],
)  # fmt: skip
def test_news2_scale_2_is_only_used_when_asked_for(saturation: float, oxygen: float, points: int) -> None:
    tokens = patient(**(WELL | {"oxygen_saturation": saturation, "inspired_oxygen": oxygen}))
    score = news2(tokens, rows=1, hypercapnic=np.array([True]))
    assert score.parts["oxygen saturation"].tolist() == [points]
    plain = news2(tokens, rows=1).parts["oxygen saturation"][0]
    assert plain == (3 if saturation < 92 else 2 if saturation < 94 else 1 if saturation < 96 else 0)


def test_missing_parts_are_named_and_count_nothing() -> None:
    score = news2(patient(heart_rate=140, glasgow_coma_scale=13), rows=2)
    assert score.total.tolist() == [6, 0]
    assert score.missing()[0] == [
        "respiratory rate", "oxygen saturation", "supplemental oxygen", "systolic pressure", "temperature",
    ]  # fmt: skip
    assert len(score.missing()[1]) == 7


def test_the_latest_value_counts_and_nothing_older_than_a_day() -> None:
    tokens = patient(heart_rate=[(5.0, 140.0), (0.5, 80.0)], respiratory_rate=[(25.0, 40.0)])
    score = news2(tokens, rows=1)
    assert score.parts["pulse"].tolist() == [0]
    assert "respiratory rate" in score.missing()[0]


@pytest.mark.parametrize(
    ("name", "value", "points"),
    [
        ("systolic_pressure", 70, 3), ("systolic_pressure", 80, 2), ("systolic_pressure", 100, 1),
        ("systolic_pressure", 199, 0), ("systolic_pressure", 200, 2),
        ("heart_rate", 39, 2), ("heart_rate", 50, 1), ("heart_rate", 100, 0), ("heart_rate", 110, 1),
        ("heart_rate", 129, 2), ("heart_rate", 130, 3),
        ("respiratory_rate", 8, 2), ("respiratory_rate", 14, 0), ("respiratory_rate", 20, 1),
        ("respiratory_rate", 29, 2), ("respiratory_rate", 30, 3),
        ("temperature", 34.9, 2), ("temperature", 35.0, 0), ("temperature", 38.5, 2),
        ("glasgow_coma_scale", 13, 1), ("glasgow_coma_scale", 8, 2), ("glasgow_coma_scale", 3, 3),
    ],
)  # fmt: skip
def test_mews_follows_its_chart(name: str, value: float, points: int) -> None:
    calm = {"respiratory_rate": 12, "systolic_pressure": 120, "heart_rate": 70, "glasgow_coma_scale": 15,
            "temperature": 37.0}  # fmt: skip
    assert mews(patient(**calm), rows=1).total.tolist() == [0]
    assert mews(patient(**(calm | {name: value})), rows=1).total.tolist() == [points]


def test_sofa_takes_the_worst_of_the_day() -> None:
    tokens = patient(
        arterial_oxygen=[(10.0, 60.0), (2.0, 200.0)], inspired_oxygen=[(11.0, 0.5), (2.0, 0.5)],
        ventilated=[(10.0, 1.0)], platelets=[(20.0, 45.0), (3.0, 160.0)], bilirubin=2.5,
        mean_pressure=[(4.0, 65.0), (1.0, 90.0)], glasgow_coma_scale=[(9.0, 7.0), (1.0, 15.0)],
        creatinine=[(9.0, 5.1), (1.0, 1.0)],
    )  # fmt: skip
    score = sofa_like(tokens, rows=1)
    assert {name: points[0] for name, points in score.parts.items()} == {
        "respiration": 3, "coagulation": 3, "liver": 2, "cardiovascular": 1, "nervous system": 3, "kidney": 4,
    }  # fmt: skip
    assert score.total.tolist() == [16]


def test_sofa_lungs_need_ventilation_for_three_points() -> None:
    tokens = patient(arterial_oxygen=[(10.0, 60.0)], inspired_oxygen=[(11.0, 1.0)])
    assert sofa_like(tokens, rows=1).parts["respiration"].tolist() == [2]


def test_sofa_urine_counts_only_when_charted_long_enough() -> None:
    hourly = [(float(h), 10.0) for h in range(23, -1, -1)]
    assert sofa_like(patient(urine_output=hourly, creatinine=1.0), rows=1).parts["kidney"].tolist() == [3]
    assert sofa_like(patient(urine_output=hourly[-3:], creatinine=1.0), rows=1).parts["kidney"].tolist() == [
        0
    ]


@pytest.mark.parametrize("name", sorted(CLINICAL_SCORES))
def test_nobody_charted_is_nobody_scored(name: str) -> None:
    score = CLINICAL_SCORES[name](patient(), rows=3)
    assert score.total.tolist() == [0, 0, 0]
    assert score.available.tolist() == [0, 0, 0]
