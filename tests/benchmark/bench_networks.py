"""Ways of :mod:`bench` that make batches and run networks; weights are random, since time does not depend on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, scaled_dot_product_attention

from modelling.batches import Batch, Dataset, EncodingSettings, Modality, fit_encoding, prepare
from modelling.batches.batch import owners
from modelling.catalogue import load_catalogue
from modelling.models import build_model, transformer
from modelling.models.tokens import Tokens, sinusoid
from modelling.registry.folder import ModelFolder
from modelling.scoring.model import ScoringModel, scoring_model
from modelling.training.calibrate import Calibration
from validation.contracts import empty

Work = Callable[[], int]
HOURS, VALUES, FEATURES = 48, 400, 41
"""Look-back, values a stay and features: the density of PhysioNet 2012, MuFuse's first data set."""
STAYS, ECG_SHARE, IMAGE_SHARE = 32, 0.60, 0.55
"""Stays of the MedFuse rows; shares are those of the demo hospital."""
BATCH = 16
NIGHT = datetime(2026, 1, 15, 4, tzinfo=UTC)


def tables(stays: int, *, images: bool = False, seed: int = 0) -> dict[str, Any]:
    """Return contract tables of synthetic stays: values at random hours, vitals more often than the rest."""
    rng = np.random.default_rng(seed)
    features = load_catalogue().features.filter(pl.col("kind") == "continuous").sort("feature").head(FEATURES)
    weight = np.where(features["direction"] == "vital", 6.0, 1.0)
    chosen = rng.choice(features.height, stays * VALUES, p=weight / weight.sum())
    low, high, normal = (features[name].to_numpy() for name in ("low", "high", "normal"))
    value = np.clip(normal[chosen] * rng.normal(1, 0.1, chosen.size), low[chosen], high[chosen])
    start = NIGHT - timedelta(hours=HOURS)
    subject = np.repeat(np.arange(stays), VALUES)
    seconds = rng.integers(0, HOURS * 3600, chosen.size)
    events = pl.DataFrame(
        {"subject_id": subject, "second": seconds, "numeric_value": value.astype(np.float32)}
    ).select(
        "subject_id",
        (pl.lit(start) + pl.duration(seconds="second")).alias("time"),
        features["feature"].gather(pl.Series(chosen)).alias("code"),
        "numeric_value",
        pl.lit(None, pl.String).alias("text_value"),
        (pl.lit(start) + pl.duration(seconds="second")).alias("available_time"),
        pl.format("e{}", "subject_id").alias("encounter_id"),
        pl.format("Observation/{}", pl.int_range(pl.len())).alias("source_ref"),
        pl.lit(False).alias("derived"),
    )
    people = pl.DataFrame({"subject_id": np.arange(stays)})
    samples = people.select(
        "subject_id",
        pl.lit(NIGHT).alias("prediction_time"),
        (pl.col("subject_id") % 7 == 0).alias("boolean_value"),
        pl.format("e{}", "subject_id").alias("encounter_id"),
        pl.lit("benchmark").alias("task"),
        pl.lit(start).alias("lookback_start"),
    )
    encounters = people.select(
        pl.format("e{}", "subject_id").alias("encounter_id"),
        "subject_id",
        pl.lit(start).alias("start"),
        pl.lit(date(1955, 3, 1)).alias("birth_date"),
        pl.lit("female").alias("sex"),
    )

    def items(share: float, key: str) -> pl.DataFrame:
        return people.filter(pl.Series(rng.random(stays) < share)).select(
            pl.format(key[0] + "{}", "subject_id").alias(key),
            "subject_id",
            pl.lit(NIGHT - timedelta(hours=5)).alias("time"),
            pl.lit(NIGHT - timedelta(hours=5)).alias("available_time"),
            pl.format("x/{}", "subject_id").alias("source_ref"),
        )

    found = {"samples": samples, "encounters": encounters, "events": events}
    found["recordings"] = items(ECG_SHARE if images else 0.0, "recording_id")
    found["images"] = items(IMAGE_SHARE if images else 0.0, "image_id")
    return {name: pl.concat([empty(name), frame], how="diagonal_relaxed") for name, frame in found.items()}


def dataset(found: dict[str, Any], settings: EncodingSettings) -> Dataset:
    """Encode synthetic stays; ECGs and radiographs are noise of the right shape."""
    fitted = fit_encoding(
        samples=found["samples"],
        encounters=found["encounters"],
        events=found["events"],
        recordings=found["recordings"],
        catalogue=load_catalogue(),
        settings=settings,
    )
    signal, side = settings.signal.length, settings.image.size

    def signals(rows: Sequence[dict[str, Any]]) -> list[Tensor | Exception]:
        return list(torch.randn(len(rows), 12, signal, generator=torch.Generator().manual_seed(1)))

    def pictures(rows: Sequence[dict[str, Any]]) -> list[Tensor | Exception]:
        generator = torch.Generator().manual_seed(2)
        return list(torch.randint(0, 255, (len(rows), side, side), dtype=torch.uint8, generator=generator))

    return prepare(**found, run_folder=Path(), encoding=fitted, read_signals=signals, read_pictures=pictures)


