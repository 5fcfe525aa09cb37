"""What a batch is made of: sizes and windows that are chosen, not learnt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

STANDARD_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


@dataclass(frozen=True, kw_only=True)
class SignalSettings:
    """Preparation of a twelve-lead ECG (MedM2T 2025, section on ECG preprocessing).

    Attributes
    ----------
    rate
        Target sampling rate, Hz.
    start, length
        First sample and number of samples kept, at the target rate (300 and 640: 2.4 s to 7.52 s).
    low, high, order
        Butterworth band pass, Hz.
    """

    rate: float = 125.0
    start: int = 300
    length: int = 640
    low: float = 0.5
    high: float = 40.0
    order: int = 3


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """Preparation of a radiograph: resize the short side, crop the centre (MedFuse 2022, appendix).

    Attributes
    ----------
    size
        Side of the square that the encoder sees, pixels.
    resize
        Length of the short side before the crop; the paper has 256 for 224.
    mean, standard_deviation
        Of grey levels in 0-1; the grey equivalents of ImageNet's.
    """

    size: int = 224
    resize: int = 256
    mean: float = 0.449
    standard_deviation: float = 0.226


@dataclass(frozen=True, kw_only=True)
class EncodingSettings:
    """Choices that go into an :class:`modelling.batches.encoding.Encoding`.

    Attributes
    ----------
    step_hours, grid_hours
        Width of a grid bin and span of the grid; MedFuse 2022 has 1 h (its code) or 2 h (its text) over 48 h.
    token_window_hours
        When given, values of one feature within a window of this width become one token (their mean, or
        the last level); None keeps every value.
    max_tokens
        Most recent tokens kept a sample.
    min_samples
        A feature seen in fewer training samples is left out: its embedding could not be learnt.
    clip
        Bound on standardised values.
    log_skewed
        Standardise the logarithm of non-negative features whose training skewness exceeds 2.
    recording_lookback_hours
        How far before the prediction time ECGs and images may lie, when that is further than the
        sample's own look-back start; None keeps to the look-back start.
    """

    step_hours: float = 1.0
    grid_hours: float = 48.0
    token_window_hours: float | None = None
    max_tokens: int = 1024
    min_samples: int = 5
    clip: float = 6.0
    log_skewed: bool = True
    recording_lookback_hours: float | None = None
    signal: SignalSettings = field(default_factory=SignalSettings)
    image: ImageSettings = field(default_factory=ImageSettings)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Build settings from (part of) :meth:`to_dict`'s result; what is absent keeps its default."""
        values = dict(fields)
        if isinstance(values.get("signal"), Mapping):
            values["signal"] = SignalSettings(**values["signal"])
        if isinstance(values.get("image"), Mapping):
            values["image"] = ImageSettings(**values["image"])
        return cls(**values)
