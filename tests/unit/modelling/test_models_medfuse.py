"""MedFuse as the paper means it, and each defect of the released code as an invariant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_ward import Ward, catalogue, ward
from torch import nn

from modelling.batches import EncodingSettings, ImageSettings, Modality, fit_encoding, prepare
from modelling.batches.encoding import BENCHMARK, Encoding, FeatureEncoding, GridVariable
from modelling.errors import TrainingError
from modelling.models import build_model
from modelling.models.encoders import ImageResNet
from modelling.models.grid import Grid
from modelling.models.medfuse_baselines import FUSIONS

SMALL = {
    "hidden": 16,
    "fusion_hidden": 16,
    "image_layers": (1, 1),
    "image_width": 4,
    "signal_channels": (8, 8),
    "signal_strides": (4, 4),
}


def encoding_of(levels: dict[str, tuple[float, ...]]) -> Encoding:
    features = tuple(
        FeatureEncoding(
            code=code,
            categorical=bool(values),
            logarithm=False,
            mean=0.0,
            standard_deviation=1.0,
            levels=values,
            bins=(),
            grid_variable=-1,
            direction="lab",
            samples=9,
        )
        for code, values in levels.items()
    )
    grid = tuple(
        GridVariable(name=name, width=width, lowest=0, normal=normal, mean=0.0, standard_deviation=1.0)
        for name, (width, normal) in BENCHMARK.items()
    )
    return Encoding(
        settings=EncodingSettings(),
        features=features,
        grid=grid,
        window_edges=(),
        recording_edges=(),
        age_mean=60.0,
        age_standard_deviation=10.0,
        catalogue_digest="x",
    )


@pytest.fixture(scope="module")
def stays(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    return ward(
        tmp_path_factory.mktemp("medfuse"),
        n=64,
        seed=5,
        ehr_share=0.8,
        pixels=40,
        ecg_share=0.5,
        image_share=0.5,
    )


@pytest.fixture(scope="module")
def dataset(stays: Ward):
    encoding = fit_encoding(
        samples=stays.samples,
        encounters=stays.encounters,
        events=stays.events,
        recordings=stays.recordings,
        catalogue=catalogue(),
        settings=EncodingSettings(step_hours=2.0, image=ImageSettings(size=32, resize=36)),
    )
    return prepare(**stays.tables(), encoding=encoding)


def medfuse(dataset, **changes) -> nn.Module:
    torch.manual_seed(0)
    model = build_model("medfuse", dataset.encoding, {**SMALL, **changes})
    for (
        part
    ) in model.modules():  # running statistics unlike their initial 0 and 1, so that a test can see them
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2.0)
    return model.eval()


def start_away_from_zero(model: nn.Module) -> None:
    """Give learnt vectors that begin at zero a value, so that a test sees whether they are used."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.ndim == 1 and parameter.requires_grad and not parameter.any():
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))


def test_the_grid_has_the_benchmarks_76_channels(dataset) -> None:
    assert dataset.encoding.grid_channels == 76 == Grid(dataset.encoding).channels


