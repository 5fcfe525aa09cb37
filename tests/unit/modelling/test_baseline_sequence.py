"""Time grid, sequence networks and the stacked ensemble on simulated stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from simulated_stays import ward
from sklearn.metrics import roc_auc_score

from modelling.baselines.ensemble import Ensemble, EnsembleSettings, fit_stack, prepare_inputs, soft_labels
from modelling.baselines.features import FeatureSettings
from modelling.baselines.grid import CHANNELS, GridPreparation, bin_tokens
from modelling.baselines.sequence import Sequence, SequenceNetwork, SequenceSettings
from modelling.errors import BaselineError

SMALL = SequenceSettings(hidden=16, epochs=6, pretrain_epochs=2, batch_size=32)
SMALL_ATTENTION = SequenceSettings(
    body="transformer", hidden=16, layers=1, heads=2, epochs=6, pretrain_epochs=2, batch_size=32
)


SETTINGS = FeatureSettings(codes=("heart_rate", "lactate"))


def small_ensemble() -> Ensemble:
    settings = EnsembleSettings(
        sequences={"gru": SMALL, "transformer": SMALL_ATTENTION}, seeds=(0,), rounds=30, step_hours=6.0
    )
    return Ensemble(features=SETTINGS, settings=settings)


def test_bins_end_at_the_prediction_and_gather_what_is_older() -> None:
    tokens = pl.DataFrame(
        [
            (0, "a", 60.0, 1.0),
            (0, "a", 47.9, 3.0),
            (0, "a", 2.0, 5.0),
            (0, "a", 1.9, 7.0),
            (0, "a", 0.0, 9.0),
        ],
        schema={"row": pl.UInt32, "code": pl.String, "hours_before": pl.Float32, "value": pl.Float32},
        orient="row",
    )
    table = bin_tokens(tokens, codes=["a"], step=2.0, hours=48.0)
    assert table.select("bin", "mean", "min", "max").rows() == [
        (0, 2.0, 1.0, 3.0),
        (22, 5.0, 5.0, 5.0),
        (23, 8.0, 7.0, 9.0),
    ]


def test_scales_are_learnt_from_training_rows_only() -> None:
    samples, events, encounters, _ = ward(40)
    inputs = prepare_inputs(samples, events, encounters, SETTINGS)
    train = np.arange(20)
    wild = inputs.tokens.with_columns(
        value=pl.when(pl.col("row") >= 20).then(pl.lit(9999.0)).otherwise(pl.col("value")).cast(pl.Float32)
    )
    plain, other = (
        GridPreparation.fit(tokens, inputs.static, train, codes=["heart_rate", "lactate"], step=6.0)
        for tokens in (inputs.tokens, wild)
    )
    for name, array in plain.tensors().items():
        np.testing.assert_array_equal(array, other.tensors()[name])
    grid, static = plain.transform(wild, inputs.static, rows=40)
    assert grid.shape == (40, 8, CHANNELS * 2)
    assert np.isfinite(grid).all()
    assert np.isfinite(static).all()
    assert np.abs(grid).max() < 9


@pytest.mark.parametrize("settings", [SMALL, SMALL_ATTENTION], ids=["gru", "transformer"])
def test_hidden_cells_do_not_reach_the_network(settings: SequenceSettings) -> None:
    torch.manual_seed(0)
    network = SequenceNetwork(3, 4, 8, 1, settings, 6.0).eval()
    seen = (torch.rand(5, 8, 3) < 0.4).float()
    value = torch.randn(5, 8, 3)
    spread = torch.rand(5, 8, 3)
    first = network.encode(value * seen, seen, spread)
    other = network.encode(value * seen, seen, torch.where(seen > 0, spread, 99.0))
    torch.testing.assert_close(first, other)


@pytest.mark.parametrize("settings", [SMALL, SMALL_ATTENTION], ids=["gru", "transformer"])
def test_a_network_learns_is_reproducible_and_scores_rows_alone(settings: SequenceSettings) -> None:
    samples, events, encounters, y = ward()
    inputs = prepare_inputs(samples, events, encounters, SETTINGS)
    train, test = np.arange(120), np.arange(120, 160)
    preparation = GridPreparation.fit(inputs.tokens, inputs.static, train, codes=SETTINGS.codes, step=6.0)
    grid, static = preparation.transform(inputs.tokens, inputs.static, rows=160)
    auxiliary = np.stack([y, np.where(y == 1, 9.0, 2.0)], axis=1).astype(float)
    auxiliary[::5, 1] = np.nan

    def fitted() -> Sequence:
        return Sequence(settings=settings, preparation=preparation).fit(
            grid[train], static[train], y[train], auxiliary[train], seeds=(1,)
        )

    model = fitted()
    scores = model.decision(grid[test], static[test])
    assert roc_auc_score(y[test], scores) > 0.85
    np.testing.assert_array_equal(fitted().decision(grid[test], static[test]), scores)
    alone = [model.decision(grid[[row]], static[[row]])[0] for row in test[:10]]
    np.testing.assert_allclose(alone, scores[:10], atol=1e-5)


def test_a_sequence_model_is_saved_without_pickle(tmp_path: Path) -> None:
    samples, events, encounters, y = ward(64)
    inputs = prepare_inputs(samples, events, encounters, SETTINGS)
    rows = np.arange(64)
    preparation = GridPreparation.fit(inputs.tokens, inputs.static, rows, codes=SETTINGS.codes, step=6.0)
    grid, static = preparation.transform(inputs.tokens, inputs.static, rows=64)
    model = Sequence(settings=SMALL, preparation=preparation).fit(grid, static, y, seeds=(0, 1))
    model.save(tmp_path)
    again = Sequence.load(tmp_path)
    np.testing.assert_array_equal(again.decision(grid, static), model.decision(grid, static))
    (tmp_path / "sequence.safetensors").write_bytes(b"other")
    with pytest.raises(BaselineError, match="is not the file that was saved"):
        Sequence.load(tmp_path)


def test_the_ensemble_is_calibrated_restored_and_independent_of_ward_mates() -> None:
    samples, events, encounters, y = ward()
    inputs = prepare_inputs(samples, events, encounters, SETTINGS)
    train, test = np.arange(120), np.arange(120, 160)
    ensemble = small_ensemble().fit_members(inputs, train, y, later=y, auxiliary=y[:, None].astype(float))
    ensemble.fit_stack(ensemble.member_log_odds(inputs, train), y[train])
    whole = ensemble.predict(samples, events, encounters)
    assert roc_auc_score(y[test], whole[test]) > 0.85
    assert ((whole > 0) & (whole < 1)).all()

    one = samples[130:131]
    np.testing.assert_allclose(ensemble.predict(one, events, encounters), whole[130:131], atol=1e-5)
    restored = Ensemble.restore(ensemble.to_dict(), ensemble.tensors())
    np.testing.assert_array_equal(restored.predict(samples, events, encounters), whole)
    lacking = {name: tensor for name, tensor in ensemble.tensors().items() if name != "boosting.0"}
    with pytest.raises(BaselineError, match=r"lacks 'boosting\.0'"):
        Ensemble.restore(ensemble.to_dict(), lacking)


def test_a_patient_without_any_value_still_gets_a_probability() -> None:
    samples, events, encounters, y = ward(80)
    inputs = prepare_inputs(samples, events, encounters, SETTINGS)
    ensemble = small_ensemble().fit_members(inputs, np.arange(80), y)
    ensemble.fit_stack(ensemble.member_log_odds(inputs), y)
    silent = ensemble.predict(samples.head(2), events.clear(), encounters)
    assert ((silent > 0) & (silent < 1)).all()
    assert silent[0] != silent[1] or encounters["sex"][0] == encounters["sex"][1]


def test_the_stack_restores_calibration_of_members_that_are_off() -> None:
    rng = np.random.default_rng(0)
    log_odds = rng.normal(size=4000) * 1.5 - 1
    y = (rng.random(4000) < 1 / (1 + np.exp(-log_odds))).astype(int)
    weights, intercept = fit_stack(np.stack([3 * log_odds + 1], axis=1), y)
    assert weights[0] == pytest.approx(1 / 3, abs=0.03)
    assert intercept == pytest.approx(-1 / 3, abs=0.1)


def test_soft_labels_never_lower_a_death() -> None:
    labels = soft_labels(np.array([1, 0, 0]), np.array([1, 1, 0]), 0.3)
    assert labels.tolist() == [1.0, 0.3, 0.0]
    assert soft_labels(np.array([1, 0]), None, 0.3).tolist() == [1.0, 0.0]
