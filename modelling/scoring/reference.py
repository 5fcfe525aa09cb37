"""What a night is compared with: inputs, embeddings and scores of the data that a model learnt from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from modelling.batches import Modality, prepare
from modelling.batches.arrays import picture_reader, signal_reader
from modelling.registry.folder import ModelFolder, read_folder
from modelling.scoring.embeddings import EmbeddingStore
from modelling.scoring.model import ScoringModel, scoring_model
from modelling.scoring.score import score_samples
from modelling.training.split import TRAIN, part, split_subjects
from validation.contracts import empty
from validation.drift import (
    SMALLEST_SAMPLE,
    FloatArray,
    Reference,
    build_reference,
    embedding_values,
    find_axes,
    input_values,
    score_values,
)

FOLDER = "reference"
"""Folder of the reference inside a model folder; it is no part of the digest, since no score depends on it."""

MOST_ITEMS = 500
"""Recordings or images that are compared: enough to see a shift of a quarter of a standard deviation."""


def chosen_samples(samples: pl.DataFrame, items: pl.DataFrame, most: int) -> pl.DataFrame:
    """Return at most ``most`` samples of patients who have an item, one a patient, the same every time."""
    held = samples.join(items.select("subject_id").unique(), on="subject_id", how="semi")
    one = held.sort("subject_id", "prediction_time").unique("subject_id", keep="last", maintain_order=True)
    return one.sort(pl.col("subject_id").hash(0), "subject_id").head(most).sort("subject_id")


@torch.inference_mode()
def embed_latest(
    model: ScoringModel,
    modality: Modality,
    *,
    samples: pl.DataFrame,
    encounters: pl.DataFrame,
    items: pl.DataFrame,
    run_folder: Path,
    embeddings: Path | None = None,
    most: int = MOST_ITEMS,
) -> NDArray[np.float64]:
    """Return the embeddings ``[n, d]`` of the latest ECG or image that samples knew, one a patient.

    Parameters
    ----------
    items
        Rows of ``recordings`` or ``images``; an array that cannot be read is left out.
    run_folder
        Folder that ``array_path`` is relative to.
    embeddings
        Folder of an :class:`EmbeddingStore`, so that scoring need not encode the same items again.
    """
    if model.encoders is None or modality not in model.encoders.digests:
        return np.zeros((0, 0))
    ecg = modality is Modality.ECG
    read = (signal_reader if ecg else picture_reader)(run_folder, model.encoding)
    reader = model.encoders.reader(read, modality, EmbeddingStore(embeddings))
    dataset = prepare(
        samples=chosen_samples(samples, items, most),
        encounters=encounters,
        events=empty("events"),
        recordings=items if ecg else empty("recordings"),
        images=empty("images") if ecg else items,
        run_folder=run_folder,
        encoding=model.encoding,
        modalities=(modality,),
        latest_only=True,
        read_signals=reader if ecg else None,
        read_pictures=None if ecg else reader,
    )
    found = dataset.signals if ecg else dataset.pictures
    if not len(dataset.all.ecg if ecg else dataset.all.image):
        return np.zeros((0, 0))
    return found.flatten(1).double().numpy()


def reference_embeddings(
    modality: Modality, embeddings: FloatArray
) -> tuple[pl.DataFrame, tuple[FloatArray, FloatArray]] | None:
    """Return the values and axes of a modality, or None where there are too few embeddings.

    The axes are found on one half and the values taken from the other: along axes fitted to themselves,
    embeddings spread wider than any new ones.
    """
    if len(embeddings) < 2 * SMALLEST_SAMPLE:
        return None
    axes = find_axes(embeddings[::2])
    return embedding_values(str(modality), embeddings[1::2], axes), axes


def unseen_samples(folder: ModelFolder, samples: pl.DataFrame) -> pl.DataFrame:
    """Return the labelled samples that the weights were not fitted to, or all where the folder cannot tell.

    A network knows its own training recordings too well: new ones would always look drifted.
    """
    training = folder.config.get("training", {})
    shares = {name: training.get(name) for name in ("tuning_share", "held_out_share")}
    if None in shares.values() or samples["boolean_value"].is_null().all():
        return samples
    names = split_subjects(samples, **shares, seed=int(folder.config.get("seed", 0)))
    fitted = part(samples, names, TRAIN)
    return samples.join(fitted.select("subject_id").unique(), on="subject_id", how="anti")


def write_reference(
    path: Path,
    *,
    samples: pl.DataFrame,
    encounters: pl.DataFrame,
    events: pl.DataFrame,
    recordings: pl.DataFrame,
    images: pl.DataFrame,
    run_folder: Path,
    unseen: pl.DataFrame | None = None,
    scores: pl.DataFrame | None = None,
    embeddings: Path | None = None,
) -> Reference:
    """Sketch the data that a model learnt from into ``reference/`` of its folder.

    Parameters
    ----------
    path
        Model folder.
    samples
        What :func:`modelling.training.train` was given: the last values that they knew are the reference of
        the inputs.
    unseen
        Those of them that the weights were not fitted to, for scores and embeddings; None asks
        :func:`unseen_samples`.
    scores
        ``kind`` (score), ``name`` (task), ``value``, where scores of unseen samples are known already;
        None scores them.
    """
    folder = read_folder(path)
    model = scoring_model(folder)
    unseen = unseen_samples(folder, samples) if unseen is None else unseen
    values, axes = [input_values(events, samples)], {}
    if scores is None:
        found, _ = score_samples(
            model,
            samples=unseen,
            encounters=encounters,
            events=events,
            recordings=recordings,
            images=images,
            run_folder=run_folder,
            site="reference",
            embeddings=embeddings,
            explain=False,
        )
        scores = score_values(found)
    values.append(scores)
    for modality, items in ((Modality.ECG, recordings), (Modality.CXR, images)):
        vectors = embed_latest(
            model,
            modality,
            samples=unseen,
            encounters=encounters,
            items=items,
            run_folder=run_folder,
            embeddings=embeddings,
        )
        sketched = reference_embeddings(modality, vectors)
        if sketched is not None:
            values.append(sketched[0])
            axes[str(modality)] = sketched[1]
    reference = build_reference(values, asked=samples.height, axes=axes)
    reference.save(path / FOLDER)
    return reference
