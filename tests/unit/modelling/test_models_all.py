"""What every model that `train` offers must hold; a new one is tested by being entered in MODELS."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_ward import catalogue, ward
from torch import nn

from modelling.batches import (
    Batch,
    Dataset,
    EncodingSettings,
    ImageSettings,
    Modality,
    SignalSettings,
    fit_encoding,
    prepare,
)
from modelling.models import MODELS, build_model

NAMES = sorted(set(MODELS) - {"ensemble"})  # not trained by gradients; its own tests hold the same
STAYS = 16
PICTURES = {"image_layers": (1, 1), "image_width": 4}
SIGNALS = {"signal_channels": (6, 8), "signal_strides": (4, 4)}
SMALL = {
    "medfuse": PICTURES,
    "medm2t": PICTURES
    | SIGNALS
    | {"width": 8, "heads": 2, "ecg_width": 8, "micro_width": 8, "micro_heads": 2},
    "nightingale": PICTURES | SIGNALS,
}
"""Sizes that keep the tests quick; a model that is not here is built with its own defaults."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder: Path = tmp_path_factory.mktemp("all")
    stays = ward(folder, n=STAYS, seed=5, ehr_share=0.85, ecg_share=0.7, image_share=0.6, pixels=40)
    encoding = fit_encoding(
        samples=stays.samples,
        encounters=stays.encounters,
        events=stays.events,
        recordings=stays.recordings,
        catalogue=catalogue(),
        settings=EncodingSettings(image=ImageSettings(size=32, resize=36), signal=SignalSettings(length=320)),
    )
    return prepare(**stays.tables(), encoding=encoding)


def built(name: str, dataset: Dataset, **settings: object) -> nn.Module:
    torch.manual_seed(3)
    return build_model(name, dataset.encoding, SMALL.get(name, {}) | settings).double().eval()


def doubles(dataset: Dataset) -> Batch:
    return dataset.batch(np.arange(len(dataset))).to(dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
def test_a_score_does_not_depend_on_batch_mates_order_or_padding(dataset: Dataset, name: str) -> None:
    model, whole = built(name, dataset), doubles(dataset)
    order = torch.randperm(STAYS, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        together = model(whole)[:, 0]
        alone = torch.cat([model(whole.take(torch.tensor([row])))[:, 0] for row in range(STAYS)])
        permuted = model(whole.take(order))[:, 0]
    assert together.isfinite().all() and together.std() > 0
    torch.testing.assert_close(alone, together, atol=1e-12, rtol=0)
    torch.testing.assert_close(permuted, together[order], atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_absent_is_never_looked_at(dataset: Dataset, name: str) -> None:
    model, batch = built(name, dataset), doubles(dataset).without(*Modality)
    broken = replace(
        batch,
        value=torch.full_like(batch.value, float("nan")),
        ecg=torch.full_like(batch.ecg, float("nan")),
        image=torch.full_like(batch.image, 255),
    )
    with torch.no_grad():
        found = model(batch)
        assert found.isfinite().all() and torch.equal(found, model(broken))


@pytest.mark.parametrize("name", NAMES)
def test_any_subset_of_its_modalities_may_be_missing_and_moves_the_score(dataset: Dataset, name: str) -> None:
    model = built(name, dataset)
    full = int(torch.nonzero(dataset.all.present.all(1)).flatten()[0])
    batch = dataset.batch([full]).to(dtype=torch.float64)
    subsets = [[m for bit, m in enumerate(Modality) if mask >> bit & 1] for mask in range(8)]
    with torch.no_grad():
        scores = [
            float(model(batch.without(*(m for m in Modality if m not in kept)))[0, 0]) for kept in subsets
        ]
    assert np.isfinite(scores).all()
    assert len(set(scores)) == 2 ** len(model.modalities)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_weights_and_finite_gradients(dataset: Dataset, name: str) -> None:
    first, second = built(name, dataset).state_dict(), built(name, dataset).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    model = built(name, dataset).train()
    loss = nn.functional.binary_cross_entropy_with_logits(
        model(doubles(dataset))[:, 0], torch.arange(STAYS, dtype=torch.float64) % 2
    )
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize(
    ("name", "settings"),
    [(name, {}) for name in NAMES]
    + [("medfuse", {"fusion": fusion}) for fusion in ("early", "joint", "unified", "mmtm", "daft")],
)
def test_compiled_for_any_sizes_it_gives_the_same_logits_and_gradients(
    dataset: Dataset, name: str, settings: dict[str, str]
) -> None:
    # As training compiles it on a GPU, but for the backend: this one traces and guards, and needs no compiler.
    model, whole = built(name, dataset, **settings), doubles(dataset)
    torch.compiler.reset()
    compiled = torch.compile(model, dynamic=True, backend="eager")
    for batch in (whole, whole.take(torch.tensor([3, 0, 7, 9, 12]))):
        gradients = []
        for way in (model, compiled):
            model.zero_grad(set_to_none=True)
            logits = way(batch)
            logits[:, 0].sum().backward()
            gradients.append((logits.detach(), [p.grad for p in model.parameters() if p.grad is not None]))
        torch.testing.assert_close(gradients[1], gradients[0], atol=1e-12, rtol=1e-9)
