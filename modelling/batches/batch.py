"""The one thing that every model reads: ragged tensors of a few samples, without padding."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import StrEnum

import torch
from torch import Tensor


class Modality(StrEnum):
    """The kinds of input; the order is that of the columns of ``Batch.present`` and of MedFuse's sequence."""

    EHR = "ehr"
    ECG = "ecg"
    CXR = "cxr"


MODALITIES: tuple[Modality, ...] = tuple(Modality)
COLUMNS = {modality.value: column for column, modality in enumerate(MODALITIES)}
"""Column of ``Batch.present`` by a modality's *text*.

What is looked up by the member itself, torch.compile (2.15) looks up once: code that it traced for one member
is run for the others with the first one's result. Models look up by ``modality.value`` for the same reason.
"""
STATIC_NAMES = ("age", "age_known", "male", "female")


_TOKEN = ("feature", "level", "value", "raw", "hours", "token_row")
_ECG = ("ecg", "ecg_features", "ecg_terms", "ecg_hours", "ecg_row")
_IMAGE = ("image", "image_hours", "image_row")
_SAMPLE = ("static", "lookback", "present", "label", "number", "auxiliary", "sample")


def spans(offsets: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return positions of the items of ``rows`` in a ragged array, and the new offsets.

    Parameters
    ----------
    offsets
        int64 ``[n + 1]``.
    rows
        int64 ``[m]``, may repeat.

    Returns
    -------
    positions, offsets
        int64 ``[total]`` and int64 ``[m + 1]``.
    """
    lengths = (offsets[1:] - offsets[:-1])[rows]
    new = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    shift = torch.repeat_interleave(offsets[:-1][rows] - new[:-1], lengths)
    return torch.arange(int(new[-1]), device=offsets.device) + shift, new


def owners(offsets: Tensor) -> Tensor:
    """Return the sample of every item, int64 ``[offsets[-1]]``."""
    return torch.repeat_interleave(torch.arange(offsets.numel() - 1, device=offsets.device), offsets.diff())


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Tensors of ``n`` samples. Items of one sample are contiguous; ``*_offsets`` (``[n + 1]``) bound them.

    Attributes
    ----------
    feature, level
        int64 ``[tokens]``: vocabulary index (1 ...) and level index of categorical features (0 = none).
    value, raw
        float ``[tokens]``: standardised value, and the value in its canonical unit.
    hours
        float ``[tokens]``: hours before the prediction time; tokens of a sample run from old to new.
    token_row
        int64 ``[tokens]``: position in the events table, so that a score can name its source.
    token_offsets, ecg_offsets, image_offsets
        int64 ``[n + 1]``.
    ecg
        float ``[recordings, 12, length]`` in millivolts, or ``[recordings, d]`` once embedded.
    ecg_features
        float ``[recordings, k]``: standardised machine measurements, NaN where unknown (k may be 0).
    ecg_terms
        float ``[recordings, k]``: 1 where the recording's report has the term (k may be 0).
    image
        uint8 or float ``[images, 1, size, size]``, or ``[images, d]`` once embedded.
    ecg_hours, ecg_row, image_hours, image_row
        As for tokens.
    static
        float ``[n, 4]``: :data:`STATIC_NAMES`; an unknown age is 0 with ``age_known`` 0.
    lookback
        float ``[n]``: hours from the look-back start to the prediction time.
    present
        bool ``[n, 3]`` in the order of :data:`MODALITIES`. A model must not look at a modality whose
        entry is false, so leaving a modality out is clearing a column.
    label, number
        float ``[n]``: ``boolean_value`` as 0 or 1, and ``float_value``; NaN where null.
    auxiliary
        float ``[n, k]``: further targets of training, NaN where unknown (k may be 0).
    sample
        int64 ``[n]``: position in the samples table.
    """

    feature: Tensor
    level: Tensor
    value: Tensor
    raw: Tensor
    hours: Tensor
    token_row: Tensor
    token_offsets: Tensor
    ecg: Tensor
    ecg_features: Tensor
    ecg_terms: Tensor
    ecg_hours: Tensor
    ecg_row: Tensor
    ecg_offsets: Tensor
    image: Tensor
    image_hours: Tensor
    image_row: Tensor
    image_offsets: Tensor
    static: Tensor
    lookback: Tensor
    present: Tensor
    label: Tensor
    number: Tensor
    auxiliary: Tensor
    sample: Tensor

    def __len__(self) -> int:
        """Return the number of samples."""
        return int(self.static.shape[0])

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.static.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating point type of the inputs."""
        return self.static.dtype

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Batch:
        """Move to a device and cast the floating tensors; images stay bytes until an encoder reads them.

        On the way to a GPU they pass through pinned memory, so that the copy does not hold up the caller.
        """
        pin = device is not None and torch.device(device).type == "cuda" and self.device.type == "cpu"
        moved = {}
        for item in fields(self):
            tensor: Tensor = getattr(self, item.name)
            tensor = tensor.pin_memory() if pin else tensor
            moved[item.name] = tensor.to(
                device, dtype if tensor.is_floating_point() else None, non_blocking=True
            )
        return Batch(**moved)

    def take(self, rows: Tensor) -> Batch:
        """Return samples ``rows`` (int64 ``[m]``, may repeat) in that order."""
        token, token_offsets = spans(self.token_offsets, rows)
        ecg, ecg_offsets = spans(self.ecg_offsets, rows)
        image, image_offsets = spans(self.image_offsets, rows)
        return Batch(
            **{name: getattr(self, name)[token] for name in _TOKEN},
            **{name: getattr(self, name)[ecg] for name in _ECG},
            **{name: getattr(self, name)[image] for name in _IMAGE},
            **{name: getattr(self, name)[rows] for name in _SAMPLE},
            token_offsets=token_offsets,
            ecg_offsets=ecg_offsets,
            image_offsets=image_offsets,
        )

    def _keep(self, kind: str, names: tuple[str, ...], column: int, keep: Tensor) -> Batch:
        offsets = getattr(self, f"{kind}_offsets")
        counts = torch.zeros(len(self), dtype=torch.int64, device=self.device)
        counts.index_add_(0, owners(offsets), keep.long())
        present = self.present.clone()
        present[:, column] &= counts > 0
        return replace(
            self,
            **{name: getattr(self, name)[keep] for name in names},
            **{f"{kind}_offsets": torch.cat([counts.new_zeros(1), counts.cumsum(0)])},
            present=present,
        )

    def keep_tokens(self, keep: Tensor) -> Batch:
        """Drop tokens where ``keep`` (bool ``[tokens]``) is false; a sample left without any has no EHR."""
        return self._keep("token", _TOKEN, 0, keep)

    def keep_recordings(self, keep: Tensor) -> Batch:
        """Drop recordings where ``keep`` (bool ``[recordings]``) is false."""
        return self._keep("ecg", _ECG, 1, keep)

    def keep_images(self, keep: Tensor) -> Batch:
        """Drop images where ``keep`` (bool ``[images]``) is false."""
        return self._keep("image", _IMAGE, 2, keep)

    def without(self, *modalities: Modality) -> Batch:
        """Return the batch as if these modalities had not been recorded."""
        present = self.present.clone()
        for modality in modalities:
            present[:, COLUMNS[modality.value]] = False
        return replace(self, present=present)

    def has(self, modality: Modality) -> Tensor:
        """Return bool ``[n]``: which samples may use the modality."""
        return self.present[:, COLUMNS[modality.value]]
