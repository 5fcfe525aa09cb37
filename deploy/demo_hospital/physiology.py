"""The simulated body: latent severity, and the vitals and laboratory values that follow from it.

Five organ systems share one course of illness and have a part of their own, so that each modality tells
something that the others do not: vitals show circulation and lungs, laboratory values metabolism, the Glasgow
Coma Scale the brain, the ECG the heart, the radiograph the lungs. Nothing here is fitted to patients; the
numbers are textbook-like and serve to exercise software.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ORGANS = ("circulation", "lungs", "metabolism", "brain", "heart")
"""Organ systems, in the order of :attr:`Course.organs`."""

SHARED_WEIGHT = 0.72
"""Correlation of an organ's latent with the shared course."""

RISK_INTERCEPT = -2.65
"""Logit of death at mean severity; gives about 17 % deaths."""

RISK_SLOPE = 3.2
"""Logit of death for one unit of mean organ severity in the first two days."""

Series = NDArray[np.float64]


@dataclass(frozen=True)
class Course:
    """The latent course of one stay on an hourly grid.

    Attributes
    ----------
    shared
        Severity, shape ``[hours]``; 0 is an average inpatient, 2 is very ill.
    organs
        Severity by organ system, shape ``[5, hours]``.
    """

    shared: Series
    organs: Series

    def organ(self, name: str) -> Series:
        """Return one organ's severity by hour."""
        return self.organs[ORGANS.index(name)]

    def at(self, name: str, hour: float) -> float:
        """Return one organ's severity at an hour since admission, held at the ends."""
        series = self.organ(name)
        return float(series[min(max(int(hour), 0), series.size - 1)])

    @property
    def risk(self) -> float:
        """Probability of death in hospital that the simulation draws from."""
        burden = float(self.organs[:, :48].mean())
        return float(1 / (1 + np.exp(-(RISK_INTERCEPT + RISK_SLOPE * burden))))


def draw_course(rng: np.random.Generator, hours: int) -> Course:
    """Draw one course: a start, a trend over two days, and slow wandering around it."""
    start, trend = rng.normal(0.0, 0.9), rng.normal(-0.1, 0.5)
    own = rng.normal(size=len(ORGANS))
    steps = rng.normal(0.0, 0.09, size=hours)
    wander = np.empty(hours)
    level = 0.0
    for hour, step in enumerate(steps):
        level = 0.96 * level + step
        wander[hour] = level
    shared = start + trend * np.minimum(np.arange(hours), 72) / 48 + wander
    organs = SHARED_WEIGHT * shared + np.sqrt(1 - SHARED_WEIGHT**2) * own[:, None]
    return Course(shared=shared, organs=organs)


def _soft(x: Series) -> Series:
    """Smooth positive part: healthy organs do not give better than normal values without end."""
    return np.logaddexp(0.0, x)


