"""Nightingale's own model, and what every model must hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_ward import Ward, catalogue, ward
from torch import nn

from modelling.batches import (
    Dataset,
    EncodingSettings,
    ImageSettings,
    Modality,
    SignalSettings,
    fit_encoding,
    prepare,
)
from modelling.models import build_model
from modelling.models.summaries import STATISTICS, feature_summaries

SMALL = {
    "width": 12,
    "heads": 2,
    "inner": 16,
    "value_width": 6,
    "fusion_hidden": 10,
    "micro_width": 8,
    "image_layers": (1, 1),
    "image_width": 4,
    "signal_channels": (6, 8),
    "signal_strides": (4, 4),
}


@pytest.fixture(scope="module")
def stays(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    folder: Path = tmp_path_factory.mktemp("nightingale")
    return ward(folder, n=64, seed=27, ehr_share=0.85, ecg_share=0.6, image_share=0.5, pixels=40)


@pytest.fixture(scope="module")
def dataset(stays: Ward) -> Dataset:
    encoding = fit_encoding(
        samples=stays.samples,
        encounters=stays.encounters,
        events=stays.events,
        recordings=stays.recordings,
        catalogue=catalogue(),
        settings=EncodingSettings(image=ImageSettings(size=32, resize=36), signal=SignalSettings(length=320)),
    )
    return prepare(**stays.tables(), encoding=encoding)


def nightingale(dataset: Dataset, **changes) -> nn.Module:
    torch.manual_seed(3)
    model = build_model("nightingale", dataset.encoding, {**SMALL, **changes})
    for part in model.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2.0)
    return model.double().eval()


def doubles(dataset: Dataset):
    return dataset.batch(np.arange(len(dataset))).to(dtype=torch.float64)


@pytest.mark.parametrize(
    "changes", [{}, {"tokens": False}, {"summaries": False}, {"ecg": False, "cxr": False}]
)
def test_a_score_does_not_depend_on_batch_mates_order_or_padding(dataset: Dataset, changes: dict) -> None:
    model = nightingale(dataset, **changes)
    whole = doubles(dataset)
    with torch.no_grad():
        together = model(whole)[:, 0]
        alone = torch.cat([model(whole.take(torch.tensor([row])))[:, 0] for row in range(64)])
        order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
        permuted = model(whole.take(order))[:, 0]
    assert together.isfinite().all() and together.std() > 0
    assert torch.allclose(together, alone, atol=1e-12) and torch.allclose(
        permuted, together[order], atol=1e-12
    )


def test_every_subset_of_modalities_gives_a_score_of_its_own(dataset: Dataset) -> None:
    model = nightingale(dataset)
    full = int(torch.nonzero(dataset.all.present.all(1)).flatten()[0])
    batch = dataset.batch([full]).to(dtype=torch.float64)
    subsets = [[m for bit, m in enumerate(Modality) if mask >> bit & 1] for mask in range(8)]
    with torch.no_grad():
        scores = [float(model(batch.without(*(m for m in Modality if m not in kept)))) for kept in subsets]
    assert np.isfinite(scores).all() and len(set(scores)) == 8


def test_what_is_absent_is_never_looked_at(dataset: Dataset) -> None:
    model = nightingale(dataset)
    batch = doubles(dataset).without(*Modality)
    broken = replace(
        batch,
        value=torch.full_like(batch.value, float("nan")),
        ecg=torch.full_like(batch.ecg, float("nan")),
        image=torch.full_like(batch.image, 255),
    )
    with torch.no_grad():
        assert torch.equal(model(batch), model(broken)) and model(batch).isfinite().all()


def test_summaries_agree_with_a_plain_loop(dataset: Dataset) -> None:
    batch = doubles(dataset)
    features = dataset.encoding.n_tokens - 1
    found = feature_summaries(batch, features)
    assert found.shape == (64, features, len(STATISTICS))
    for row in range(64):
        own = slice(int(batch.token_offsets[row]), int(batch.token_offsets[row + 1]))
        for feature in range(features):
            chosen = batch.feature[own] == feature + 1
            values = batch.value[own][chosen].numpy()
            expected = [0.0] * len(STATISTICS)
            if values.size:
                hours = float(batch.hours[own][chosen][-1])
                expected = [
                    1.0,
                    np.log1p(values.size),
                    values[-1],
                    values[0],
                    values.mean(),
                    values.min(),
                    values.max(),
                    max(values.std(), 1e-6),
                    np.exp(-hours / 12),
                ]
            assert np.allclose(found[row, feature].numpy(), expected, atol=1e-9)


def test_gradients_are_finite_where_features_are_unseen_or_constant(dataset: Dataset) -> None:
    model = nightingale(dataset).train()
    batch = doubles(dataset).take(torch.tensor([0, 1, 2, 3]))
    model(batch).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    moved = {
        name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert {"tokens", "summaries", "join", "fusion", "head"} <= moved


def test_parts_train_alone(dataset: Dataset) -> None:
    model = nightingale(dataset)
    batch = doubles(dataset)
    for modality in Modality:
        rows, logits = model.encoder_logits(batch, modality)
        assert torch.equal(rows, torch.nonzero(batch.has(modality)).flatten())
        model.zero_grad()
        logits.sum().backward()
        own = {id(parameter) for parameter in model.encoder_parameters(modality)}
        assert {id(p) for p in model.parameters() if p.grad is not None} <= own
    assert nightingale(dataset, ecg=False, cxr=False).modalities == (Modality.EHR,)


def test_several_outputs(dataset: Dataset) -> None:
    assert nightingale(dataset, outputs=3)(doubles(dataset)).shape == (64, 3)
