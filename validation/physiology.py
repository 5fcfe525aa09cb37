"""Contradictions between features of one patient at one moment.

A row is called contradictory only when no reading of the moment's values can be right: two
pressures taken by cuff and by arterial line at the same minute may differ, so a systolic value
is refused only when it lies at or below *every* diastolic value of that moment.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from validation.event_columns import EventColumns

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Ordered:
    """``upper`` must exceed ``lower``, or with a ``tolerance`` fall below it by no more than that."""

    upper: str
    lower: str
    tolerance: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Total:
    """``total`` must be the sum of ``parts`` where all of them were taken at that moment."""

    total: str
    parts: tuple[str, ...]
    tolerance: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Contradictions:
    """The cross-feature rules, by catalogue feature keys, in the order in which they are applied.

    A row that one rule contradicts is no witness for the next: a disconnected arterial line that gives 0
    over 0 must not take the mean pressure with it.
    """

    ordered: tuple[Ordered, ...] = ()
    totals: tuple[Total, ...] = ()

    @property
    def features(self) -> frozenset[str]:
        """Every feature that a rule names."""
        pairs = {name for rule in self.ordered for name in (rule.upper, rule.lower)}
        sums = {name for rule in self.totals for name in (rule.total, *rule.parts)}
        return frozenset(pairs | sums)


def _pressures(site: str) -> tuple[Ordered, ...]:
    """Return the order of pressures taken in one way; cuff and arterial line are never compared."""
    high, mean, low = (f"{name}_bp{site}" for name in ("systolic", "mean", "diastolic"))
    return (
        Ordered(upper=high, lower=low),
        Ordered(upper=high, lower=mean, tolerance=5.0),
        Ordered(upper=mean, lower=low, tolerance=5.0),
    )


PAIRS = Contradictions(
    ordered=(
        *_pressures(""),
        *_pressures("_invasive"),
        Ordered(upper="bilirubin_total", lower="bilirubin_direct", tolerance=0.3),
    ),
    totals=(Total(total="gcs_total", parts=("gcs_eye", "gcs_verbal", "gcs_motor")),),
)
"""Blood pressure order (mean within 5 mm[Hg], for rounding and cuff error), direct bilirubin as a part of
the total (within 0.3 mg/dL of assay error), and GCS = eye + verbal + motor (Teasdale and Jennett 1974)."""


def contradictions(
    columns: EventColumns, good: npt.NDArray[np.bool_], rules: Contradictions = PAIRS
) -> npt.NDArray[np.int64]:
    """Return the numbers of the rows that others of the same patient and time contradict.

    Parameters
    ----------
    columns
        The events; ``feature`` indexes ``names``.
    good
        One entry a row: rows that no earlier rule refused. Refused rows are no witnesses.
    """
    numbers = {name: number for number, name in enumerate(columns.names)}
    asked = np.zeros(len(columns.names) + 1, dtype=np.bool_)  # the last entry serves feature -1
    asked[[numbers[name] for name in rules.features if name in numbers]] = True
    if columns.is_sorted:  # a value alone at its moment contradicts nothing
        rows = np.flatnonzero(columns.shares_moment)
        rows = rows[asked[columns.feature[rows]] & good[rows] & columns.numeric[rows]]
    else:
        rows = np.flatnonzero(asked.take(columns.feature, mode="wrap") & good & columns.numeric)
    if not rows.size:
        return rows
    moments = _Moments.of(columns, rows)
    broken = []
    for rule in rules.ordered:
        if rule.upper in numbers and rule.lower in numbers:
            pair = (numbers[rule.upper], numbers[rule.lower])
            broken.append(moments.misordered(*pair, rule))
            moments.dismiss(broken[-1], pair)
    broken += [
        moments.wrong_total(numbers[rule.total], [numbers[part] for part in rule.parts], rule.tolerance)
        for rule in rules.totals
        if {rule.total, *rule.parts} <= numbers.keys()
    ]
    return np.unique(np.concatenate([rows[:0], *broken]))


@dataclass(frozen=True)
class _Moments:
    """Rows of the asked features, sorted by moment; ``moment`` numbers (subject, time) from 0."""

    rows: npt.NDArray[np.int64]
    moment: npt.NDArray[np.int64]
    feature: npt.NDArray[np.int16]
    value: npt.NDArray[np.float32]
    found: dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], FloatArray]] = field(
        default_factory=dict
    )

    @classmethod
    def of(cls, columns: EventColumns, rows: npt.NDArray[np.int64]) -> _Moments:
        subject, time = columns.subject[rows], columns.time[rows]
        falls = (subject[1:] < subject[:-1]) | ((subject[1:] == subject[:-1]) & (time[1:] < time[:-1]))
        if falls.any():
            order = np.lexsort((time, subject))
            rows, subject, time = rows[order], subject[order], time[order]
        new = np.ones(rows.size, dtype=np.bool_)
        new[1:] = (subject[1:] != subject[:-1]) | (time[1:] != time[:-1])
        return cls(rows, np.cumsum(new) - 1, columns.feature[rows], columns.value[rows])

    def _of(self, feature: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], FloatArray]:
        if feature not in self.found:
            chosen = np.flatnonzero(self.feature == feature)
            self.found[feature] = (self.rows[chosen], self.moment[chosen], self.value[chosen])
        return self.found[feature]

    def _witness(self, feature: int, choose: np.ufunc, absent: float) -> FloatArray:
        """Return the highest or lowest value of a feature at each moment."""
        witness = np.full(int(self.moment[-1]) + 1, absent, dtype=np.float32)
        _, moment, value = self._of(feature)
        if moment.size:
            starts = np.flatnonzero(np.concatenate([[True], moment[1:] != moment[:-1]]))
            witness[moment[starts]] = choose.reduceat(value, starts)
        return witness

    def dismiss(self, rows: npt.NDArray[np.int64], features: tuple[int, ...]) -> None:
        """Take contradicted rows out, so that they are no witnesses for the rules that follow."""
        if rows.size:
            for feature in features:
                keep = ~np.isin(self._of(feature)[0], rows)
                own, moment, value = self._of(feature)
                self.found[feature] = (own[keep], moment[keep], value[keep])

    def misordered(self, upper: int, lower: int, rule: Ordered) -> npt.NDArray[np.int64]:
        """Return rows of either feature that no value of the other can stand beside."""

        def broken(above: FloatArray, below: FloatArray) -> npt.NDArray[np.bool_]:
            return above <= below if not rule.tolerance else above < below - np.float32(rule.tolerance)

        high_rows, high_moment, high = self._of(upper)
        low_rows, low_moment, low = self._of(lower)
        if not high_rows.size or not low_rows.size:
            return high_rows[:0]
        lowest = self._witness(lower, np.minimum, -np.inf)[high_moment]
        highest = self._witness(upper, np.maximum, np.inf)[low_moment]
        return np.concatenate([high_rows[broken(high, lowest)], low_rows[broken(highest, low)]])

    def wrong_total(self, total: int, parts: list[int], tolerance: float) -> npt.NDArray[np.int64]:
        """Return totals that differ from their parts; moments without exactly one of each are left alone."""
        rows, moment, value = self._of(total)
        size = int(self.moment[-1]) + 1
        once = np.ones(rows.size, dtype=np.bool_)
        total_of_parts = np.zeros(rows.size)
        for part in parts:
            _, at, values = self._of(part)
            if not at.size or not rows.size:
                return rows[:0]
            once &= np.bincount(at, minlength=size)[moment] == 1
            total_of_parts += np.bincount(at, weights=values, minlength=size)[moment]
        return rows[once & (np.abs(value - total_of_parts) > tolerance)]
