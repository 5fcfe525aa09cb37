"""The harness: fixed folds, resumable runs, honest stacking, tables that compute what they say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from simulated_stays import ward
from sklearn.metrics import average_precision_score, roc_auc_score

from modelling.benchmarks.contenders import InputCache, baseline_contenders
from modelling.benchmarks.encoders import (
    EncoderTraining,
    LabelledEncoder,
    encoder_logits,
    shifted_signals,
    train_encoder,
)
from modelling.benchmarks.harness import (
    Cohort,
    Contender,
    assign_folds,
    collect,
    result_path,
    run_all,
    run_once,
)
from modelling.benchmarks.multilabel import Labelled, label_metrics, out_of_fold
from modelling.benchmarks.networks import NETWORKS, network_contenders
from modelling.benchmarks.parallel import run_parallel
from modelling.benchmarks.stored import StoredRun, read_run, write_run
from modelling.benchmarks.table import differences, markdown, rows_of, stacked
from modelling.catalogue import load_catalogue
from modelling.errors import BenchmarkError


def cohort(n: int = 120, digest: str = "d1") -> Cohort:
    samples, events, encounters, y = ward(n)
    return Cohort(
        name="ward", samples=samples, events=events, encounters=encounters, labels=y.astype(np.int64),
        folds=assign_folds(samples["subject_id"].to_numpy(), y.astype(np.int64)), digest=digest,
    )  # fmt: skip


def noisy_truth(scale: float):
    def score(data: Cohort, train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
        assert not set(train) & set(test)
        rng = np.random.default_rng([seed, int(scale * 10)])
        return data.labels[test] * 2.0 - 1.0 + rng.normal(size=len(test)) * scale

    return score


def test_folds_are_stratified_disjoint_and_do_not_follow_row_order() -> None:
    subjects = np.arange(500)
    y = (subjects % 7 == 0).astype(np.int64)
    folds = assign_folds(subjects, y)
    shares = [y[folds == fold].mean() for fold in range(5)]
    assert max(shares) - min(shares) < 0.02
    shuffled = np.random.default_rng(0).permutation(500)
    np.testing.assert_array_equal(assign_folds(subjects[shuffled], y[shuffled]), folds[shuffled])
    with pytest.raises(BenchmarkError, match="more than one sample"):
        assign_folds(np.array([1, 1]), np.array([0, 1]))


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    data = cohort()
    calls: list[int] = []

    def score(c: Cohort, train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
        calls.append(seed)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return noisy_truth(1.0)(c, train, test, seed)

    contender = Contender(name="m", score=score, seeds=(0, 1))
    with pytest.raises(KeyboardInterrupt):
        run_all(tmp_path, data, [contender], say=lambda line: None)
    assert collect(tmp_path, data, contender) is None
    run_all(tmp_path, data, [contender], say=lambda line: None)
    assert len(calls) == 11  # ten runs and the one that was stopped
    result = collect(tmp_path, data, contender)
    assert result is not None
    assert result.runs.shape == (2, 120)


def test_results_of_other_data_or_settings_are_not_mixed_in(tmp_path: Path) -> None:
    contender = Contender(name="m", score=noisy_truth(1.0), seeds=(0,))
    run_all(tmp_path, cohort(), [contender], say=lambda line: None)
    assert collect(tmp_path, cohort(digest="d2"), contender) is None
    changed = Contender(name="m", score=noisy_truth(1.0), seeds=(0,), settings={"rate": 2})
    assert collect(tmp_path, cohort(), changed) is None


def test_a_kept_run_has_the_scores_almost_exactly_and_refuses_other_subjects(tmp_path: Path) -> None:
    subjects = np.arange(400)
    scores = np.random.default_rng(0).normal(size=400) * 2
    about = {"contender": "m", "auroc": 0.5}
    path = tmp_path / "fold-0-seed-0.json"
    write_run(path, StoredRun(scores=scores, seconds=1.0, about=about), subjects=subjects)
    found = read_run(path, subjects=subjects)
    np.testing.assert_allclose(found.scores, scores, rtol=0, atol=2e-4)
    assert found.about == about and path.stat().st_size < 1500
    constant = StoredRun(scores=np.full(400, 0.3), seconds=1.0, about=about)
    write_run(path, constant, subjects=subjects)
    np.testing.assert_array_equal(read_run(path, subjects=subjects).scores, constant.scores)
    with pytest.raises(BenchmarkError, match="other samples"):
        read_run(path, subjects=subjects[::-1])
    path.write_text("{}")
    with pytest.raises(BenchmarkError, match="not a stored run"):
        read_run(path, subjects=subjects)


def test_scores_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    broken = Contender(name="m", score=lambda c, a, b, s: np.full(len(b), np.nan), seeds=(0,))
    with pytest.raises(BenchmarkError, match="not finite"):
        run_all(tmp_path, cohort(), [broken], say=lambda line: None)
    assert not result_path(tmp_path, cohort(), broken, 0, 0).exists()


def test_the_table_says_what_scikit_learn_says(tmp_path: Path) -> None:
    data = cohort()
    contenders = [Contender(name=f"noise {s}", score=noisy_truth(s), seeds=(0, 1)) for s in (1.0, 2.0)]
    run_all(tmp_path, data, contenders, say=lambda line: None)
    found = {c.name: collect(tmp_path, data, c) for c in contenders}
    rows, scores = rows_of(data, found, {"both": [c.name for c in contenders], "absent": ["x"]}, resamples=50)
    assert [row.name for row in rows] == ["noise 1.0", "noise 2.0", "both"]
    first = rows[0]
    assert first.auroc["value"] == pytest.approx(roc_auc_score(data.labels, scores["noise 1.0"]))
    assert first.auprc["value"] == pytest.approx(average_precision_score(data.labels, scores["noise 1.0"]))
    single = [
        roc_auc_score(data.labels[data.folds == f], run[data.folds == f])
        for run in found["noise 1.0"].runs
        for f in range(5)
    ]
    assert first.run_auroc == pytest.approx((np.mean(single), np.std(single, ddof=1)))
    assert "| noise 1.0 | 2 |" in markdown(rows)
    compared = differences(data, scores, [("noise 1.0", "noise 2.0"), ("noise 1.0", "absent")])
    assert list(compared) == ["noise 1.0 - noise 2.0"]


def test_stacking_never_reads_the_labels_of_the_fold_it_scores(tmp_path: Path) -> None:
    data = cohort()
    contenders = [Contender(name=f"noise {s}", score=noisy_truth(s), seeds=(0,)) for s in (1.0, 2.0)]
    run_all(tmp_path, data, contenders, say=lambda line: None)
    members = [collect(tmp_path, data, c) for c in contenders]
    plain = stacked(data, members)
    labels = data.labels.copy()
    labels[data.folds == 2] = 1 - labels[data.folds == 2]
    other = stacked(replace(data, labels=labels), members)
    np.testing.assert_array_equal(plain[data.folds == 2], other[data.folds == 2])
    assert not np.array_equal(plain[data.folds == 1], other[data.folds == 1])


def test_the_quick_baselines_run_through_the_harness(tmp_path: Path) -> None:
    data = cohort()
    inputs = InputCache()
    quick = [c for c in baseline_contenders(inputs) if c.name in {"NEWS2", "logistic regression"}]
    run_all(tmp_path, data, quick, say=lambda line: None)
    logistic = collect(tmp_path, data, quick[-1])
    assert roc_auc_score(data.labels, logistic.mean) > 0.8


def test_patients_never_straddle_folds_of_recordings_and_macro_means_are_means(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(60), 2)
    labels = (rng.random((120, 3)) < [0.5, 0.4, 0.02]).astype(np.int64)
    data = Labelled(name="x", labels=labels, names=("a", "b", "rare"), patients=patients)
    folds = data.folds()
    assert all(len(set(folds[patients == p])) == 1 for p in range(60))
    logits = out_of_fold(
        data, "m", lambda train, test, seed: labels[test] + rng.normal(size=(len(test), 3)), tmp_path,
        seed=0, say=lambda line: None,
    )  # fmt: skip
    metrics = label_metrics(data, logits, resamples=20)
    assert "rare|auroc" not in metrics
    assert metrics["a|auroc"]["value"] == pytest.approx(roc_auc_score(labels[:, 0], logits[:, 0]))
    macro = (metrics["a|auroc"]["value"] + metrics["b|auroc"]["value"]) / 2
    assert metrics["macro|auroc"]["value"] == pytest.approx(macro)


def test_an_encoder_learns_a_shape_and_is_reproducible() -> None:
    import torch

    from modelling.models.encoders import SignalResNet

    rng = np.random.default_rng(0)
    y = (np.arange(96) % 2)[:, None]
    wave = np.sin(np.linspace(0, 20, 160))[None, None] * y[:, :, None]
    signals = torch.from_numpy((wave + rng.normal(size=(96, 12, 160)) * 0.7).astype(np.float32))

    def run() -> np.ndarray:
        torch.manual_seed(0)
        body = SignalResNet((8, 8), (2, 2), dropout=0.0)
        model = LabelledEncoder(body, body.features, 1)
        settings = EncoderTraining(epochs=6, batch_size=16)
        train_encoder(model, signals[:64], y[:64], settings, seed=0, augment=shifted_signals)
        return encoder_logits(model, signals[64:])

    first = run()
    assert roc_auc_score(y[64:, 0], first[:, 0]) > 0.9
    np.testing.assert_array_equal(first, run())


@pytest.mark.slow
def test_several_processes_write_what_one_writes(tmp_path: Path) -> None:
    data = cohort()
    contenders = [one for one in baseline_contenders(InputCache()) if one.name in ("NEWS2", "MEWS")]
    run_all(tmp_path / "one", data, contenders, say=lambda line: None)
    run_once(tmp_path / "several", data, contenders[0], 0, 0)
    broken = Contender(name="broken", score=json.dumps, seeds=(0,))  # type: ignore[arg-type]
    with pytest.raises(BenchmarkError, match="5 runs failed, the first is broken, fold"):
        run_parallel(tmp_path / "several", data, [broken, *contenders], workers=2)
    for contender in contenders:
        one, several = (collect(tmp_path / name, data, contender) for name in ("one", "several"))
        assert one is not None
        assert several is not None
        np.testing.assert_array_equal(one.runs, several.runs)
    stored = result_path(tmp_path / "several", data, contenders[1], 4, 0).read_text("utf-8")
    assert '"computed_on": "CPU' in stored


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_of_the_benchmark_is_trained_on_the_training_rows_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, settings = NETWORKS[name]
    short = {**settings, "epochs": 1, "forecast_epochs": min(1, settings.get("forecast_epochs", 0))}
    monkeypatch.setitem(NETWORKS, name, (model, short))
    contender = next(one for one in network_contenders(load_catalogue(), seeds=(0,)) if one.name == name)
    data = cohort()
    train, test = data.split(0)

    def scores(labels: np.ndarray, digest: str) -> np.ndarray:
        samples = data.samples.with_columns(pl.Series("boolean_value", labels, dtype=pl.Boolean))
        later = {"died_within_year": labels.astype(np.float64), "log_days": labels * 2.0}
        changed = replace(data, samples=samples, labels=labels, outcomes=later, digest=digest)
        return contender.score(changed, train, test, 0)

    found = scores(data.labels, "d1")
    assert found.shape == test.shape
    assert np.isfinite(found).all()
    other = data.labels.copy()
    other[test] = 1 - other[test]
    np.testing.assert_array_equal(found, scores(other, "d2"))
    other[train] = 1 - other[train]
    assert not np.array_equal(found, scores(other, "d3"))
