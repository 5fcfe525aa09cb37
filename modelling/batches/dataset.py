"""All samples of a table as columns in memory, from which batches are gathered."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from modelling.batches.arrays import ItemReader, picture_reader, signal_reader
from modelling.batches.batch import Batch, Modality
from modelling.batches.encoding import Encoding, ages
from modelling.batches.plan import plan_batches
from modelling.batches.tokens import observed_values, windowed
from modelling.cohorts.visibility import hours_between, visible


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Encoded samples. :attr:`all` holds every token, recording and image; batches are gathered from it.

    Attributes
    ----------
    all
        One :class:`Batch` of all samples, whose ``ecg`` and ``image`` are positions in ``signals`` and
        ``pictures``: a recording that several samples share is held once.
    signals, pictures
        float32 ``[unique, 12, length]`` and uint8 ``[unique, size, size]``; embeddings ``[unique, d]`` where
        the readers of :func:`prepare` encode.
    token_counts
        int64 ``[n]``.
    left_out
        Counts of values that were not used, by cause: ``feature_not_in_vocabulary``, ``beyond_max_tokens``.
    failures
        ``(sample position, source_ref, error class)`` of arrays that could not be read; those samples
        lack the item, and the caller decides what to do with them.
    """

    all: Batch
    signals: Tensor
    pictures: Tensor
    token_counts: NDArray[np.int64]
    encoding: Encoding
    left_out: dict[str, int]
    failures: tuple[tuple[int, str, str], ...]

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.all)

    def batch(self, rows: NDArray[np.int64] | Sequence[int]) -> Batch:
        """Gather the samples at these positions, in this order."""
        index = torch.as_tensor(np.asarray(rows, dtype=np.int64))
        part = self.all.take(index)
        image = self.pictures[part.image]
        return replace(
            part, ecg=self.signals[part.ecg], image=image.unsqueeze(1) if image.ndim == 3 else image
        )

    def with_targets(
        self, *, label: NDArray[np.float64] | None = None, auxiliary: NDArray[np.float64] | None = None
    ) -> Dataset:
        """Return the dataset with other targets for training.

        Parameters
        ----------
        label
            ``[n]`` in 0-1, soft labels included; None keeps ``boolean_value``.
        auxiliary
            ``[n, k]`` further targets, NaN where unknown.
        """
        changes = {}
        if label is not None:
            changes["label"] = torch.tensor(np.asarray(label), dtype=torch.float32)
        if auxiliary is not None:
            changes["auxiliary"] = torch.tensor(np.asarray(auxiliary), dtype=torch.float32).reshape(
                len(self), -1
            )
        return replace(self, all=replace(self.all, **changes))

    def batches(self, *, token_budget: int, max_samples: int = 256) -> Iterator[Batch]:
        """Yield all samples in batches of like length; see :func:`modelling.batches.plan.plan_batches`."""
        for rows in plan_batches(self.token_counts, token_budget=token_budget, max_samples=max_samples):
            yield self.batch(rows)


@dataclass(frozen=True)
class _Items:
    """Recordings or images of the samples: sorted by sample and time, arrays read once each."""

    index: Tensor
    hours: Tensor
    table_row: Tensor
    offsets: Tensor
    arrays: Tensor
    failures: list[tuple[int, str, str]]


def _offsets(rows: NDArray[np.int64], n: int) -> Tensor:
    return torch.from_numpy(np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))]).astype(np.int64))


def _items(
    table: pl.DataFrame,
    samples: pl.DataFrame,
    key: str,
    read: ItemReader,
    empty: Tensor,
    *,
    extra: float | None,
    latest: bool,
) -> _Items:
    columns = ["table_row", "subject_id", "time", "available_time", key]
    shown = visible(table.with_row_index("table_row").select(columns), samples, extra_lookback_hours=extra)
    shown = shown.sort(["row", "hours", key], descending=[False, True, False])
    if latest:
        shown = shown.group_by("row", maintain_order=True).last()
    needed = shown["table_row"].unique().sort()
    rows = table[needed].to_dicts()
    arrays: list[Tensor] = []
    place, broken = np.full(len(rows), -1, dtype=np.int64), {}
    for position, outcome in enumerate(read(rows)):
        if isinstance(outcome, Tensor):
            place[position] = len(arrays)
            arrays.append(outcome)
        else:
            broken[needed[position]] = (rows[position]["source_ref"], type(outcome).__name__)
    failures = [
        (row, *broken[position])
        for row, position in shown.filter(pl.col("table_row").is_in(list(broken)))
        .select("row", "table_row")
        .iter_rows()
    ]
    index = place[np.searchsorted(needed.to_numpy(), shown["table_row"].to_numpy())]
    shown = shown.filter(pl.Series(index >= 0, dtype=pl.Boolean))
    return _Items(
        index=torch.from_numpy(index[index >= 0]),
        hours=torch.from_numpy(shown["hours"].cast(pl.Float32).to_numpy(writable=True)),
        table_row=torch.from_numpy(shown["table_row"].cast(pl.Int64).to_numpy(writable=True)),
        offsets=_offsets(shown["row"].cast(pl.Int64).to_numpy(), samples.height),
        arrays=torch.stack(arrays) if arrays else empty,
        failures=failures,
    )


