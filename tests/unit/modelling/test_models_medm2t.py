"""MedM2T's encoders against slow references, and each defect of the released code (models.md 1.7)."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from synthetic_ward import FEATURES, Ward, catalogue, ward
from torch import nn

from modelling.batches import EncodingSettings, ImageSettings, Modality, SignalSettings, fit_encoding, prepare
from modelling.models import build_model
from modelling.models.bimodal import BimodalFusion, ModalityTokens
from modelling.models.vitals import POINTS

SMALL = {
    "width": 16,
    "heads": 4,
    "static_width": 6,
    "series_width": 12,
    "vitals_width": 12,
    "ecg_width": 8,
    "micro_width": 8,
    "micro_heads": 2,
    "image_layers": (1, 1),
    "image_width": 4,
    "signal_channels": (6, 8),
    "signal_strides": (4, 4),
}


@pytest.fixture(scope="module")
def stays(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    folder: Path = tmp_path_factory.mktemp("medm2t")
    return ward(folder, n=64, seed=17, ehr_share=0.85, ecg_share=0.6, image_share=0.5, pixels=40, values=8)


@pytest.fixture(scope="module")
def findings(stays: Ward) -> pl.DataFrame:
    """What machine and reader say: intervals, an axis with a gap, terms of the report for some."""
    rng = np.random.default_rng(0)
    rows: list[tuple[str, str, float | None]] = []
    for recording in stays.recordings["recording_id"].to_list():
        rows.append((recording, "rr_interval", float(rng.normal(800, 100))))
        if rng.random() < 0.6:
            rows.append((recording, "qrs_axis", float(rng.normal(30, 20))))
        rows += [(recording, term, None) for term in ("sinus rhythm", "st elevation") if rng.random() < 0.5]
    return pl.DataFrame(
        rows, schema={"recording_id": pl.String, "name": pl.String, "value": pl.Float64}, orient="row"
    )


@pytest.fixture(scope="module")
def dataset(stays: Ward, findings: pl.DataFrame):
    encoding = fit_encoding(
        samples=stays.samples,
        encounters=stays.encounters,
        events=stays.events,
        recordings=stays.recordings,
        catalogue=catalogue(),
        findings=findings,
        settings=EncodingSettings(image=ImageSettings(size=32, resize=36), signal=SignalSettings(length=320)),
    )
    return prepare(**stays.tables(), encoding=encoding, findings=findings)


def medm2t(dataset, **changes) -> nn.Module:
    torch.manual_seed(3)
    model = build_model("medm2t", dataset.encoding, {**SMALL, **changes})
    for part in model.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2.0)
    for name, parameter in model.named_parameters():
        if "missing" in name:
            nn.init.normal_(parameter)
    return model.double().eval()


def doubles(dataset):
    return dataset.batch(np.arange(len(dataset))).to(dtype=torch.float64)


def test_a_score_does_not_depend_on_batch_mates_order_or_padding(dataset) -> None:
    """The released code attends across the patients of a batch; a score alone must equal a score among 64."""
    model = medm2t(dataset)
    whole = doubles(dataset)
    with torch.no_grad():
        together = model(whole)[:, 0]
        alone = torch.cat([model(whole.take(torch.tensor([row])))[:, 0] for row in range(64)])
        order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
        permuted = model(whole.take(order))[:, 0]
    assert together.std() > 0
    assert torch.allclose(together, alone, atol=1e-12) and torch.allclose(
        permuted, together[order], atol=1e-12
    )


def tokens_of(n: int, steps: int, seed: int) -> ModalityTokens:
    values = torch.randn(n, steps, 5, generator=torch.Generator().manual_seed(seed))
    return ModalityTokens(
        values.mean(1), values, torch.ones(n, steps, dtype=torch.bool), torch.ones(n, dtype=torch.bool)
    )


def test_both_directions_of_attention_count() -> None:
    """The released code adds the first direction to itself and throws the second away."""
    torch.manual_seed(0)
    fusion = BimodalFusion({"a": 5, "b": 5}, width=8, heads=2, dropout=0.0, shared_dropout=0.0).eval()
    given = {"a": tokens_of(3, 4, 1), "b": tokens_of(3, 6, 2)}
    with torch.no_grad():
        before = fusion(given)
        for name in ("a<-b", "b<-a"):
            changed = BimodalFusion(
                {"a": 5, "b": 5}, width=8, heads=2, dropout=0.0, shared_dropout=0.0
            ).eval()
            changed.load_state_dict(fusion.state_dict())
            changed.cross[name].narrow.bias.add_(torch.randn(8))
            assert not torch.allclose(changed(given)[:, 16:], before[:, 16:], atol=1e-4)
    assert before.shape == (3, 8 * (2 + 1)) and fusion.features == 24


def test_attention_weighs_time_steps() -> None:
    """With one key, softmax is 1 and attention is a linear map; with time steps it depends on the query."""
    torch.manual_seed(0)
    fusion = BimodalFusion({"a": 5, "b": 5}, width=8, heads=2, dropout=0.0, shared_dropout=0.0).eval()
    read = fusion.cross["a<-b"].attention
    there = torch.ones(1, 6, dtype=torch.bool)
    keys = torch.randn(1, 6, 8)
    one, two = torch.randn(1, 1, 8), torch.randn(1, 1, 8)
    with torch.no_grad():
        assert not torch.allclose(read(one, keys, there), read(two, keys, there), atol=1e-4)
        assert torch.allclose(
            read(one, keys[:, :1], there[:, :1]), read(two, keys[:, :1], there[:, :1]), atol=1e-6
        )
        hidden = there.clone()
        hidden[0, 3:] = False
        assert torch.allclose(read(one, keys, hidden), read(one, keys[:, :3], there[:, :3]), atol=1e-6)


def test_what_is_absent_is_never_looked_at(dataset) -> None:
    model = medm2t(dataset)
    batch = doubles(dataset)
    for modality, name, values in (
        (Modality.EHR, "raw", float("nan")),
        (Modality.EHR, "value", float("nan")),
        (Modality.ECG, "ecg", float("nan")),
    ):
        hidden = batch.without(modality)
        with torch.no_grad():
            score = model(hidden)
            assert score.isfinite().all()
            assert torch.equal(
                score, model(replace(hidden, **{name: torch.full_like(getattr(hidden, name), values)}))
            )


def test_every_subset_of_modalities_gives_a_score_of_its_own(dataset) -> None:
    model = medm2t(dataset)
    full = int(torch.nonzero(dataset.all.present.all(1)).flatten()[0])
    batch = dataset.batch([full]).to(dtype=torch.float64)
    subsets = [[m for bit, m in enumerate(Modality) if mask >> bit & 1] for mask in range(8)]
    with torch.no_grad():
        scores = [float(model(batch.without(*(m for m in Modality if m not in kept)))) for kept in subsets]
    assert np.isfinite(scores).all() and len(set(scores)) == 8


def test_bins_and_cumulative_windows_agree_with_a_plain_loop(dataset) -> None:
    model = medm2t(dataset)
    encoding = dataset.encoding
    batch = doubles(dataset).take(torch.arange(20))
    labs = batch.keep_tokens(~model.vital[batch.feature])
    assert {feature.code for feature in encoding.features if feature.direction == "lab"} == {
        "lactate",
        "rhythm",
        "gcs-eye",
    }
    sparse = model.labs
    starts, total = {}, 1
    for index, feature in enumerate(encoding.features, start=1):
        if not model.vital[index]:
            starts[index] = total
            total += len(feature.levels) + 1 if feature.categorical else len(feature.bins) + 1
    assert sparse.value.num_embeddings == total
    edges = encoding.window_edges
    assert len(edges) == 4 == sparse.windows - 1
    with torch.no_grad():
        found = sparse.window_vectors(labs)
        for row in range(20):
            bags: list[list[torch.Tensor]] = [[] for _ in range(5)]
            for token in range(int(labs.token_offsets[row]), int(labs.token_offsets[row + 1])):
                index = int(labs.feature[token])
                feature = encoding.features[index - 1]
                raw = float(labs.raw[token])
                bin_ = (
                    feature.levels.index(raw) + 1 if feature.categorical else bisect_right(feature.bins, raw)
                )
                product = sparse.value.weight[starts[index] + bin_] * sparse.source.weight[index]
                window = 4 - bisect_right(edges, float(labs.hours[token]))  # oldest window first
                for later in range(window, 5):  # cumulative
                    bags[later].append(product)
            none = sparse.value.weight[0] * sparse.source.weight[0]
            expected = torch.stack([torch.stack(bag).mean(0) if bag else none for bag in bags])
            assert torch.allclose(found[row], expected, atol=1e-5)


def test_vitals_lie_on_a_fine_grid_carried_forward(dataset) -> None:
    model = medm2t(dataset)
    batch = doubles(dataset).take(torch.arange(8))
    grid = model.vitals.grid(batch)
    vital = [index for index in range(1, dataset.encoding.n_tokens) if model.vital[index]]
    assert len(vital) == sum(bool(benchmark) and kind == "continuous" for _, kind, benchmark, *_ in FEATURES)
    for row in range(8):
        expected = np.zeros((POINTS, len(vital)))
        for token in range(int(batch.token_offsets[row]), int(batch.token_offsets[row + 1])):
            if int(batch.feature[token]) in vital:  # tokens run from old to new: later ones overwrite
                point = POINTS - 1 - int(float(batch.hours[token]) * POINTS / 48)
                expected[max(point, 0) :, vital.index(int(batch.feature[token]))] = float(batch.value[token])
        assert np.allclose(grid[row].numpy(), expected, atol=1e-6)


def test_recordings_fall_into_windows_of_their_gap(dataset) -> None:
    model = medm2t(dataset)
    batch = doubles(dataset)
    vectors = torch.randn(
        batch.ecg.shape[0],
        model.micro.features,
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(0),
    )
    seen: list[torch.Tensor] = []
    handle = model.macro.token.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        macro = model.macro(vectors, batch)
    handle.remove()
    edges = dataset.encoding.recording_edges
    for row in range(len(batch)):
        bags: list[list[torch.Tensor]] = [[] for _ in range(len(edges) + 1)]
        for item in range(int(batch.ecg_offsets[row]), int(batch.ecg_offsets[row + 1])):
            bags[len(edges) - bisect_right(edges, float(batch.ecg_hours[item]))].append(vectors[item])
        for window, bag in enumerate(bags):
            assert bool(macro.there[row, window]) == bool(bag)
            expected = torch.stack(bag).mean(0) if bag else torch.zeros(vectors.shape[1], dtype=torch.float64)
            assert torch.allclose(seen[0][row, window], expected)


def test_measurements_and_terms_reach_the_score_and_gaps_are_masked(dataset) -> None:
    encoding = dataset.encoding
    assert [item.name for item in encoding.measurements] == ["qrs_axis", "rr_interval"]
    assert encoding.report_terms == ("sinus rhythm", "st elevation")
    batch = doubles(dataset)
    assert batch.ecg_features[:, 0].isnan().any() and not batch.ecg_features[:, 1].isnan().any()
    model = medm2t(dataset)
    has = batch.has(Modality.ECG)
    with torch.no_grad():
        before = model(batch)
        for changed in (
            replace(batch, ecg_features=torch.full_like(batch.ecg_features, float("nan"))),
            replace(batch, ecg_terms=1 - batch.ecg_terms),
        ):
            after = model(changed)
            assert after.isfinite().all()
            assert (after != before)[has].all() and torch.equal(after[~has], before[~has])


def test_without_findings_the_signal_stands_alone(stays: Ward) -> None:
    encoding = fit_encoding(
        samples=stays.samples,
        encounters=stays.encounters,
        events=stays.events,
        recordings=stays.recordings,
        catalogue=catalogue(),
        settings=EncodingSettings(image=ImageSettings(size=32, resize=36), signal=SignalSettings(length=320)),
    )
    plain = prepare(**stays.tables(), encoding=encoding)
    model = medm2t(plain)
    assert model(doubles(plain)).isfinite().all() and model.micro.fusion.names == ["signal"]


def test_parts_train_alone_and_can_be_left_out(dataset) -> None:
    model = medm2t(dataset)
    batch = doubles(dataset)
    assert model.parts == ("static", "labs", "vitals", "ecg", "cxr")
    for part in model.parts:
        rows, logits = model.encoder_logits(batch, part)
        assert logits.shape == (len(rows), 1) and len(rows) > 20
        model.zero_grad()
        logits.sum().backward()
        own = {id(parameter) for parameter in model.encoder_parameters(part)}
        moved = {id(parameter) for parameter in model.parameters() if parameter.grad is not None}
        assert moved <= own and len(moved) > 0.7 * len(own)
    fewer = medm2t(dataset, parts=("static", "labs"))
    assert fewer.modalities == (Modality.EHR,) and fewer(batch).isfinite().all()
    assert fewer.fusion.features == 16 * 3
