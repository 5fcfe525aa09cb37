"""Bedside severity scores: NEWS2, MEWS and a SOFA-like score, as far as the record allows.

A part whose input was not charted counts 0 points (taken as normal), which is how such scores are read at
the bedside, and is named in ``missing``, so that a low total of nothing is not taken for health.

References
----------
NEWS2: Royal College of Physicians, National Early Warning Score (NEWS) 2, London 2017, charts 1 and 2
(SpO2 scale 1, or scale 2 on request). MEWS: Subbe et al., QJM 2001, doi 10.1093/qjmed/94.10.521. SOFA:
Vincent et al., Intensive Care Medicine 1996, doi 10.1007/BF01709751; vasopressors are not in the events
table, so its cardiovascular part can only give 0 or 1 here: hence *SOFA-like*. AVPU from the Glasgow Coma
Scale: Kelly et al., Annals of Emergency Medicine 2004 (medians A 15, V 13, P 8, U 3; we cut halfway).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from modelling.baselines.quantities import QUANTITIES, latest, measured, total, worst

Array = NDArray[np.float64]
LAST_HOURS = 24.0


def banded(value: Array, edges: Sequence[float], points: Sequence[int]) -> Array:
    """Return points by band; ``edges`` are the lowest values of the second, third, … band; NaN stays NaN."""
    band = np.searchsorted(np.asarray(edges), value, side="right")
    return np.where(np.isfinite(value), np.asarray(points, dtype=np.float64)[band], np.nan)


@dataclass(frozen=True)
class ScoredPatients:
    """A score of each sample and what it lacked.

    Attributes
    ----------
    name
        Name of the score.
    total
        Sum of the points of the parts that could be computed, ``[rows]``; 0 if none could.
    parts
        Part name to points, NaN where it could not be computed.
    """

    name: str
    total: Array
    parts: Mapping[str, Array]

    @property
    def available(self) -> NDArray[np.int64]:
        """Number of computed parts of each sample, ``[rows]``."""
        return np.sum([np.isfinite(points) for points in self.parts.values()], axis=0).astype(np.int64)

    def missing(self) -> list[list[str]]:
        """Names of the parts that could not be computed, one list a sample."""
        absent = {name: ~np.isfinite(points) for name, points in self.parts.items()}
        return [[name for name in absent if absent[name][row]] for row in range(len(self.total))]


def _sum(name: str, parts: Mapping[str, Array]) -> ScoredPatients:
    return ScoredPatients(name, np.nansum(np.stack(list(parts.values())), axis=0), parts)


def news2(tokens: pl.DataFrame, *, rows: int, hypercapnic: NDArray[np.bool_] | None = None) -> ScoredPatients:
    """National Early Warning Score 2 from the latest values of the last 24 hours.

    Parameters
    ----------
    tokens
        Frame of :func:`modelling.baselines.summaries.observed_tokens`.
    rows
        Number of samples.
    hypercapnic
        ``[rows]``; True asks for SpO2 scale 2 (a clinician's decision, never inferred); default scale 1.

    Notes
    -----
    Oxygen is taken as given if the latest inspired fraction is above 21 % or the patient is ventilated; if
    neither was charted the part is missing.
    """
    value = latest(measured(tokens), rows=rows, hours=LAST_HOURS)
    spo2, oxygen = value("oxygen_saturation"), _oxygen(value)
    scale_1 = banded(spo2, (92, 94, 96), (3, 2, 1, 0))
    low_2 = banded(spo2, (84, 86, 88), (3, 2, 1, 0))
    high_2 = np.where(oxygen == 1.0, banded(spo2, (93, 95, 97), (0, 1, 2, 3)), 0.0)
    scale_2 = np.where(np.isfinite(spo2), np.maximum(low_2, high_2), np.nan)
    two = np.zeros(rows, dtype=bool) if hypercapnic is None else hypercapnic
    gcs = value("glasgow_coma_scale")
    return _sum(
        "NEWS2",
        {
            "respiratory rate": banded(np.round(value("respiratory_rate")), (9, 12, 21, 25), (3, 1, 0, 2, 3)),
            "oxygen saturation": np.where(two, scale_2, scale_1),
            "supplemental oxygen": 2.0 * oxygen,
            "systolic pressure": banded(
                np.round(value("systolic_pressure")), (91, 101, 111, 220), (3, 2, 1, 0, 3)
            ),
            "pulse": banded(np.round(value("heart_rate")), (41, 51, 91, 111, 131), (3, 1, 0, 1, 2, 3)),
            "consciousness": np.where(np.isfinite(gcs), np.where(gcs < 15, 3.0, 0.0), np.nan),
            "temperature": banded(
                np.round(value("temperature"), 1), (35.05, 36.05, 38.05, 39.05), (3, 1, 0, 1, 2)
            ),
        },
    )


def mews(tokens: pl.DataFrame, *, rows: int) -> ScoredPatients:
    """Modified Early Warning Score (Subbe 2001) from the latest values of the last 24 hours."""
    value = latest(measured(tokens), rows=rows, hours=LAST_HOURS)
    return _sum(
        "MEWS",
        {
            "systolic pressure": banded(
                np.round(value("systolic_pressure")), (71, 81, 101, 200), (3, 2, 1, 0, 2)
            ),
            "pulse": banded(np.round(value("heart_rate")), (40, 51, 101, 111, 130), (2, 1, 0, 1, 2, 3)),
            "respiratory rate": banded(np.round(value("respiratory_rate")), (9, 15, 21, 30), (2, 0, 1, 2, 3)),
            "temperature": banded(np.round(value("temperature"), 1), (34.95, 38.45), (2, 0, 2)),
            "consciousness": banded(value("glasgow_coma_scale"), (6, 11, 15), (3, 2, 1, 0)),
        },
    )


def sofa_like(tokens: pl.DataFrame, *, rows: int) -> ScoredPatients:
    """Sequential organ failure points from the worst values of the last 24 hours, without vasopressors.

    Urine output counts only if it was charted over at least 18 of the 24 hours.
    """
    low, high = (worst(measured(tokens), rows=rows, hours=LAST_HOURS, direction=d) for d in ("min", "max"))
    ratio = low("pao2_fio2")
    ventilated = np.nan_to_num(high("ventilated")) > 0
    lungs = banded(ratio, (100, 200, 300, 400), (4, 3, 2, 1, 0))
    lungs = np.where(np.isfinite(ratio) & ~ventilated, np.minimum(lungs, 2.0), lungs)
    urine, charted = total(tokens, rows=rows, hours=LAST_HOURS, quantity="urine_output")
    dry = np.where(charted >= 18.0, banded(urine, (200, 500), (4, 3, 0)), np.nan)
    creatinine = banded(high("creatinine"), (1.2, 2.0, 3.5, 5.0), (0, 1, 2, 3, 4))
    pressure = low("mean_pressure")
    return _sum(
        "SOFA-like",
        {
            "respiration": lungs,
            "coagulation": banded(low("platelets"), (20, 50, 100, 150), (4, 3, 2, 1, 0)),
            "liver": banded(high("bilirubin"), (1.2, 2.0, 6.0, 12.0), (0, 1, 2, 3, 4)),
            "cardiovascular": np.where(np.isfinite(pressure), np.where(pressure < 70, 1.0, 0.0), np.nan),
            "nervous system": banded(low("glasgow_coma_scale"), (6, 10, 13, 15), (4, 3, 2, 1, 0)),
            "kidney": np.fmax(creatinine, dry),
        },
    )


def _oxygen(value: Callable[[str], Array]) -> Array:
    fraction, ventilated = value("inspired_oxygen"), value("ventilated")
    known = np.isfinite(fraction) | (ventilated == 1.0)
    return np.where(known, ((fraction > 0.21 + 1e-6) | (ventilated == 1.0)).astype(np.float64), np.nan)


CLINICAL_SCORES: Mapping[str, Callable[..., ScoredPatients]] = {
    "NEWS2": news2,
    "MEWS": mews,
    "SOFA-like": sofa_like,
}

__all__ = ["CLINICAL_SCORES", "QUANTITIES", "ScoredPatients", "banded", "mews", "news2", "sofa_like"]
