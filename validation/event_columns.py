"""The columns of the events table that the row rules read, as arrays without copies where possible."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl


@dataclass(frozen=True)
class FeatureLimits:
    """The catalogue's plausible ranges as arrays, one entry a feature, in the order of its name.

    ``low`` and ``high`` are inclusive, and infinite where there is no limit.
    """

    names: tuple[str, ...]
    low: npt.NDArray[np.float32]
    high: npt.NDArray[np.float32]

    @classmethod
    def of(cls, limits: pl.DataFrame) -> FeatureLimits:
        """Read ``code``, ``low`` and ``high`` of the catalogue's limits."""
        limits = limits.sort("code")
        low = limits["low"].cast(pl.Float32).fill_null(float("-inf"))
        high = limits["high"].cast(pl.Float32).fill_null(float("inf"))
        return cls(tuple(limits["code"]), low.to_numpy(), high.to_numpy())

    def number(self, codes: pl.Series) -> npt.NDArray[np.int16]:
        """Return the place of each code in ``names``, -1 where it has none.

        A code is known by its 64-bit hash, of which 16 bits find its place: half the time of a cast to
        ``Enum``, which serves where these bits do not tell the catalogue's codes apart.
        """
        if self._places is None:
            numbers = codes.cast(pl.Enum(self.names), strict=False).to_physical().cast(pl.Int16)
            return numbers.fill_null(-1).to_numpy()
        quarter, places = self._places
        hashes = codes.hash().to_numpy()
        number = places.take(np.ascontiguousarray(hashes.view(np.uint16)[quarter::4]))
        number[self._hashes.take(number, mode="wrap") != hashes] = -1
        return number

    @cached_property
    def _hashes(self) -> npt.NDArray[np.uint64]:
        """The hash of each name, and one more entry, which serves the number -1."""
        return np.append(pl.Series(self.names, dtype=pl.String).hash().to_numpy(), np.uint64(0))

    @cached_property
    def _places(self) -> tuple[int, npt.NDArray[np.int16]] | None:
        """The quarter of the hashes by which all names differ, and the number of a name by it."""
        for quarter in range(4):
            found = self._hashes[:-1].view(np.uint16)[quarter::4]
            if np.unique(found).size == found.size:
                places = np.full(2**16, -1, dtype=np.int16)
                places[found] = np.arange(found.size)
                return quarter, places
        return None


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
    def of(cls, events: pl.DataFrame, limits: FeatureLimits) -> EventColumns:
        """Read the columns of ``events``."""
        numbers = events["numeric_value"]
        absent = numbers.null_count()
        whole = np.ones(events.height, dtype=np.bool_)
        return cls(
            subject=events["subject_id"].to_numpy(),
            time=events["time"].to_physical().to_numpy(),
            available=events["available_time"].to_physical().to_numpy(),
            feature=limits.number(events["code"]),
            value=numbers.fill_null(0.0).to_numpy() if absent else numbers.to_numpy(),
            numeric=numbers.is_not_null().to_numpy() if absent else whole,
            empty=(numbers.is_null() & events["text_value"].is_null()).to_numpy() if absent else ~whole,
            names=limits.names,
            low=limits.low,
            high=limits.high,
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
    def shares_moment(self) -> npt.NDArray[np.bool_]:
        """Whether subject and time are those of the row before or of the row after."""
        shares = self.same_moment.copy()
        shares[:-1] |= self.same_moment[1:]
        return shares

    @cached_property
    def is_sorted(self) -> bool:
        """Whether rows are sorted by subject, time and feature name."""
        subject, time, feature = self.subject, self.time, self.feature
        if (subject[1:] < subject[:-1]).any():
            return False
        if ((time[1:] < time[:-1]) & (subject[1:] == subject[:-1])).any():
            return False
        return not ((feature[1:] < feature[:-1]) & self.same_moment[1:]).any()
