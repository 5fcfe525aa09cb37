"""The columns of the events table that the row rules read, as arrays without copies where possible."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl


@dataclass(frozen=True)
class EventColumns:
    """The columns that the rules read, as arrays.

    ``feature`` is the row of ``limits``, or -1; ``numeric`` tells where a number is; ``empty`` where neither
    number nor text is; ``same_moment`` whether subject and time are those of the row before.
    """

    subject: npt.NDArray[np.int64]
    time: npt.NDArray[np.int64]
    available: npt.NDArray[np.int64]
    feature: npt.NDArray[np.int16]
    value: npt.NDArray[np.float32]
    numeric: npt.NDArray[np.bool_]
    empty: npt.NDArray[np.bool_]
    names: tuple[str, ...]
    low: npt.NDArray[np.float32]
    high: npt.NDArray[np.float32]

    @classmethod
    def of(cls, events: pl.DataFrame, limits: pl.DataFrame) -> EventColumns:
        """Read the columns of ``events``; ``limits`` holds ``code`` (sorted), ``low`` and ``high``."""
        names = limits["code"]
        ordered = limits.select(
            pl.col("low").cast(pl.Float32).fill_null(float("-inf")),
            pl.col("high").cast(pl.Float32).fill_null(float("inf")),
        )
        feature = events["code"].cast(pl.Enum(names), strict=False).to_physical().cast(pl.Int16)
        numbers = events["numeric_value"]
        absent = numbers.null_count()
        whole = np.ones(events.height, dtype=np.bool_)
        return cls(
            subject=events["subject_id"].to_numpy(),
            time=events["time"].to_physical().to_numpy(),
            available=events["available_time"].to_physical().to_numpy(),
            feature=(feature.fill_null(-1) if feature.null_count() else feature).to_numpy(),
            value=numbers.fill_null(0.0).to_numpy() if absent else numbers.to_numpy(),
            numeric=numbers.is_not_null().to_numpy() if absent else whole,
            empty=(numbers.is_null() & events["text_value"].is_null()).to_numpy() if absent else ~whole,
            names=tuple(names),
            low=ordered["low"].to_numpy(),
            high=ordered["high"].to_numpy(),
        )

    def out_of_range(self) -> npt.NDArray[np.bool_]:
        """Return which numbers lie outside their feature's limits."""
        if not self.names:
            return np.zeros(self.value.size, dtype=np.bool_)
        outside = (self.value < self.low.take(self.feature)) | (self.value > self.high.take(self.feature))
        return outside & self.numeric

    @cached_property
    def same_moment(self) -> npt.NDArray[np.bool_]:
        """Whether subject and time are those of the row before."""
        same = np.zeros(self.time.size, dtype=np.bool_)
        same[1:] = (self.subject[1:] == self.subject[:-1]) & (self.time[1:] == self.time[:-1])
        return same

    @cached_property
    def is_sorted(self) -> bool:
        """Whether rows are sorted by subject, time and feature name."""
        subject, time, feature = self.subject, self.time, self.feature
        if (subject[1:] < subject[:-1]).any():
            return False
        if ((time[1:] < time[:-1]) & (subject[1:] == subject[:-1])).any():
            return False
        return not ((feature[1:] < feature[:-1]) & self.same_moment[1:]).any()