def ragged_batches(work: Path) -> Work:
    """Encode events as tokens and gather ragged batches."""
    del work
    found = tables(2_000)
    settings = EncodingSettings()
    fitted = dataset(found, settings).encoding

    def run() -> int:
        encoded = prepare(**found, run_folder=Path(), encoding=fitted)
        total = sum(len(batch) for batch in encoded.batches(token_budget=32_768, max_samples=64))
        assert total == len(encoded)
        return total

    return run


def padded_batches(work: Path) -> Work:
    """Lay events on windows x features: value, mask and time of every cell, as the released MuFuse reads them."""
    del work
    found = tables(2_000)
    names = found["events"]["code"].unique().sort()
    index = pl.DataFrame({"code": names, "column": np.arange(len(names))})

    def run() -> int:
        n = found["samples"].height
        placed = (
            found["events"]
            .join(
                found["samples"].with_row_index("row").select("row", "subject_id", "lookback_start"),
                on="subject_id",
            )
            .join(index, on="code")
            .with_columns(hour=(pl.col("time") - pl.col("lookback_start")).dt.total_hours())
            .filter(pl.col("hour").is_between(0, HOURS - 1))
            .group_by("row", "hour", "column")
            .agg(pl.col("numeric_value").mean())
        )
        scale = placed.group_by("column").agg(
            pl.col("numeric_value").mean().alias("m"), pl.col("numeric_value").std().alias("s")
        )
        placed = placed.join(scale, on="column")
        where = (placed["row"].to_numpy(), placed["hour"].to_numpy(), placed["column"].to_numpy())
        shape = (n, HOURS, len(names))
        value, mask, when = (
            np.zeros(shape, np.float32),
            np.zeros(shape, np.float32),
            np.zeros(shape, np.float32),
        )
        value[where] = ((placed["numeric_value"] - placed["m"]) / placed["s"]).to_numpy()
        mask[where] = 1.0
        when[where] = where[1] / HOURS
        tensors = [torch.from_numpy(array) for array in (value, mask, when)]
        return sum(len(parts[0]) for parts in zip(*(tensor.split(64) for tensor in tensors), strict=True))

    return run


def _mufuse() -> tuple[Any, Batch, Tensor]:
    data = dataset(tables(BATCH), EncodingSettings(token_window_hours=1.0, min_samples=1))
    torch.manual_seed(0)
    model = build_model(
        "mufuse", data.encoding, {"dropout": 0.0, "attention_dropout": 0.0, "head_dropout": 0.0}
    )
    batch = data.batch(np.arange(len(data)))
    return model.eval(), batch, batch.label


def _cells(model: Any, batch: Batch) -> Tensor:
    """Return logits from all windows x features as tokens; empty cells are masked keys and are not averaged."""
    encoder, config = model.encoder, model.encoder.config
    n, features = len(batch), encoder.n_features
    owner = owners(batch.token_offsets)
    window = (batch.hours / config.window_hours).floor().long().clamp(0, HOURS - 1)
    cell = (owner * HOURS + window) * features + batch.feature - 1
    size = n * HOURS * features
    value = torch.zeros(size).index_copy(0, cell, batch.value)
    level = torch.zeros(size, dtype=torch.int64).index_copy(0, cell, batch.level)
    there = torch.zeros(size, dtype=torch.bool).index_fill(0, cell, True).view(n, -1)
    feature = torch.arange(1, features + 1).repeat(n * HOURS)
    hour = torch.arange(HOURS, dtype=value.dtype).repeat_interleave(features).repeat(n)
    flat = encoder.embedding(feature, value, level) + sinusoid(hour, config.width)
    static = encoder.embedding.static(batch.static)
    tokens = Tokens(
        torch.cat([flat.view(n, -1, config.width), static.vectors], 1), torch.cat([there, static.there], 1)
    )
    x = tokens.vectors
    for layer in encoder.layers:
        x = layer(x, tokens.there)
    weight = tokens.there / tokens.there.sum(1, keepdim=True)
    return model.head((x * weight.unsqueeze(-1)).sum(1))


def _backward(forward: Callable[[], Tensor], label: Tensor, model: Any) -> Work:
    def run() -> int:
        model.zero_grad(set_to_none=True)
        binary_cross_entropy_with_logits(forward()[:, 0], label).backward()
        return len(label)

    run()
    return run


