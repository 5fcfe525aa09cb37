"""Logistic regression and boosting: what they learn, and that what is saved is what is loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from modelling.baselines.arrays import FeatureTable
from modelling.baselines.boosting import Boosting, sigmoid
from modelling.baselines.logistic import Logistic, RankNormal
from modelling.errors import BaselineError


def cohort(n: int = 1200, seed: int = 0) -> tuple[FeatureTable, np.ndarray, np.ndarray]:
    """Two informative columns (one skewed, one often missing), three of noise, one constant."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6))
    true = 1.5 * x[:, 0] - 1.0 * x[:, 1] - 1.5
    y = (rng.random(n) < sigmoid(true)).astype(int)
    x[:, 0] = np.exp(2 * x[:, 0])  # lactate-like
    x[rng.random(n) < 0.4, 1] = np.nan
    x[:, 5] = 7.0
    names = ("lactate|all|max", "ph|all|last", "a", "b", "c", "constant")
    return FeatureTable(names, x.astype(np.float32)), y, true


MODELS = [Logistic(strength=0.1), Boosting(rounds=60, seeds=(0, 1), parameters={"feature_fraction": 0.9})]
IDS = ["logistic", "boosting"]


@pytest.mark.parametrize("model", MODELS, ids=IDS)
def test_a_signal_is_learnt_and_survives_saving(model: Logistic | Boosting, tmp_path: Path) -> None:
    features, y, true = cohort()
    train, test = np.arange(800), np.arange(800, 1200)
    fitted = model.fit(features.take(train), y[train])
    probability = fitted.predict(features.take(test))
    assert roc_auc_score(y[test], probability) > 0.93 * roc_auc_score(y[test], true[test])
    assert 0 < probability.min() < probability.max() < 1
    fitted.save(tmp_path)
    again = type(model).load(tmp_path)
    np.testing.assert_array_equal(again.predict(features.take(test)), probability)
    assert not list(tmp_path.glob("*.pkl"))


@pytest.mark.parametrize("model", MODELS, ids=IDS)
def test_a_row_scores_alone_as_it_scores_among_others(model: Logistic | Boosting) -> None:
    features, y, _ = cohort(300)
    fitted = model.fit(features, y)
    whole = fitted.predict(features)
    alone = np.concatenate([fitted.predict(features.take(np.array([row]))) for row in range(20)])
    np.testing.assert_allclose(alone, whole[:20], rtol=1e-12)


@pytest.mark.parametrize("model", MODELS, ids=IDS)
def test_columns_are_found_by_name_and_a_lost_one_is_missing(model: Logistic | Boosting) -> None:
    features, y, _ = cohort(300)
    fitted = model.fit(features, y)
    shuffled = features.aligned(features.names[::-1])
    np.testing.assert_allclose(fitted.predict(shuffled), fitted.predict(features), rtol=1e-12)
    lost = features.aligned(features.names[1:])
    assert np.isfinite(fitted.predict(lost)).all()


@pytest.mark.parametrize(
    ("model", "file"), [(MODELS[0], "logistic.safetensors"), (MODELS[1], "boosting-1.txt")], ids=IDS
)
def test_a_changed_file_is_refused(model: Logistic | Boosting, file: str, tmp_path: Path) -> None:
    features, y, _ = cohort(300)
    model.fit(features, y).save(tmp_path)
    with (tmp_path / file).open("ab") as handle:
        handle.write(b"\n")
    with pytest.raises(BaselineError, match=f"{file} is missing or is not the file that was saved"):
        type(model).load(tmp_path)


def test_the_same_seed_gives_the_same_trees() -> None:
    features, y, _ = cohort(300)
    first, again = (Boosting(rounds=20, seeds=(3,)).fit(features, y).predict(features) for _ in range(2))
    other = Boosting(rounds=20, seeds=(4,)).fit(features, y).predict(features)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_soft_labels_and_days_are_labels_too() -> None:
    features, y, true = cohort(800)
    soft = Boosting(rounds=60, seeds=(0,)).fit(features, 0.8 * y)
    assert soft.predict(features).mean() == pytest.approx(0.8 * y.mean(), rel=0.05)
    days = Boosting(kind="regression", rounds=150, seeds=(0,), parameters={"feature_fraction": 1.0})
    predicted = days.fit(features, true).predict(features)
    assert np.abs(predicted - true).mean() < 0.7 * np.abs(true - np.median(true)).mean()


def test_rank_normal_has_no_outliers_and_keeps_what_varies() -> None:
    features, _, _ = cohort()
    preparation = RankNormal.fit(features)
    z = preparation.transform(features)
    assert features.names[5] not in [features.names[k] for k in preparation.kept]
    assert z.shape[1] == 2 * 5 + 1  # five columns that vary, their squares, one indicator of missingness
    assert np.abs(z[:, :5]).max() < 3
    assert z[:, 0].std() == pytest.approx(1.0, abs=0.05)
    extreme = FeatureTable(features.names, np.full((1, 6), 1e9, dtype=np.float32))
    assert np.abs(preparation.transform(extreme)[:, :5]).max() < 3


def test_wrong_labels_are_refused() -> None:
    features, y, _ = cohort(100)
    with pytest.raises(BaselineError, match="99 labels for 100 rows"):
        Boosting().fit(features, y[:99])
    with pytest.raises(BaselineError, match="between 0 and 1"):
        Boosting().fit(features, y * 2)
    with pytest.raises(BaselineError, match="of both classes"):
        Logistic().fit(features, np.zeros(100))
    with pytest.raises(BaselineError, match="not fitted"):
        Logistic().predict(features)
