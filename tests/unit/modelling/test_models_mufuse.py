"""MuFuse's equations against slow references, and the invariants of models.md 3.1."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_ward import Ward, catalogue, ward
from torch import nn

from modelling.batches import Batch, EncodingSettings, ImageSettings, Modality, fit_encoding, owners, prepare
from modelling.errors import TrainingError
from modelling.models import build_model
from modelling.models.tokens import TokenEmbedding, pad, sinusoid
from modelling.models.transformer import EncoderLayer
from modelling.training.forecast import cut_for_forecast

SMALL = {"width": 12, "inner": 20, "heads": 2, "value_width": 4, "hidden": 5, "layers": 2}


@pytest.fixture(scope="module")
def stays(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    folder: Path = tmp_path_factory.mktemp("mufuse")
    return ward(folder, n=40, seed=9, ehr_share=0.85, ecg_share=0.2, image_share=0.2, pixels=40)


@pytest.fixture(scope="module")
def dataset(stays: Ward):
    encoding = fit_encoding(
        samples=stays.samples,
        encounters=stays.encounters,
        events=stays.events,
        recordings=stays.recordings,
        catalogue=catalogue(),
        settings=EncodingSettings(token_window_hours=1.0, image=ImageSettings(size=32, resize=36)),
    )
    return prepare(**stays.tables(), encoding=encoding)


def mufuse(dataset, **changes) -> nn.Module:
    torch.manual_seed(4)
    model = build_model("mufuse", dataset.encoding, {**SMALL, **changes})
    for name, parameter in model.named_parameters():  # gamma 1 and beta 0 would hide a mistake
        if "gamma" in name or "beta" in name or "nothing" in name or "norm" in name:
            nn.init.normal_(parameter)
    return model.double().eval()


def doubles(dataset) -> Batch:
    return dataset.batch(np.arange(len(dataset))).to(dtype=torch.float64)


def test_the_generalised_hadamard_product_block_by_block(dataset) -> None:
    embedding = mufuse(dataset).encoder.embedding
    feature, value = torch.tensor([1, 2, 3]), torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    embedded = embedding(feature, value, torch.zeros(3, dtype=torch.int64))
    first, _, second = embedding.value
    for row in range(3):
        z = second.weight @ torch.tanh(first.weight[:, 0] * value[row] + first.bias) + second.bias
        scalars = embedding.gamma.weight[feature[row]] * z + embedding.beta.weight[feature[row]]
        name = embedding.feature.weight[feature[row]]
        for block in range(4):  # d / d' = 3 entries share one scalar
            part = slice(3 * block, 3 * block + 3)
            assert torch.allclose(embedded[row, part], name[part] * scalars[block])


def test_scane_is_the_case_of_one_scalar_and_the_identity(dataset) -> None:
    scane = mufuse(dataset, embedding="scane").encoder.embedding
    general = mufuse(dataset, value_width=1).encoder.embedding
    general.value = nn.Identity()
    general.gamma.weight.data.fill_(1.0)
    general.beta.weight.data.fill_(0.0)
    general.feature.load_state_dict(scane.feature.state_dict())
    feature, value = torch.tensor([1, 2]), torch.tensor([0.3, -2.0], dtype=torch.float64)
    none = torch.zeros(2, dtype=torch.int64)
    assert torch.allclose(scane(feature, value, none), general(feature, value, none))
    assert torch.allclose(scane(feature, value, none), scane.feature(feature) * value.unsqueeze(-1))


def test_the_additive_embedding_adds(dataset) -> None:
    additive = mufuse(dataset, embedding="additive").encoder.embedding
    none = torch.zeros(1, dtype=torch.int64)
    one, two = (additive(torch.tensor([k]), torch.tensor([0.7], dtype=torch.float64), none) for k in (1, 2))
    names = additive.feature.weight
    assert torch.allclose(one - names[1], two - names[2])


def test_a_categorical_value_takes_its_own_branch(dataset) -> None:
    embedding = mufuse(dataset).encoder.embedding
    feature, level = torch.tensor([2]), torch.tensor([1])
    embedded = embedding(feature, torch.tensor([9.0], dtype=torch.float64), level)
    pair = torch.cat([embedding.feature.weight[2], embedding.level.weight[1]])
    assert torch.allclose(embedded[0], torch.tanh(embedding.categorical(pair)))
    assert torch.equal(embedded, embedding(feature, torch.tensor([-9.0], dtype=torch.float64), level))
    assert not torch.allclose(
        embedded, embedding(feature, torch.tensor([9.0], dtype=torch.float64), torch.tensor([2]))
    )


def padded_grid(model, batch: Batch, windows: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    """The paper's form: all T x F cells as tokens, empty ones masked as keys. Returns outputs and the mask."""
    encoder = model.encoder
    n, features, width = len(batch), encoder.n_features, encoder.config.width
    cells = torch.zeros(n, windows, features, width, dtype=torch.float64)
    there = torch.zeros(n, windows, features, dtype=torch.bool)
    embedded = encoder.embedding(batch.feature, batch.value, batch.level)
    for token, row in enumerate(owners(batch.token_offsets).tolist()):
        window = int(batch.hours[token] // 1)
        assert not there[row, window, batch.feature[token] - 1]
        cells[row, window, batch.feature[token] - 1] = embedded[token]
        there[row, window, batch.feature[token] - 1] = True
    cells = cells + sinusoid(torch.arange(windows, dtype=torch.float64), width)[None, :, None]
    x, keys = cells.flatten(1, 2), there.flatten(1)
    for layer in encoder.layers:
        reference = (
            nn.TransformerEncoderLayer(
                width,
                encoder.config.heads,
                encoder.config.inner,
                0.0,
                "gelu",
                batch_first=True,
                norm_first=False,
            )
            .double()
            .eval()
        )
        attention = reference.self_attn
        attention.in_proj_weight.data = torch.cat(
            [layer.attention.query.weight, layer.attention.keys.weight]
        ).data
        attention.in_proj_bias.data = torch.cat([layer.attention.query.bias, layer.attention.keys.bias]).data
        attention.out_proj.load_state_dict(layer.attention.out.state_dict())
        reference.linear1.load_state_dict(layer.widen.state_dict())
        reference.linear2.load_state_dict(layer.narrow.state_dict())
        reference.norm1.load_state_dict(layer.first_norm.state_dict())
        reference.norm2.load_state_dict(layer.second_norm.state_dict())
        x = torch.stack(
            [
                reference(x[[row]], src_key_padding_mask=~keys[[row]])[0] if keys[row].any() else x[row]
                for row in range(n)
            ]
        )
    return x.view(n, windows, features, width), there


def test_observed_tokens_equal_the_padded_form(dataset) -> None:
    """Attention over observed tokens only gives what the T x F form gives for them, by torch's own encoder."""
    model = mufuse(dataset, static=False)
    batch = doubles(dataset)
    with torch.no_grad():
        grid, there = padded_grid(model, batch)
        ours = model.encoder(batch)
    assert int(there.sum()) == batch.feature.numel() == int(ours.there.sum())
    for row in range(len(batch)):
        part = slice(int(batch.token_offsets[row]), int(batch.token_offsets[row + 1]))
        expected = grid[row, batch.hours[part].floor().long(), batch.feature[part] - 1]
        assert torch.allclose(ours.vectors[row, : expected.shape[0]], expected, atol=1e-10)


def test_mean_over_all_cells_is_a_switch(dataset) -> None:
    """`pooling="all"` gives the released code's mean over the T x F grid, empty cells included."""
    whole, masked = mufuse(dataset, static=False, pooling="all"), mufuse(dataset, static=False)
    batch = doubles(dataset)
    with torch.no_grad():
        grid, there = padded_grid(whole, batch)
        rows = there.flatten(1).any(1)
        assert torch.allclose(whole.encoder.pooled(batch)[rows], grid.mean((1, 2))[rows], atol=1e-10)
        mean = (grid * there.unsqueeze(-1)).sum((1, 2))[rows] / there.sum((1, 2))[rows].unsqueeze(-1)
        assert torch.allclose(masked.encoder.pooled(batch)[rows], mean, atol=1e-10)
        assert not torch.allclose(mean, grid.mean((1, 2))[rows], atol=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"embedding": "additive", "pooling": "attention"},
        {"embedding": "scane", "pooling": "all"},
        {"pre_norm": True},
    ],
)
def test_a_score_does_not_depend_on_batch_mates_order_or_padding(dataset, changes: dict) -> None:
    model = mufuse(dataset, **changes)
    batch = doubles(dataset)
    with torch.no_grad():
        together = model(batch)[:, 0]
        alone = torch.cat([model(batch.take(torch.tensor([row])))[:, 0] for row in range(len(batch))])
        order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(2))
        permuted = model(batch.take(order))[:, 0]
    assert together.isfinite().all() and together.std() > 0
    assert torch.allclose(together, alone, atol=1e-12) and torch.allclose(
        permuted, together[order], atol=1e-12
    )


