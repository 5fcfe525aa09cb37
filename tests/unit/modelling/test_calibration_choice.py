"""Calibration is chosen by validation, intervals cover, thresholds follow the decision curve."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelling.evaluation.decision import decision_curve
from modelling.training.calibrate import Calibration, fit_calibration, risk_level, risk_thresholds
from modelling.training.intervals import (
    ProbabilityInterval,
    ValueInterval,
    fit_probability_interval,
    fit_value_interval,
    interval_from_dict,
)


def drawn(n: int, seed: int, bend: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and labels; ``bend`` distorts the logits by more than scale and shift."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-1, 1.5, n)
    labels = (rng.random(n) < 1 / (1 + np.exp(-truth))).astype(float)
    return (np.sign(truth) * truth**2 if bend else truth), labels


def log_loss(calibration: Calibration, logits: np.ndarray, labels: np.ndarray) -> float:
    p = np.clip(calibration.probability(logits), 1e-9, 1 - 1e-9)
    return float(-np.mean(labels * np.log(p) + (1 - labels) * np.log(1 - p)))


def test_the_richest_map_is_taken_only_where_it_earns_its_parameters() -> None:
    assert fit_calibration(*drawn(8000, 1, bend=True)).method == "isotonic"
    assert fit_calibration(*drawn(8000, 1)).method == "platt"
    assert fit_calibration(*drawn(300, 1, bend=True)).method == "platt"
    assert fit_calibration(*drawn(80, 1, bend=True)).method == "temperature"
    chosen = fit_calibration(*drawn(8000, 1, bend=True))
    logits, labels = drawn(8000, 2, bend=True)
    assert log_loss(chosen, logits, labels) < log_loss(Calibration(temperature=2.0), logits, labels) - 0.005


def test_an_isotonic_calibration_survives_json_and_never_promises_certainty() -> None:
    chosen = fit_calibration(*drawn(8000, 1, bend=True))
    again = Calibration(**json.loads(json.dumps(chosen.to_dict())))
    z = np.linspace(-40, 40, 999)
    assert np.array_equal(again.probability(z), chosen.probability(z))
    assert np.all(np.diff(chosen.probability(z)) >= 0)
    assert chosen.probability(z).min() > 0 and chosen.probability(z).max() < 1
    assert Calibration(temperature=2.0).to_dict() == {"temperature": 2.0, "shift": 0.0}


def test_venn_abers_bounds_hold_the_share_of_events_in_every_range() -> None:
    def tuned(n: int) -> ProbabilityInterval | None:
        logits, labels = drawn(n, 3)
        return fit_probability_interval(Calibration().probability(logits), labels)

    interval = tuned(3000)
    assert isinstance(interval, ProbabilityInterval)
    logits, labels = drawn(20000, 4)
    p = Calibration().probability(logits)
    low, high = interval.bounds(p)
    assert np.all(low <= p) and np.all(p <= high) and np.all(low >= 0) and np.all(high <= 1)
    for part in np.array_split(np.argsort(logits), 10):
        assert low[part].mean() - 0.02 <= labels[part].mean() <= high[part].mean() + 0.02
    small = tuned(60)
    wide, narrow = (np.subtract(*x.bounds(p)[::-1]).mean() for x in (small, interval))
    assert wide > 2 * narrow > 0  # fewer patients, less certainty
    assert tuned(20) is None
    assert fit_probability_interval(np.zeros(100), np.zeros(100)) is None


def test_a_value_interval_covers_what_it_says() -> None:
    rng = np.random.default_rng(5)
    predicted = rng.gamma(2.0, 3.0, 4000)
    observed = np.maximum(0.0, predicted + rng.standard_t(3, 4000))
    interval = fit_value_interval(observed[:2000], predicted[:2000], coverage=0.9)
    assert isinstance(interval, ValueInterval)
    low, high = interval.bounds(predicted[2000:], lowest=0.0)
    inside = (low <= observed[2000:]) & (observed[2000:] <= high)
    assert 0.88 < inside.mean() < 0.92 and low.min() >= 0
    assert fit_value_interval(observed[:20], predicted[:20]) is None
    assert fit_value_interval(observed[:35], predicted[:35], coverage=0.99) is None
    assert interval_from_dict(json.loads(json.dumps(interval.to_dict()))) == interval
    assert interval_from_dict(None) is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=30, max_size=80))
def test_bounds_are_ordered_for_any_data_with_ties(rows: list[tuple[int, bool]]) -> None:
    scores = np.array([0.5 + a / 8 for a, _ in rows])
    labels = np.array([float(b) for _, b in rows])
    interval = fit_probability_interval(scores, labels)
    if interval is None:
        assert labels.sum() in (0, labels.size)
        return
    low, high = interval.bounds(np.linspace(0, 1, 41))
    assert np.all(low <= high) and np.all(low >= 0) and np.all(high <= 1)
    assert np.all(np.asarray(interval.lower) <= np.asarray(interval.upper))


def test_levels_begin_where_the_decision_curve_says() -> None:
    logits, labels = drawn(6000, 7)
    p = Calibration().probability(logits)
    low, moderate, high = risk_thresholds(p, labels)
    curve = decision_curve(labels, p)
    advantage = dict(
        zip(curve.threshold.tolist(), (curve.model - np.maximum(curve.treat_all, 0)).tolist(), strict=True)
    )
    assert (low["level"], low["from"]) == ("low", 0.0)
    assert advantage[moderate["from"]] == max(advantage.values())
    assert advantage[high["from"]] >= 0.5 * max(advantage.values()) and high["from"] > moderate["from"]
    assert risk_level(high["from"], [low, moderate, high]) == "high"
    # Too few events, or a score of no use, fall back on alert budgets.
    few = risk_thresholds(p[:60], np.r_[np.ones(5), np.zeros(55)])
    assert few == risk_thresholds(p[:60])
    useless = np.full(labels.size, 0.999)
    assert risk_thresholds(useless, labels)[1]["from"] == pytest.approx(0.999)
