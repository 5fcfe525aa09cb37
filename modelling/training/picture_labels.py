"""Pre-training of the image encoder on radiologists' labels, before it ever sees a task (MedFuse 2022, 4.2).

The labels are targets only: they are made from reports that are later than the picture. Studies of tuning
and held-out patients take no part in the training, whether or not these patients have a sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from modelling.batches import Batch, Dataset, Encoding, prepare
from modelling.errors import TrainingError
from modelling.models import RiskModel
from modelling.models.base import latest
from modelling.training.augment import augment_images
from modelling.training.config import TrainingConfig
from modelling.training.loop import Stage
from modelling.training.objective import ranking_score
from modelling.training.split import HELD_OUT, TUNING
from validation.contracts import empty

KEYS = ("subject_id", "study_uid")


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Labelled studies of training and tuning patients, encoded; one sample a study, read by its latest image.

    The first label is ``Batch.label``, the others are the columns of ``Batch.auxiliary``.
    """

    train: Dataset
    tuning: Dataset
    names: tuple[str, ...]


def labelled_studies(
    images: pl.DataFrame, image_labels: pl.DataFrame
) -> tuple[pl.DataFrame, NDArray[np.float64], tuple[str, ...]]:
    """Return one sample a study that has both images and labels, its labels ``[n, k]``, and their names.

    A label is 1 where the report affirms it; denied, uncertain and unmentioned are 0, as in MedFuse 2022.

    Parameters
    ----------
    images
        Rows of that contract.
    image_labels
        ``subject_id``, ``study_uid``, ``label``, ``mention`` (positive, negative or uncertain).

    Raises
    ------
    TrainingError
        If no study has both.
    """
    names = tuple(sorted(image_labels["label"].unique()))
    labels = image_labels.group_by(*KEYS).agg(
        ((pl.col("label") == name) & (pl.col("mention") == "positive")).any().alias(name) for name in names
    )
    studies = (
        images.group_by(*KEYS)
        .agg(
            pl.col("time").min().alias("lookback_start"),
            pl.col("available_time").max().alias("prediction_time"),
        )
        .join(labels, on=list(KEYS), how="inner")
        .sort(KEYS)
    )
    if studies.is_empty():
        raise TrainingError("no study has both images and labels")
    samples = studies.select(
        "subject_id",
        "prediction_time",
        boolean_value=pl.lit(None, pl.Boolean),
        float_value=pl.lit(None, pl.Float64),
        encounter_id=pl.format("study {}", "study_uid"),
        task=pl.lit("image-labels"),
        lookback_start="lookback_start",
    ).cast(empty("samples").schema)
    return samples, studies.select(pl.col(names).cast(pl.Float64)).to_numpy(), names


def prepare_pictures(
    images: pl.DataFrame,
    image_labels: pl.DataFrame,
    *,
    split: Mapping[int, str],
    encounters: pl.DataFrame,
    run_folder: Path,
    encoding: Encoding,
) -> Pictures:
    """Encode the labelled studies.

    Parameters
    ----------
    split
        Of the task; patients that it does not name may train.

    Raises
    ------
    TrainingError
        If training or tuning patients have no labelled study.
    """
    samples, values, names = labelled_studies(images, image_labels)
    where = np.array([split.get(subject, "") for subject in samples["subject_id"]])
    parts = []
    for rows in (np.flatnonzero((where != TUNING) & (where != HELD_OUT)), np.flatnonzero(where == TUNING)):
        if not rows.size:
            raise TrainingError("training and tuning patients both need labelled images")
        dataset = prepare(
            samples=samples[rows],
            encounters=encounters,
            events=empty("events"),
            recordings=empty("recordings"),
            images=images,
            run_folder=run_folder,
            encoding=encoding,
        )
        parts.append(dataset.with_targets(label=values[rows, 0], auxiliary=values[rows, 1:]))
    return Pictures(train=parts[0], tuning=parts[1], names=names)


def _labels(batch: Batch) -> Tensor:
    return torch.cat([batch.label.unsqueeze(1), batch.auxiliary], dim=1)


def picture_stage(model: RiskModel, pictures: Pictures, config: TrainingConfig) -> Stage:
    """Train the image encoder on the labels; judged by the mean average precision of tuning studies."""
    readable = [np.flatnonzero(part.all.present[:, 2].numpy()) for part in (pictures.train, pictures.tuning)]

    def logits(batch: Batch) -> Tensor:
        rows = torch.arange(len(batch), device=batch.device)
        return model.picture_logits(batch.image[latest(batch.image_offsets, rows)])

    def batch_loss(batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = torch.arange(len(batch), device=batch.device)
        chosen = batch.image[latest(batch.image_offsets, rows)]
        shown = augment_images(chosen, generator) if config.augment else chosen
        labels = _labels(batch)
        loss = binary_cross_entropy_with_logits(model.picture_logits(shown).float(), labels, reduction="sum")
        return loss / labels.shape[1], torch.tensor(float(len(batch)))

    def train_mode() -> None:
        model.train()

    @torch.inference_mode()
    def score() -> float:
        model.eval()
        device = next(model.parameters()).device
        found, labels = [], []
        for start in range(0, readable[1].size, 64):
            batch = pictures.tuning.batch(readable[1][start : start + 64]).to(device)
            found.append(logits(batch).double().cpu().numpy())
            labels.append(_labels(batch).double().cpu().numpy())
        if not found:
            return 0.0
        predicted, truth = np.concatenate(found), np.concatenate(labels)
        varying = [k for k in range(truth.shape[1]) if 0 < truth[:, k].sum() < len(truth)]
        return float(np.mean([ranking_score(truth[:, k], predicted[:, k]) for k in varying] or [0.0]))

    return Stage(
        name="image labels",
        dataset=pictures.train,
        rows=lambda generator: readable[0],
        loss=batch_loss,
        score=score,
        parameters=model.picture_parameters(),
        mode=train_mode,
        epochs=config.pretrain_epochs,
        learning_rate=config.pretrain_learning_rate,
    )