def test_the_order_of_tokens_does_not_matter(dataset) -> None:
    model = mufuse(dataset)
    batch = doubles(dataset)
    shuffle = torch.cat(
        [
            torch.arange(int(a), int(b))[
                torch.randperm(int(b - a), generator=torch.Generator().manual_seed(int(a)))
            ]
            for a, b in zip(batch.token_offsets[:-1], batch.token_offsets[1:], strict=True)
        ]
    )
    mixed = replace(
        batch,
        **{
            name: getattr(batch, name)[shuffle]
            for name in ("feature", "value", "level", "raw", "hours", "token_row")
        },
    )
    with torch.no_grad():
        assert torch.allclose(model(batch), model(mixed), atol=1e-12)


def test_without_ehr_a_sample_is_its_static_tokens_or_a_learnt_vector(dataset) -> None:
    model = mufuse(dataset)
    batch = doubles(dataset).without(Modality.EHR)
    broken = replace(batch, value=torch.full_like(batch.value, float("nan")))
    with torch.no_grad():
        assert torch.equal(model(batch), model(broken)) and model(batch).isfinite().all()
        unknown = replace(batch, static=torch.zeros_like(batch.static))
        assert torch.equal(model.encoder.pooled(unknown), model.encoder.nothing.expand(len(batch), -1))
        whole = mufuse(dataset, pooling="all")
        assert whole(unknown).isfinite().all()