def test_the_grid_agrees_with_a_plain_loop(dataset) -> None:
    """Last value in a bin, previous value, normal value, masks, merged features: against a slow reading."""
    encoding = dataset.encoding
    batch = dataset.batch(np.arange(12))
    grid, lengths = Grid(encoding)(batch)
    assert lengths.tolist() == [24] * 12
    for row in range(12):
        tokens = range(int(batch.token_offsets[row]), int(batch.token_offsets[row + 1]))
        current: dict[int, float] = {}
        for step in range(24):
            seen = set()
            for token in tokens:
                variable = encoding.features[int(batch.feature[token]) - 1].grid_variable
                elapsed = 48 - float(batch.hours[token])
                if variable >= 0 and min(int(elapsed // 2), 23) == step:
                    current[variable] = float(batch.raw[token])
                    seen.add(variable)
            expected = []
            for position, variable_ in enumerate(encoding.grid):
                value = current.get(position, variable_.normal)
                if variable_.width:
                    hot = [0.0] * variable_.width
                    hot[min(max(round(value) - variable_.lowest, 0), variable_.width - 1)] = 1.0
                    expected += hot
                else:
                    expected.append((value - variable_.mean) / variable_.standard_deviation)
            expected += [float(position in seen) for position in range(17)]
            assert np.allclose(grid[row, step].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_score_does_not_depend_on_batch_mates_order_or_padding(dataset, fusion: str) -> None:
    model = medfuse(dataset, fusion=fusion).double()
    start_away_from_zero(model)
    whole = dataset.batch(np.arange(64)).to(dtype=torch.float64)
    with torch.no_grad():
        together = model(whole)[:, 0]
        some = range(0, 64, 3)
        alone = torch.cat([model(dataset.batch([row]).to(dtype=torch.float64))[:, 0] for row in some])
        order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
        permuted = model(whole.take(order))[:, 0]
    assert together.std() > 0
    assert torch.allclose(together[::3], alone, atol=1e-12) and torch.allclose(
        permuted, together[order], atol=1e-12
    )


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_subset_of_modalities_gives_a_finite_score_of_its_own(dataset, fusion: str) -> None:
    model = medfuse(dataset, fusion=fusion)
    start_away_from_zero(model)
    full = int(torch.nonzero(dataset.all.present.all(1)).flatten()[0])
    batch = dataset.batch([full])
    subsets = [[m for bit, m in enumerate(Modality) if mask >> bit & 1] for mask in range(8)]
    with torch.no_grad():
        scores = [float(model(batch.without(*(m for m in Modality if m not in kept)))) for kept in subsets]
    assert np.isfinite(scores).all() and len(set(scores)) == 8


@pytest.mark.parametrize("fusion", FUSIONS)
def test_what_is_absent_is_never_looked_at(dataset, fusion: str) -> None:
    """A hidden modality's content must not matter, not even when it is not a number."""
    model = medfuse(dataset, fusion=fusion)
    batch = dataset.batch(np.arange(32)).without(Modality.ECG, Modality.CXR)
    with torch.no_grad():
        broken = replace(
            batch, ecg=torch.full_like(batch.ecg, float("nan")), image=torch.full_like(batch.image, 255)
        )
        assert torch.equal(model(batch), model(broken))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_absent_images_do_not_reach_batch_norm(dataset, fusion: str) -> None:
    """Training on present images among absent ones moves the statistics as training on the present ones alone."""
    both = dataset.batch(np.arange(64))
    present = torch.nonzero(both.has(Modality.CXR)).flatten()
    assert 0 < len(present) < 64
    statistics = []
    for batch in (both, both.take(present)):
        model = medfuse(dataset, fusion=fusion, dropout=0.0).train()
        model(batch)
        statistics.append(
            torch.cat(
                [part.running_mean for part in model.picture.modules() if isinstance(part, nn.BatchNorm2d)]
            )
        )
    assert torch.allclose(*statistics, atol=1e-6)
    model = medfuse(dataset, fusion=fusion).train()
    before = model.picture.bn1.running_mean.clone()
    model(both.without(Modality.CXR))
    assert torch.equal(before, model.picture.bn1.running_mean)


def test_more_modalities_are_more_steps_in_a_fixed_order(dataset) -> None:
    model = medfuse(dataset)
    batch = dataset.batch(np.arange(64))
    sequence, lengths = model.sequence(batch)
    assert torch.equal(lengths, batch.present.sum(1).clamp(min=1))
    rows, vectors = model.encode(batch, Modality.CXR)
    for row, vector in zip(rows.tolist(), vectors, strict=True):
        assert torch.allclose(sequence[row, int(batch.present[row, :2].sum())], vector)
    hidden = batch.without(*Modality)
    assert torch.equal(model.sequence(hidden)[0][:, 0], model.nothing.expand(64, -1))


def test_resnet_34_is_torchvisions(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision.models")
    reference = torchvision.resnet34(weights=None).eval()
    ours = ImageResNet((3, 4, 6, 3), 64, mean=0.0, standard_deviation=1.0, channels=3).eval()
    weights = {name: tensor for name, tensor in reference.state_dict().items() if not name.startswith("fc")}
    assert ours.state_dict().keys() == weights.keys()
    ours.load_state_dict(weights)
    images = torch.rand(2, 1, 64, 64) * 255
    with torch.no_grad():
        reference.fc = nn.Identity()
        assert torch.allclose(ours(images), reference(images.expand(-1, 3, -1, -1) / 255), atol=1e-4)


def test_encoders_train_alone(dataset) -> None:
    model = medfuse(dataset)
    batch = dataset.batch(np.arange(64))
    for modality in Modality:
        rows, logits = model.encoder_logits(batch, modality)
        assert torch.equal(rows, torch.nonzero(batch.has(modality)).flatten()) and logits.shape == (
            len(rows),
            1,
        )
        model.zero_grad()
        logits.sum().backward()
        own = {id(parameter) for parameter in model.encoder_parameters(modality)}
        moved = {id(parameter) for parameter in model.parameters() if parameter.grad is not None}
        assert moved == own


def test_joint_fusion_reads_zeros_or_a_learnt_vector_in_place_of_what_is_absent(dataset) -> None:
    batch = dataset.batch(np.arange(16)).without(Modality.CXR)
    learnt, zeros = (medfuse(dataset, fusion="joint", missing=missing) for missing in ("learnt", "zeros"))
    assert torch.equal(learnt(batch), zeros(batch))  # both begin at zero
    for model, moves in ((learnt, True), (zeros, False)):
        model(batch).sum().backward()
        gradient = model.absent["cxr"].grad
        assert (gradient is not None and bool(gradient.any())) == moves
        assert model.absent["cxr"].requires_grad == moves
    with pytest.raises(TrainingError, match="zeros or learnt"):
        medfuse(dataset, fusion="joint", missing="mean")


def test_early_fusion_leaves_the_encoders_as_they_are(dataset) -> None:
    early, joint = medfuse(dataset, fusion="early"), medfuse(dataset, fusion="joint")
    encoders = {id(p) for part in ("ehr", "ecg", "cxr") for p in early.encoder_parameters(part)}
    assert not encoders & {id(p) for p in early.fusion_parameters()}
    assert len(joint.fusion_parameters()) == len(list(joint.parameters()))


@torch.no_grad()
def test_one_unified_classifier_reads_each_modality_and_their_mean(dataset) -> None:
    model = medfuse(dataset, fusion="unified")
    batch = dataset.batch([int(torch.nonzero(dataset.all.present.all(1)).flatten()[0])])
    alone = [
        float(model(batch.without(*(other for other in Modality if other is not modality))))
        for modality in Modality
    ]
    assert float(model(batch)) == pytest.approx(np.mean(alone), abs=1e-6)  # the classifier is linear


def test_mmtm_gates_each_modality_by_all_and_a_lone_one_not_at_all(dataset) -> None:
    model = medfuse(dataset, fusion="mmtm")
    batch = dataset.batch(np.flatnonzero(dataset.all.present.all(1).numpy())[:8])
    only = batch.without(Modality.ECG, Modality.CXR)
    assert torch.allclose(model(only), model.encoder_logits(only, "ehr")[1], atol=1e-6)
    heads = [model.encoder_logits(batch, modality)[1] for modality in Modality]
    assert not torch.allclose(model(batch), sum(heads) / 3, atol=1e-3)
    with torch.no_grad():
        for gate in model.excite.values():
            gate.weight.zero_()
            gate.bias.fill_(50.0)  # gates wide open
    assert torch.allclose(model(batch), sum(heads) / 3, atol=1e-5)


def test_daft_scales_and_shifts_the_ehr_by_the_others(dataset) -> None:
    model = medfuse(dataset, fusion="daft")
    batch = dataset.batch(np.flatnonzero(dataset.all.present.all(1).numpy())[:8])
    only = batch.without(Modality.ECG, Modality.CXR)
    plain = model.head(model.encode(only, Modality.EHR)[1])
    assert torch.allclose(model(only), plain, atol=1e-6)
    assert not torch.allclose(model(batch), plain, atol=1e-4)
    with torch.no_grad():
        model.affine.weight.zero_()
    assert torch.allclose(model(batch), plain, atol=1e-6)
    with pytest.raises(TrainingError, match="daft needs the EHR"):
        medfuse(dataset, fusion="daft", modalities=("ehr",))


def test_the_lstm_on_the_ehr_alone_has_no_other_encoder(dataset) -> None:
    model = medfuse(dataset, modalities=("ehr",))
    assert model.modalities == (Modality.EHR,) and not hasattr(model, "picture")
    batch = dataset.batch(np.arange(32))
    assert torch.equal(model(batch), model(batch.without(Modality.ECG, Modality.CXR)))
    with pytest.raises(TrainingError, match="not smell"):
        medfuse(dataset, modalities=("smell",))
    with pytest.raises(TrainingError, match="no fusion 'x'"):
        medfuse(dataset, fusion="x")