def simulate(course: Course, *, age: float, male: bool, rng: np.random.Generator) -> dict[str, Series]:
    """Return every measured quantity on the hourly grid, in canonical units.

    Parameters
    ----------
    course
        Latent course.
    age
        Years.
    male
        Sex, for body size and haemoglobin.
    rng
        Source of person-level offsets and measurement noise.

    Returns
    -------
    dict
        Quantity name to a series of shape ``[hours]``; units are those of :mod:`deploy.demo_hospital.coding`.
    """
    circulation, lungs, metabolism, brain, heart = course.organs
    hours = course.shared.size
    clock = np.arange(hours)

    def noise(scale: float) -> Series:
        return rng.normal(0.0, scale, size=hours)

    def person(scale: float) -> float:
        return float(rng.normal(0.0, scale))

    heart_rate = 80 + person(6) + 9 * circulation + 3 * heart + 3 * np.sin(clock / 24 * 2 * np.pi) + noise(4)
    systolic = 122 + person(8) + 0.15 * (age - 60) - 11 * circulation + noise(6)
    diastolic = 0.42 * systolic + 16 + person(3) + noise(3)
    respiration = 16 + person(1.5) + 3.2 * _soft(lungs) + noise(1.6)
    oxygen_share = 21 + 14 * _soft(1.6 * lungs - 1.0)
    saturation = 98.2 - 1.9 * _soft(lungs) + 0.02 * (oxygen_share - 21) + noise(0.9)
    temperature = (
        36.75
        + person(0.15)
        + 0.35 * _soft(course.shared)
        + 0.2 * np.sin(clock / 24 * 2 * np.pi)
        + noise(0.15)
    )
    impairment = _soft(2.0 * brain - 1.6) + noise(0.15)
    creatinine = np.exp(0.02 + 0.25 * male + person(0.15) + 0.42 * metabolism) * 0.9
    lactate = np.exp(0.25 + 0.42 * metabolism + 0.1 * circulation)
    bicarbonate = 25.5 - 2.4 * _soft(metabolism) + noise(0.6)
    ph = 7.43 - 0.045 * _soft(metabolism) - 0.012 * _soft(lungs) + noise(0.012)
    return {
        "heart_rate": np.clip(heart_rate, 28, 210),
        "systolic": np.clip(systolic, 48, 230),
        "diastolic": np.clip(diastolic, 24, 135),
        "mean_pressure": np.clip(diastolic + (systolic - diastolic) / 3, 32, 165),
        "respiratory_rate": np.clip(respiration, 6, 55),
        "saturation": np.clip(saturation, 62, 100),
        "oxygen_share": np.clip(oxygen_share, 21, 100),
        "temperature": np.clip(temperature, 34, 41.3),
        "coma_eye": np.clip(np.round(4 - 0.75 * impairment), 1, 4),
        "coma_verbal": np.clip(np.round(5 - 1.0 * impairment), 1, 5),
        "coma_motor": np.clip(np.round(6 - 0.8 * impairment), 1, 6),
        "capillary_refill": np.clip(1.6 + 0.7 * _soft(circulation) + noise(0.25), 0.5, 8),
        "glucose": np.clip(118 + person(18) + 16 * _soft(metabolism) + noise(12), 42, 620),
        "ph": np.clip(ph, 6.85, 7.6),
        "oxygen_pressure": np.clip(92 - 7 * _soft(lungs) + 0.4 * (oxygen_share - 21) + noise(5), 38, 320),
        "carbon_dioxide_pressure": np.clip(39 + 2.5 * lungs + noise(2), 18, 110),
        "bicarbonate": np.clip(bicarbonate, 6, 40),
        "lactate": np.clip(lactate * np.exp(noise(0.08)), 0.4, 22),
        "creatinine": np.clip(creatinine * np.exp(noise(0.05)), 0.3, 12),
        "urea_nitrogen": np.clip(14 * np.exp(0.34 * metabolism + noise(0.06)), 3, 160),
        "sodium": np.clip(139 + person(2.2) + noise(1.2), 116, 164),
        "potassium": np.clip(4.1 + 0.16 * metabolism + person(0.2) + noise(0.15), 2.3, 7.4),
        "leukocytes": np.clip(9.2 * np.exp(0.26 * course.shared + person(0.2) + noise(0.05)), 0.6, 70),
        "haemoglobin": np.clip(
            (11.6 if male else 10.8) + person(1.1) - 0.4 * course.shared + noise(0.25), 4.5, 18.5
        ),
        "platelets": np.clip(225 * np.exp(person(0.25) - 0.16 * course.shared + noise(0.05)), 9, 900),
        "bilirubin": np.clip(0.75 * np.exp(0.36 * metabolism + person(0.25) + noise(0.05)), 0.1, 30),
        "troponin": np.clip(0.012 * np.exp(1.05 * heart + noise(0.12)), 0.001, 12),
        "urine_output": np.clip(290 * np.exp(-0.36 * _soft(metabolism) + noise(0.25)), 0, 1400),
        "pain": np.clip(np.round(2 + 1.5 * rng.normal(size=hours)), 0, 10),
    }


def body_size(rng: np.random.Generator, *, male: bool) -> tuple[float, float]:
    """Return height in cm and weight in kg."""
    height = float(np.clip(rng.normal(176 if male else 163, 7), 140, 205))
    index = float(np.clip(rng.normal(27, 5), 17, 46))
    return height, index * (height / 100) ** 2
