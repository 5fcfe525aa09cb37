"""Which stages a model goes through: each encoder alone, then all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modelling.batches import COLUMNS, Batch, Dataset
from modelling.models import RiskModel
from modelling.models.base import freeze_batch_norm
from modelling.training.augment import augment_images
from modelling.training.config import TrainingConfig
from modelling.training.forecast import cut_for_forecast
from modelling.training.loop import Stage
from modelling.training.objective import auxiliary_loss, task_labels, task_loss, task_score
from modelling.training.picture_labels import Pictures, picture_stage
from modelling.training.predict import predict


@dataclass(frozen=True, kw_only=True)
class Material:
    """Training and tuning split of a run, encoded."""

    train: Dataset
    tuning: Dataset


def drop_modalities(batch: Batch, chance: float, generator: torch.Generator) -> Batch:
    """Hide one modality, drawn at random, of samples that have several, with this chance."""
    if chance <= 0:
        return batch
    present = batch.present.cpu()
    draw = torch.rand(len(batch), generator=generator)
    scores = torch.rand(present.shape, generator=generator).masked_fill(~present, -1.0)
    hide = (draw < chance) & (present.sum(1) > 1)
    present = present.clone()
    present[torch.nonzero(hide).flatten(), scores.argmax(1)[hide]] = False
    return replace(batch, present=present.to(batch.device))


def _augmented(batch: Batch, config: TrainingConfig, generator: torch.Generator) -> Batch:
    return replace(batch, image=augment_images(batch.image, generator)) if config.augment else batch


@torch.inference_mode()
def _encoder_score(
    model: RiskModel, dataset: Dataset, part: str, config: TrainingConfig, device: str
) -> float:
    model.eval()
    labels, outputs = [], []
    for batch in dataset.batches(token_budget=config.token_budget, max_samples=128):
        moved = batch.to(device)
        rows, found = model.encoder_logits(moved, part)
        labels.append(task_labels(config, moved)[rows].double().cpu().numpy())
        outputs.append(found.double().cpu().numpy())
    return task_score(config, np.concatenate(outputs), np.concatenate(labels)) if labels else 0.0


def samples_with(model: RiskModel, dataset: Dataset, part: str) -> NDArray[np.bool_]:
    """Return bool ``[n]``: the samples that have the modality that a part reads."""
    modality = model.part_modality(part)
    present: NDArray[np.bool_] = dataset.all.present.numpy()
    return np.ones(len(dataset), dtype=bool) if modality is None else present[:, COLUMNS[modality.value]]


def encoder_stage(
    model: RiskModel, material: Material, part: str, config: TrainingConfig, device: str
) -> Stage:
    """Train one encoder alone, on the training samples that have its input."""
    rows = np.flatnonzero(samples_with(model, material.train, part))

    def batch_loss(batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        kept, outputs = model.encoder_logits(_augmented(batch, config, generator), part)
        return task_loss(config, outputs, task_labels(config, batch)[kept]), torch.tensor(float(len(kept)))

    return Stage(
        name=f"{part} encoder",
        rows=lambda generator: rows,
        loss=batch_loss,
        score=lambda: _encoder_score(model, material.tuning, part, config, device),
        parameters=model.encoder_parameters(part),
        mode=lambda: _train_mode(model, freeze=False),
        epochs=config.pretrain_epochs,
        learning_rate=config.pretrain_learning_rate,
    )


def _train_mode(model: nn.Module, *, freeze: bool) -> None:
    model.train()
    if freeze:
        freeze_batch_norm(model)


def fusion_stage(
    model: RiskModel,
    material: Material,
    config: TrainingConfig,
    device: str,
    forward: Callable[[Batch], Tensor],
) -> Stage:
    """Train the whole model on every sample, or on a drawn share of those with EHR only (MedFuse OPTIMAL)."""
    present = material.train.all.present.numpy()
    alone = np.flatnonzero(present[:, 0] & ~present[:, 1:].any(axis=1))
    others = np.setdiff1d(np.arange(len(material.train)), alone)

    def rows(generator: np.random.Generator) -> NDArray[np.int64]:
        drawn = generator.permutation(alone)[: round(config.unimodal_ratio * alone.size)]
        return np.sort(np.concatenate([others, drawn]))

    def batch_loss(batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        shown = drop_modalities(_augmented(batch, config, generator), config.modality_dropout, generator)
        outputs = forward(shown).float()
        total = task_loss(config, outputs, task_labels(config, batch)) + auxiliary_loss(
            config, outputs, batch
        )
        return total, torch.tensor(float(len(batch)))

    def score() -> float:
        outputs = predict(
            model,
            material.tuning,
            device=device,
            token_budget=config.token_budget,
            precision=config.precision,
        )
        return task_score(config, outputs, task_labels(config, material.tuning.all).double().numpy())

    return Stage(
        name="fusion",
        rows=rows,
        loss=batch_loss,
        score=score,
        parameters=model.fusion_parameters(),
        mode=lambda: _train_mode(model, freeze=config.freeze_batch_norm and config.pretrain_epochs > 0),
        epochs=config.epochs,
        learning_rate=config.learning_rate,
    )


def forecast_stage(model: RiskModel, material: Material, config: TrainingConfig) -> Stage:
    """Learn, without labels, to forecast the next hours' values (STraTS, section on self-supervision)."""
    rows = np.flatnonzero(material.train.all.present[:, 0].numpy())
    tuning = np.flatnonzero(material.tuning.all.present[:, 0].numpy())

    def batch_loss(batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        past, values, known = cut_for_forecast(batch, generator)
        forecast = model.forecast_values(past).float()[:, : values.shape[1]]
        return ((forecast - values)[known] ** 2).sum(), known.sum().cpu()

    @torch.inference_mode()
    def score() -> float:
        model.eval()
        generator = torch.Generator().manual_seed(0)
        device = next(model.parameters()).device
        total, count = 0.0, 0.0
        for start in range(0, tuning.size, 128):
            loss, n = batch_loss(material.tuning.batch(tuning[start : start + 128]).to(device), generator)
            total, count = total + float(loss), count + float(n)
        return -total / max(count, 1.0)

    return Stage(
        name="forecasting",
        rows=lambda generator: rows,
        loss=batch_loss,
        score=score,
        parameters=model.forecast_parameters(),
        mode=lambda: _train_mode(model, freeze=False),
        epochs=config.forecast_epochs,
        learning_rate=config.pretrain_learning_rate,
    )


def plan_stages(
    model: RiskModel,
    material: Material,
    config: TrainingConfig,
    device: str,
    forward: Callable[[Batch], Tensor],
    pictures: Pictures | None = None,
) -> list[Stage]:
    """Return the stages of a model; an encoder whose modality no training sample has is left as it is."""
    stages: list[Stage] = []
    if config.pretrain_epochs:
        stages = [
            encoder_stage(model, material, part, config, device)
            for part in model.pretrained
            if samples_with(model, material.train, part).any()
        ]
    if config.forecast_epochs and model.forecast_parameters():
        stages.insert(0, forecast_stage(model, material, config))
    if pictures is not None and config.pretrain_epochs:
        stages.insert(0, picture_stage(model, pictures, config))
    return [*stages, fusion_stage(model, material, config, device, forward)]