def _tokens(
    samples: pl.DataFrame, events: pl.DataFrame, encoding: Encoding
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return the tokens in order, with ``feature``, ``level`` and standardised ``value``."""
    settings, features = encoding.settings, encoding.features
    merged = settings.token_window_hours
    values = observed_values(samples, events, ordered=merged is not None)
    known = values.filter(pl.col("code").is_in(encoding.codes))
    outside = values.height - known.height
    if merged is not None:
        categorical = [feature.code for feature in features if feature.categorical]
        known = windowed(known, window_hours=merged, categorical=categorical)
    # Codes become numbers once, and what is known of a feature is looked up by number.
    place = known["code"].cast(pl.Enum(encoding.codes)).to_physical().to_numpy()
    scale = {
        "logarithm": np.array([feature.logarithm for feature in features], dtype=np.bool_),
        "mean": np.array([feature.mean for feature in features], dtype=np.float64),
        "deviation": np.array([feature.standard_deviation for feature in features], dtype=np.float64),
    }
    scaled = (
        pl.when(pl.col("logarithm")).then(pl.col("raw").clip(lower_bound=0).log1p()).otherwise(pl.col("raw"))
    )
    standardised = ((scaled - pl.col("mean")) / pl.col("deviation")).clip(-settings.clip, settings.clip)
    numbered = (
        known.drop("code")
        .with_columns(
            pl.Series("feature", place.astype(np.int64) + 1),
            *(pl.Series(name, column[place]) for name, column in scale.items()),
        )
        .with_columns(standardised.alias("value"))
        .drop(*scale)
    )
    tokens = _with_levels(numbered, encoding).sort(
        ["row", "hours", "feature", "raw", "table_row"], descending=[False, True, False, False, False]
    )
    counts = np.bincount(tokens["row"].to_numpy()) if tokens.height else np.zeros(1, dtype=np.int64)
    kept = tokens
    if counts.max() > settings.max_tokens:
        last = pl.int_range(pl.len(), dtype=pl.Int64).reverse().over("row") < settings.max_tokens
        kept = tokens.filter(last)
    return kept, {"feature_not_in_vocabulary": outside, "beyond_max_tokens": tokens.height - kept.height}


def _with_levels(tokens: pl.DataFrame, encoding: Encoding) -> pl.DataFrame:
    """Add ``level``: the level's number where a feature has levels and the value is one of them, else 0."""
    levels = pl.DataFrame(
        [
            (position, level, offset + number)
            for position, (feature, offset) in enumerate(
                zip(encoding.features, encoding.level_offsets, strict=True), start=1
            )
            for number, level in enumerate(feature.levels)
        ],
        schema={"feature": pl.Int64, "raw": pl.Float64, "level": pl.Int64},
        orient="row",
    )
    named = pl.col("feature").is_in(levels["feature"].unique().implode())
    return pl.concat(
        [
            tokens.filter(~named).with_columns(pl.lit(0, dtype=pl.Int64).alias("level")),
            tokens.filter(named)
            .join(levels, on=["feature", "raw"], how="left")
            .with_columns(pl.col("level").fill_null(0)),
        ]
    )


def _static(samples: pl.DataFrame, encounters: pl.DataFrame, encoding: Encoding) -> Tensor:
    people = ages(samples, encounters).select(
        ((pl.col("age_years") - encoding.age_mean) / encoding.age_standard_deviation)
        .fill_null(0.0)
        .alias("age"),
        pl.col("age_years").is_not_null().cast(pl.Float64).alias("age_known"),
        (pl.col("sex") == "male").cast(pl.Float64).alias("male"),
        (pl.col("sex") == "female").cast(pl.Float64).alias("female"),
    )
    return torch.from_numpy(people.to_numpy(writable=True)).float()


def _said_of(
    recordings: pl.DataFrame, findings: pl.DataFrame | None, encoding: Encoding
) -> tuple[Tensor, Tensor]:
    """Return standardised measurements (NaN: unknown) and report terms of every row of ``recordings``."""
    measured = torch.full((recordings.height, len(encoding.measurements)), float("nan"))
    terms = torch.zeros(recordings.height, len(encoding.report_terms))
    if findings is None or recordings.is_empty():
        return measured, terms
    placed = findings.join(
        recordings.with_row_index("table_row").select("table_row", "recording_id"), on="recording_id"
    )
    for target, known, values in (
        (measured, [item.name for item in encoding.measurements], placed.filter(pl.col("value").is_finite())),
        (terms, list(encoding.report_terms), placed.filter(pl.col("value").is_null())),
    ):
        columns = {name: column for column, name in enumerate(known)}
        for name, row, value in values.select("name", "table_row", "value").iter_rows():
            if name in columns:
                target[row, columns[name]] = 1.0 if value is None else value
    for column, item in enumerate(encoding.measurements):
        measured[:, column] = (measured[:, column] - item.mean) / item.standard_deviation
    clip = encoding.settings.clip
    return measured.clamp(-clip, clip), terms


def prepare(
    *,
    samples: pl.DataFrame,
    encounters: pl.DataFrame,
    events: pl.DataFrame,
    recordings: pl.DataFrame,
    images: pl.DataFrame,
    run_folder: Path,
    encoding: Encoding,
    findings: pl.DataFrame | None = None,
    modalities: Collection[Modality] = tuple(Modality),
    latest_only: bool = False,
    read_signals: ItemReader | None = None,
    read_pictures: ItemReader | None = None,
) -> Dataset:
    """Encode samples: only rows that were known at their prediction time and lie in their look-back get in.

    Parameters
    ----------
    samples, encounters, events, recordings, images
        Contract tables.
    run_folder
        Folder that ``array_path`` is relative to.
    encoding
        Fitted on training samples.
    findings
        Machine measurements and report terms of recordings; see
        :func:`modelling.batches.encoding.fit_encoding`.
    modalities
        What the model can use; recordings or images that it cannot are not read at all.
    latest_only
        Read only the latest recording and image of a sample.
    read_signals, read_pictures
        How rows become windows and squares, or embeddings; None prepares them from the run folder.
    """
    n = samples.height
    recordings = recordings if Modality.ECG in modalities else recordings.clear()
    images = images if Modality.CXR in modalities else images.clear()
    tokens, left_out = _tokens(samples, events, encoding)
    rows = tokens["row"].cast(pl.Int64).to_numpy()
    settings = encoding.settings
    choice: dict[str, Any] = {"extra": settings.recording_lookback_hours, "latest": latest_only}
    signals = _items(
        recordings, samples, "recording_id", read_signals or signal_reader(run_folder, encoding),
        torch.zeros(0, 12, settings.signal.length), **choice,
    )  # fmt: skip
    pictures = _items(
        images, samples, "image_id", read_pictures or picture_reader(run_folder, encoding),
        torch.zeros(0, settings.image.size, settings.image.size, dtype=torch.uint8), **choice,
    )  # fmt: skip

    def column(name: str, dtype: Any) -> Tensor:
        return torch.from_numpy(tokens[name].cast(dtype).to_numpy(writable=True))

    measured, terms = _said_of(recordings, findings, encoding)
    token_offsets = _offsets(rows, n)
    counts = torch.stack([token_offsets.diff(), signals.offsets.diff(), pictures.offsets.diff()], dim=1)
    lookback = samples.select(
        hours_between(pl.col("prediction_time"), pl.col("lookback_start")).alias("hours")
    )["hours"]
    labels = samples["boolean_value"].cast(pl.Float32).fill_null(float("nan"))
    numbers = samples["float_value"].cast(pl.Float32).fill_null(float("nan"))
    everything = Batch(
        feature=column("feature", pl.Int64),
        level=column("level", pl.Int64),
        value=column("value", pl.Float32),
        raw=column("raw", pl.Float32),
        hours=column("hours", pl.Float32),
        token_row=column("table_row", pl.Int64),
        token_offsets=token_offsets,
        ecg=signals.index,
        ecg_features=measured[signals.table_row],
        ecg_terms=terms[signals.table_row],
        ecg_hours=signals.hours,
        ecg_row=signals.table_row,
        ecg_offsets=signals.offsets,
        image=pictures.index,
        image_hours=pictures.hours,
        image_row=pictures.table_row,
        image_offsets=pictures.offsets,
        static=_static(samples, encounters, encoding),
        lookback=torch.from_numpy(lookback.cast(pl.Float32).to_numpy(writable=True)),
        present=counts > 0,
        label=torch.from_numpy(labels.to_numpy(writable=True)),
        number=torch.from_numpy(numbers.to_numpy(writable=True)),
        auxiliary=torch.zeros(n, 0),
        sample=torch.arange(n),
    )
    return Dataset(
        all=everything,
        signals=signals.arrays,
        pictures=pictures.arrays,
        token_counts=token_offsets.diff().numpy(),
        encoding=encoding,
        left_out=left_out,
        failures=tuple(signals.failures + pictures.failures),
    )


def build_batches(
    samples: pl.DataFrame,
    encounters: pl.DataFrame,
    events: pl.DataFrame,
    recordings: pl.DataFrame,
    images: pl.DataFrame,
    run_folder: Path,
    encoding: Encoding,
    token_budget: int = 65_536,
) -> Iterator[Batch]:
    """Encode samples and yield them in batches of at most ``token_budget`` padded tokens."""
    dataset = prepare(
        samples=samples,
        encounters=encounters,
        events=events,
        recordings=recordings,
        images=images,
        run_folder=run_folder,
        encoding=encoding,
    )
    yield from dataset.batches(token_budget=token_budget)
