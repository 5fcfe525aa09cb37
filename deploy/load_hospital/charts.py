"""What a batch of inpatients is and what is measured on them, as columns.

Values follow from one severity a patient and textbook-like levels; they exercise software and describe nobody.
Everything of a batch is drawn for its full size, so that a patient does not change with the number of others.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

BATCH = 250
"""Patients drawn and written together: about a quarter of a million Observations."""
HOUR_US = 3_600_000_000
ICU_SHARE = 0.95
STAY_HOURS = (24.0, 262.0)
"""Shortest and longest stay so far; with intervals as in intensive care, about 1,000 Observations each."""


@dataclass(frozen=True)
class Level:
    """A measured quantity: level, effect of severity, spread between patients and within one, bounds."""

    normal: float
    effect: float
    person: float
    noise: float
    low: float
    high: float


LEVELS: dict[str, Level] = {
    "heart_rate": Level(82, 9, 6, 5, 30, 210),
    "respiratory_rate": Level(17, 2.5, 1.5, 1.8, 6, 55),
    "saturation": Level(96.5, -1.2, 0.5, 1.0, 62, 100),
    "temperature": Level(36.9, 0.2, 0.15, 0.25, 34, 41.3),
    "oxygen_share": Level(27, 6, 2, 1, 21, 100),
    "capillary_refill": Level(1.9, 0.4, 0.1, 0.25, 0.5, 8),
    "pain": Level(2, 0, 0.5, 1.5, 0, 10),
    "urine_output": Level(240, -50, 20, 60, 0, 1400),
    "glucose": Level(128, 12, 18, 14, 42, 620),
    "ph": Level(7.4, -0.03, 0.01, 0.015, 6.85, 7.6),
    "oxygen_pressure": Level(90, -5, 3, 6, 38, 320),
    "carbon_dioxide_pressure": Level(40, 2, 1, 2.5, 18, 110),
    "lactate": Level(1.5, 0.6, 0.1, 0.2, 0.4, 22),
    "bicarbonate": Level(24.5, -1.6, 0.5, 0.8, 6, 40),
    "creatinine": Level(1.0, 0.35, 0.1, 0.06, 0.3, 12),
    "urea_nitrogen": Level(17, 5, 2, 1.2, 3, 160),
    "sodium": Level(139, 0, 2.2, 1.3, 116, 164),
    "potassium": Level(4.1, 0.15, 0.2, 0.17, 2.3, 7.4),
    "leukocytes": Level(9.6, 2.2, 1, 0.6, 0.6, 70),
    "haemoglobin": Level(11.2, -0.4, 1.1, 0.3, 4.5, 18.5),
    "platelets": Level(220, -30, 40, 12, 9, 900),
    "bilirubin": Level(0.9, 0.3, 0.2, 0.05, 0.1, 30),
    "troponin": Level(0.03, 0.02, 0.005, 0.004, 0.01, 12),
    "systolic": Level(121, -10, 8, 7, 70, 230),
    "diastolic": Level(64, -5, 4, 4, 24, 68),  # always below the systolic
    "coma_eye": Level(3.7, -0.5, 0.1, 0.3, 1, 4),
    "coma_verbal": Level(4.6, -0.7, 0.1, 0.3, 1, 5),
    "coma_motor": Level(5.7, -0.5, 0.1, 0.3, 1, 6),
}


@dataclass(frozen=True)
class Patients:
    """One batch of inpatients, still there at prediction time; always :data:`BATCH` of them.

    Attributes
    ----------
    count
        How many of them are written.
    frame
        ``who`` (FHIR id), ``icu`` (whether in intensive care), ``admitted`` (UTC), ``born``, ``gender``,
        ``recordings``, ``films`` (how many ECGs and radiographs).
    hours
        Length of the stay so far, float ``[n]``.
    severity
        0 is an average inpatient, 2 is very ill, float ``[n]``.
    """

    count: int
    frame: pl.DataFrame
    hours: NDArray[np.float64]
    severity: NDArray[np.float64]

    def written(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the rows (by ``patient``, position in the batch) of the patients that are written."""
        return frame if self.count == BATCH else frame.filter(pl.col("patient") < self.count)


