"""A shard in portions of whole subjects: memory is bounded by the portion, and the next one is made ahead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from modelling.batches import Dataset, Modality, prepare
from modelling.batches.arrays import picture_reader, signal_reader
from modelling.scoring.embeddings import EmbeddingStore
from modelling.scoring.model import ScoringModel

Table = pl.DataFrame | pl.LazyFrame


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Tables of one shard; lazy ones (:func:`polars.scan_parquet`) are read a portion at a time."""

    encounters: Table
    events: Table
    recordings: Table
    images: Table
    run_folder: Path


@dataclass(frozen=True, kw_only=True)
class Portion:
    """Samples of some subjects, ready for the network; tables hold the rows that the batches point into."""

    samples: pl.DataFrame
    encounters: pl.DataFrame
    events: pl.DataFrame
    recordings: pl.DataFrame
    images: pl.DataFrame
    dataset: Dataset


def cut_samples(samples: pl.DataFrame, size: int) -> Iterator[pl.DataFrame]:
    """Cut samples, sorted by subject, into slices of at least ``size`` rows that share no subject."""
    subjects = samples["subject_id"].to_numpy()
    start = 0
    while start < samples.height:
        end = min(start + size, samples.height)
        end = int(np.searchsorted(subjects, subjects[end - 1], side="right"))
        yield samples.slice(start, end - start)
        start = end


def _rows(table: Table, samples: pl.DataFrame, *, whole: bool) -> pl.DataFrame:
    """Return the rows of these subjects; row groups of others are skipped by their statistics."""
    subjects = pl.col("subject_id").is_between(samples["subject_id"][0], samples["subject_id"][-1])
    if whole:
        return table.lazy().collect()
    return table.lazy().filter(subjects).collect()


def portions(
    model: ScoringModel,
    samples: pl.DataFrame,
    tables: Tables,
    *,
    size: int,
    store: EmbeddingStore,
) -> Iterator[Portion]:
    """Read, encode and yield a shard portion by portion.

    Parameters
    ----------
    samples
        Sorted by subject.
    size
        Samples a portion.
    store
        Where ECG and image embeddings are looked up and kept.
    """
    encoders = model.encoders
    readers = {
        Modality.ECG: signal_reader(tables.run_folder, model.encoding),
        Modality.CXR: picture_reader(tables.run_folder, model.encoding),
    }
    if encoders is not None:
        readers |= {
            modality: encoders.reader(readers[modality], modality, store) for modality in encoders.digests
        }
    whole = samples.height <= size
    for part in cut_samples(samples, size):
        frames = {
            name: _rows(getattr(tables, name), part, whole=whole)
            for name in ("encounters", "events", "recordings", "images")
        }
        # The iterator may run in a thread of its own, and inference mode belongs to a thread.
        with torch.inference_mode():
            dataset = prepare(
                samples=part,
                **frames,
                run_folder=tables.run_folder,
                encoding=model.encoding,
                modalities=model.modalities,
                latest_only=not model.network.uses_all_items,
                read_signals=readers[Modality.ECG],
                read_pictures=readers[Modality.CXR],
            )
        yield Portion(samples=part, **frames, dataset=dataset)
