"""Our metrics against scikit-learn and against definitions written out by hand."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

from modelling.errors import EvaluationError
from modelling.evaluation.bootstrap import multiplicities
from modelling.evaluation.calibration import calibration_line, logit, reliability
from modelling.evaluation.decision import best_min_sensitivity_ppv, decision_curve, operating_points
from modelling.evaluation.discrimination import (
    RankedScores,
    auprc_trapezoid_of,
    auroc_of,
    average_precision_of,
)
from modelling.evaluation.metrics import classification_metrics, paired_difference, regression_metrics


def cohort(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Simulated patients whose risks are true: drawing the outcome from the probability itself."""
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-(rng.normal(size=n) * 1.5 - 2)))
    return (rng.random(n) < p).astype(int), p


scored = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6), st.integers(0, 3)), min_size=2, max_size=40)


@settings(max_examples=60, deadline=None)
@given(scored)
def test_weighted_metrics_equal_scikit_learn_on_the_expanded_sample(rows: list[tuple[int, int, int]]) -> None:
    """A multiplicity of k is the same as k copies, with any ties."""
    y, s, w = (np.array(column) for column in zip(*rows, strict=True))
    expanded_y, expanded_s = np.repeat(y, w), np.repeat(s, w)
    true, false = RankedScores.of(y, s.astype(float)).counts(w[None, :].astype(float))
    if len(np.unique(expanded_y)) < 2:
        assert math.isnan(auroc_of(true, false)[0])
        return
    precision, recall, _ = precision_recall_curve(expanded_y, expanded_s)
    assert auroc_of(true, false)[0] == pytest.approx(roc_auc_score(expanded_y, expanded_s))
    assert average_precision_of(true, false)[0] == pytest.approx(
        average_precision_score(expanded_y, expanded_s)
    )
    assert auprc_trapezoid_of(true, false)[0] == pytest.approx(auc(recall, precision))


def test_calibration_line_equals_an_unpenalised_logistic_fit() -> None:
    y, p = cohort(4000)
    shifted = 1 / (1 + np.exp(-(2.0 * logit(p) + 0.7)))  # overconfident and shifted
    slope, intercept, large = calibration_line(y, shifted, np.ones((1, len(y))))
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit(shifted)[:, None], y)
    assert slope[0] == pytest.approx(fit.coef_[0, 0], abs=1e-4)
    assert intercept[0] == pytest.approx(fit.intercept_[0], abs=1e-4)
    assert slope[0] == pytest.approx(0.5, abs=0.05)
    moved = 1 / (1 + np.exp(-(logit(shifted) + large[0])))
    assert moved.mean() == pytest.approx(y.mean(), abs=1e-6)  # in the large: mean risk meets mean outcome


@pytest.mark.parametrize(("noise", "shift"), [(4.0, 1.0), (10.0, 0.0), (30.0, 3.0)])
def test_predictions_near_certainty_do_not_throw_the_calibration_line_off(noise: float, shift: float) -> None:
    """Newton's own steps from a slope of 1 jump to and fro here, and would end at -3."""
    rng = np.random.default_rng(0)
    z = rng.normal(-1.0, 1.5, 2000)
    y = (rng.random(2000) < 1 / (1 + np.exp(-(z + shift)))).astype(np.int64)
    p = 1 / (1 + np.exp(-(z + noise * rng.normal(size=2000))))
    weights = np.vstack([np.ones(2000), y == 1, rng.multinomial(2000, np.full(2000, 1 / 2000))])
    slope, intercept, large = calibration_line(y, p, weights.astype(np.float64))
    for row in (0, 2):
        fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000)
        fit.fit(logit(p)[:, None], y, sample_weight=weights[row])
        assert slope[row] == pytest.approx(fit.coef_[0, 0], abs=1e-4)
        assert intercept[row] == pytest.approx(fit.intercept_[0], abs=1e-4)
        moved = 1 / (1 + np.exp(-(logit(p) + large[row])))
        assert np.average(moved, weights=weights[row]) == pytest.approx(
            np.average(y, weights=weights[row]), abs=1e-6
        )
    assert np.isnan([slope[1], intercept[1], large[1]]).all()  # one class only


def test_intervals_of_true_probabilities_cover_perfect_calibration() -> None:
    y, p = cohort(6000, seed=3)
    metrics = classification_metrics(y, p, resamples=400, seed=1)
    assert metrics["calibration_slope"].lower < 1 < metrics["calibration_slope"].upper
    assert metrics["calibration_in_the_large"].lower < 0 < metrics["calibration_in_the_large"].upper
    assert metrics["brier"].value == pytest.approx(((p - y) ** 2).mean())
    assert metrics["expected_calibration_error"].value < 0.02
    assert metrics["auroc"].resamples == 400