def mufuse_observed(work: Path) -> Work:
    """Forward and backward over observed tokens."""
    del work
    model, batch, label = _mufuse()
    return _backward(lambda: model(batch), label, model)


def mufuse_padded(work: Path) -> Work:
    """Forward and backward over all cells; the logits must be the same."""
    del work
    model, batch, label = _mufuse()
    with torch.no_grad():
        torch.testing.assert_close(_cells(model, batch), model(batch), rtol=1e-3, atol=1e-4)
    return _backward(lambda: _cells(model, batch), label, model)


def _mufuse_steps(stays: int = 64) -> Work:
    data = dataset(tables(stays), EncodingSettings(min_samples=1))
    torch.manual_seed(0)
    sizes = {"width": 64, "inner": 128, "heads": 4, "layers": 2, "value_width": 64}
    model = build_model("mufuse", data.encoding, sizes).train()
    batch = data.batch(np.arange(stays))
    return _backward(lambda: model(batch), batch.label, model)


def mufuse_dropout(work: Path) -> Work:
    """Forward and backward in training, attention with dropout by :mod:`modelling.models.attention`."""
    del work
    return _mufuse_steps()


def mufuse_dropout_pytorch(work: Path) -> Work:
    """The same with PyTorch's attention."""
    del work

    def attend(query: Tensor, key: Tensor, value: Tensor, there: Tensor, rate: float) -> Tensor:
        return scaled_dot_product_attention(
            query, key, value, attn_mask=there[:, None, None, :], dropout_p=rate
        )

    transformer.dropped_attention = attend  # this process measures nothing else
    return _mufuse_steps()


def _medfuse() -> tuple[ScoringModel, Dataset]:
    data = dataset(tables(STAYS, images=True), EncodingSettings(min_samples=1))
    torch.manual_seed(0)
    network = build_model("medfuse", data.encoding, {})
    config = {
        "encoding": data.encoding.to_dict(),
        "model": "medfuse",
        "model_settings": {},
        "calibration": Calibration().to_dict(),
        "thresholds": [],
        "task": "benchmark",
        "horizon_hours": 48.0,
    }
    card = {"name": "benchmark", "version": "0"}
    folder = ModelFolder(
        path=Path("b"), digest="0" * 64, config=config, card=card, weights=network.state_dict()
    )
    return scoring_model(folder, device="cpu"), data


def with_zero_images(batch: Batch) -> Batch:
    """Return the batch as the released code lays it out: everybody has an image, zeros where there is none."""
    n, side = len(batch), batch.image.shape[-1]
    image = batch.image.new_zeros(n, 1, side, side)
    have = batch.image_offsets.diff() > 0
    image[have] = batch.image[batch.image_offsets[1:][have] - 1]
    present = batch.present.clone()
    present[:, 2] = True
    zeros = torch.zeros(n)
    return replace(
        batch,
        image=image,
        image_hours=zeros,
        image_row=zeros.long(),
        image_offsets=torch.arange(n + 1),
        present=present,
    )


def medfuse_engine(work: Path) -> Work:
    """Encode what is there once, then fuse in float64, as scoring does."""
    del work
    model, data = _medfuse()
    assert model.encoders is not None
    encoders = model.encoders

    @torch.inference_mode()
    def run() -> int:
        embedded = replace(
            data,
            signals=encoders.encode(data.signals, Modality.ECG),
            pictures=encoders.encode(data.pictures, Modality.CXR),
        )
        for batch in embedded.batches(token_budget=model.network.token_budget, max_samples=512):
            model.network(batch.to(model.device, model.dtype))
        return len(data)

    run()
    return run


def medfuse_released(work: Path) -> Work:
    """Batches of 16 in float32, an absent image encoded as zeros."""
    del work
    model, data = _medfuse()
    network = model.network.float()

    @torch.inference_mode()
    def run() -> int:
        for start in range(0, len(data), BATCH):
            network(with_zero_images(data.batch(np.arange(start, min(start + BATCH, len(data))))))
        return len(data)

    run()
    return run


def _steps(layout: Callable[[Batch], Batch]) -> Work:
    model, data = _medfuse()
    network = model.network.float().train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def run() -> int:
        batch = layout(data.batch(np.arange(BATCH)))
        optimiser.zero_grad(set_to_none=True)
        binary_cross_entropy_with_logits(network(batch)[:, 0], batch.label).backward()
        optimiser.step()
        return BATCH

    run()
    return run


def medfuse_step(work: Path) -> Work:
    """One step of 16 stays; images of those that have one."""
    del work
    return _steps(lambda batch: batch)


def medfuse_step_released(work: Path) -> Work:
    """One step of 16 stays; an absent image is encoded as zeros."""
    del work
    return _steps(with_zero_images)