def test_gradients_reach_every_parameter(dataset) -> None:
    model = mufuse(dataset).train()
    for parameter in model.parameters():
        parameter.grad = None
    batch = doubles(dataset)
    (model(batch).sum() + model.forecast_values(batch).sum()).backward()
    without = {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    }
    assert without <= {
        "encoder.look.0.weight",
        "encoder.look.0.bias",
        "encoder.look.2.weight",
        "encoder.nothing",
    }


def test_a_forecast_knows_the_past_only(dataset) -> None:
    batch = dataset.batch(np.arange(len(dataset)))
    past, values, known = cut_for_forecast(batch, torch.Generator().manual_seed(1))
    cut = batch.lookback - past.lookback
    assert (past.hours >= 0).all() and (cut >= 2).all() and (past.lookback >= 12).all()
    for row in range(len(batch)):
        own = slice(int(batch.token_offsets[row]), int(batch.token_offsets[row + 1]))
        coming = (batch.hours[own] < cut[row]) & (batch.hours[own] >= cut[row] - 2)
        expected: dict[int, list[float]] = {}
        for feature, value in zip(
            batch.feature[own][coming].tolist(), batch.value[own][coming].tolist(), strict=True
        ):
            expected.setdefault(feature, []).append(value)
        assert set(torch.nonzero(known[row]).flatten().tolist()) == set(expected)
        for feature, found in expected.items():
            assert float(values[row, feature]) == pytest.approx(float(np.mean(found)), abs=1e-5)
        assert int(past.token_offsets[row + 1] - past.token_offsets[row]) == int(
            (batch.hours[own] >= cut[row]).sum()
        )


def test_shapes_are_checked(dataset) -> None:
    with pytest.raises(TrainingError, match="does not divide"):
        build_model("mufuse", dataset.encoding, {"width": 10, "value_width": 4})
    with pytest.raises(TrainingError, match="no pooling"):
        build_model("mufuse", dataset.encoding, {"pooling": "max"})
    with pytest.raises(TrainingError, match="no embedding"):
        TokenEmbedding(dataset.encoding, kind="x", width=4, value_width=2, hidden=2)  # type: ignore[arg-type]


def test_padding_and_codes() -> None:
    tokens = pad(torch.arange(6.0).view(3, 2), torch.tensor([0, 1, 1, 3]))
    assert tokens.there.tolist() == [[True, False], [False, False], [True, True]]
    assert tokens.vectors[2].tolist() == [[2.0, 3.0], [4.0, 5.0]] and not tokens.vectors[1].any()
    code = sinusoid(torch.tensor([0.0, 3.0]), 5)
    assert (
        code.shape == (2, 5)
        and code[0].tolist() == [0, 1, 0, 1, 0]
        and code[1, 0] == torch.sin(torch.tensor(3.0))
    )
    layer = EncoderLayer(8, 2, 8, dropout=0.0, attention_dropout=0.0)
    assert layer(torch.zeros(2, 3, 8), torch.zeros(2, 3, dtype=torch.bool)).isfinite().all()