def test_interval_has_the_width_that_theory_gives() -> None:
    """Standard error of the AUROC from its structural components (DeLong et al., Biometrics 1988)."""
    y, p = cohort(3000, seed=5)
    interval = classification_metrics(y, p, resamples=1000, calibration=False)["auroc"]
    wins = (p[y == 1][:, None] > p[y == 0][None, :]).astype(float)
    m, n = wins.shape
    se = math.sqrt(wins.mean(axis=1).var(ddof=1) / m + wins.mean(axis=0).var(ddof=1) / n)
    assert (interval.upper - interval.lower) / (2 * 1.96 * se) == pytest.approx(1.0, abs=0.08)


def test_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    y, p = cohort(500)
    first, again, other = (classification_metrics(y, p, resamples=200, seed=s)["auroc"] for s in (7, 7, 8))
    assert first == again
    assert first != other


def test_samples_of_one_subject_are_drawn_together() -> None:
    subjects = np.repeat(np.arange(20), 3)
    for block in multiplicities(60, resamples=50, rng=np.random.default_rng(0), clusters=subjects):
        by_subject = block.reshape(-1, 20, 3)
        assert (by_subject == by_subject[:, :, :1]).all()
        assert (by_subject[:, :, 0].sum(axis=1) == 20).all()


def test_a_thousand_resamples_of_four_thousand_scores_take_seconds() -> None:
    y, p = cohort(4000)
    start = time.process_time()
    classification_metrics(y, p, resamples=1000)
    assert time.process_time() - start < 20


def test_paired_difference_sees_a_better_model_and_no_difference_from_itself() -> None:
    y, p = cohort(2000, seed=2)
    noisy = np.clip(p + np.random.default_rng(0).normal(scale=0.15, size=len(p)), 0, 1)
    better = paired_difference(y, p, noisy, resamples=300)
    assert better["auroc"]["lower"] > 0
    assert better["auroc"]["p_value"] <= 0.01
    same = paired_difference(y, p, p, resamples=50)
    assert same["auroc"] == {"value": 0.0, "lower": 0.0, "upper": 0.0, "resamples": 50, "p_value": 1.0}


def test_net_benefit_by_hand() -> None:
    y = np.array([1, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    p = np.array([0.9, 0.2, 0.6, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    curve = decision_curve(y, p, thresholds=(0.5, 0.2))
    assert curve.model.tolist() == pytest.approx([0.1 - 0.1 * 1.0, 0.2 - 0.1 * 0.25])
    assert curve.treat_all.tolist() == pytest.approx([0.2 - 0.8, 0.2 - 0.8 * 0.25])


def test_operating_points_flag_everyone_tied_at_the_threshold() -> None:
    y = np.array([1, 0, 1, 0, 0, 0, 0, 0, 0, 0])
    s = np.array([3, 2, 2, 2, 1, 1, 1, 1, 1, 1])
    (point,) = operating_points(y, s, shares=(0.2,))
    assert point == {
        "share": 0.2, "flagged": 0.4, "threshold": 2.0, "sensitivity": 1.0, "positive_predictive_value": 0.5,
    }  # fmt: skip
    assert best_min_sensitivity_ppv(y, s) == 0.5


def test_reliability_bins_hold_every_sample_once() -> None:
    y, p = cohort(1001)
    bins = reliability(y, np.round(p, 1))  # heavy ties
    assert bins.count.sum() == 1001
    assert (bins.lower <= bins.observed).all()
    assert (bins.observed <= bins.upper).all()
    assert (np.diff(bins.predicted) > 0).all()


def test_regression_metrics_by_hand() -> None:
    metrics = regression_metrics(np.array([1.0, 2.0, 4.0]), np.array([2.0, 2.0, 2.0]), resamples=20)
    assert metrics["mae"].value == pytest.approx(1.0)
    assert metrics["rmse"].value == pytest.approx(math.sqrt(5 / 3))
    assert metrics["bias"].value == pytest.approx(-1 / 3)


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 1], [0.1], "do not fit"),
        ([0, 2], [0.1, 0.2], "labels must be 0 or 1"),
        ([0, 1], [0.1, float("nan")], r"1 score\(s\) are not finite"),
        ([0, 1], [0.1, 1.2], r"probabilities must lie in \[0, 1\]"),
        ([], [], "no sample"),
    ],
)
def test_wrong_input_is_refused(labels: list[int], scores: list[float], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        classification_metrics(np.array(labels), np.array(scores), resamples=5)