def draw_patients(rng: np.random.Generator, *, first: int, count: int, prediction_time: datetime) -> Patients:
    """Draw a batch.

    Parameters
    ----------
    first
        Number of the batch's first patient.
    count
        How many of the :data:`BATCH` drawn are kept.
    """
    hours = rng.uniform(*STAY_HOURS, BATCH)
    severity = rng.normal(0.0, 1.0, BATCH)
    age = np.clip(rng.normal(66, 14, BATCH), 19, 97)
    icu = rng.random(BATCH) < ICU_SHARE
    male = rng.random(BATCH) < 0.55
    recordings = np.where(rng.random(BATCH) < 0.60, rng.integers(1, 3, BATCH), 0)
    films = np.where(rng.random(BATCH) < 0.55, 1 + (rng.random(BATCH) < 0.3), 0)
    micros = int(prediction_time.timestamp() * 1e6)
    admitted = (micros - hours * HOUR_US).astype(np.int64) // 1_000_000 * 1_000_000
    frame = pl.DataFrame(
        {
            "who": [f"load-{number:07d}" for number in range(first, first + BATCH)],
            "icu": icu,
            "admitted": pl.Series(admitted).cast(pl.Datetime("us", "UTC")),
            "born": pl.Series(np.full(BATCH, micros)).cast(pl.Datetime("us")).dt.date()
            - pl.Series((age * 365.25 * 86_400_000_000).astype(np.int64)).cast(pl.Duration("us")),
            "gender": np.where(male, "male", "female"),
            "recordings": recordings,
            "films": films,
        }
    )
    return Patients(count, frame.with_row_index("patient"), hours, severity)


def rounds(
    rng: np.random.Generator, patients: Patients, *, hours_icu: float, hours_ward: float
) -> tuple[pl.DataFrame, NDArray[np.int64]]:
    """Return the rounds of measuring: every so many hours, by kind of ward (0 is never).

    Returns
    -------
    frame, owner
        ``patient``, ``who``, ``place`` (id of the Encounter), ``number`` (text) and ``time`` (UTC), and the
        patient of each row.
    """
    icu = patients.frame["icu"].to_numpy()
    step = np.where(icu, hours_icu, hours_ward)
    start = rng.uniform(0.05, 0.4, BATCH)
    counts = np.where(step > 0, np.floor((patients.hours - start) / np.where(step > 0, step, 1)), 0)
    counts = counts.astype(np.int64)
    owner = np.repeat(np.arange(BATCH), counts)
    number = np.arange(owner.size) - np.repeat(np.cumsum(counts) - counts, counts)
    hour = start[owner] + step[owner] * (number + rng.uniform(0.0, 0.3, owner.size))
    seconds = (hour * 3600).astype(np.int64)
    frame = patients.frame[owner].select(
        "patient",
        "who",
        pl.concat_str("who", pl.when("icu").then(pl.lit("-icu")).otherwise(pl.lit("-hosp"))).alias("place"),
        pl.Series("number", number + 1).cast(pl.String).str.zfill(4),
        (pl.col("admitted") + pl.Series(seconds * 1_000_000).cast(pl.Duration("us"))).alias("time"),
    )
    return frame, owner


def values(
    rng: np.random.Generator, patients: Patients, owner: NDArray[np.int64], quantity: str, decimals: int
) -> pl.Series:
    """Return a value a round as the text of a JSON number."""
    level = LEVELS[quantity]
    person = rng.normal(0.0, level.person, BATCH) if level.person else np.zeros(BATCH)
    drawn = level.normal + level.effect * patients.severity[owner] + person[owner]
    drawn = np.clip(drawn + rng.normal(0.0, level.noise, owner.size), level.low, level.high)
    if decimals == 0:
        return pl.Series(np.rint(drawn).astype(np.int64)).cast(pl.String)
    return pl.Series(np.round(drawn, decimals)).cast(pl.String)
