"""Who lies where and since when: admissions, moves between wards, outcomes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import numpy as np

from deploy.demo_hospital.physiology import Course, body_size, draw_course

HOUR = timedelta(hours=1)
COURSE_HOURS = 24 * 14
EXPORT_DELAY = timedelta(minutes=12)
"""The source is read some minutes after prediction time, so a few rows are too new for the night."""


@dataclass(frozen=True)
class Shares:
    """Share of stays with an ECG, and, drawn independently, with a chest radiograph."""

    ecg: float = 0.60
    radiograph: float = 0.55


@dataclass(frozen=True)
class Move:
    """A stretch of time in one ward; ``end`` is None while it lasts."""

    ward: str
    start: datetime
    end: datetime | None


@dataclass(frozen=True)
class Stay:
    """One patient's one hospital stay. Times carry UTC."""

    index: int
    patient_id: str
    name: str
    birth_date: date
    male: bool
    height: float
    weight: float
    admission: datetime
    discharge: datetime | None
    moves: tuple[Move, ...]
    died: bool
    recorded_until: datetime
    course: Course
    has_ecg: bool
    has_radiograph: bool
    silent: bool = False
    rngs: tuple[np.random.Generator, ...] = field(default=(), repr=False)

    @property
    def encounter_id(self) -> str:
        """Id of the hospital Encounter."""
        return f"{self.patient_id}-hosp"

    @property
    def icu(self) -> Move | None:
        """The stay in intensive care, if there is one."""
        return next((move for move in self.moves if move.ward.startswith("icu")), None)

    def encounter_at(self, moment: datetime) -> str:
        """Return the id of the innermost Encounter at a moment."""
        icu = self.icu
        if icu and icu.start <= moment and (icu.end is None or moment <= icu.end):
            return f"{self.patient_id}-icu"
        return self.encounter_id

    def ward_at(self, moment: datetime) -> str:
        """Return the ward at a moment."""
        for move in reversed(self.moves):
            if move.start <= moment:
                return move.ward
        return self.moves[0].ward

    def age(self, at: datetime) -> float:
        """Return years of age."""
        return (at.date() - self.birth_date).days / 365.25

    def hours(self, moment: datetime) -> float:
        """Return hours since admission."""
        return (moment - self.admission) / HOUR


def _birth_date(rng: np.random.Generator, admission: datetime, *, minor: bool) -> date:
    years = 15.5 if minor else float(np.clip(rng.normal(66, 14), 19, 97))
    return admission.date() - timedelta(days=int(years * 365.25))


def _moves(
    rng: np.random.Generator,
    admission: datetime,
    end: datetime | None,
    *,
    icu_hours: float | None,
    until: datetime,
) -> tuple[Move, ...]:
    """Lay out ward, intensive care, ward; a stretch that begins after ``until`` has not happened."""
    ward = ("ward-5-west", "ward-7-east")[int(rng.integers(2))]
    if icu_hours is None:
        return (Move(ward, admission, end),)
    icu_start = admission + timedelta(hours=float(rng.choice([0.0, rng.uniform(1, 6)])))
    marks = [(ward, admission), (("icu-medical", "icu-surgical")[int(rng.random() < 0.35)], icu_start)]
    if icu_start == admission:
        marks = marks[1:]
    icu_end = icu_start + timedelta(hours=icu_hours)
    if end is None or icu_end < end - HOUR:
        marks.append((ward, icu_end))
    marks = [mark for mark in marks if mark[1] <= until] or marks[:1]
    ends: list[datetime | None] = [*(start for _, start in marks[1:]), end]
    return tuple(Move(name, start, stop) for (name, start), stop in zip(marks, ends, strict=True))


def tonight_stays(
    patients: int, *, seed: int, prediction_time: datetime, shares: Shares = Shares(), prefix: str = "n"
) -> Iterator[Stay]:
    """Yield the inpatients of one night: most are still there at prediction time.

    With at least 12 patients, the second is a minor, the third has no data at all, the next three came a few
    hours ago, and about one in twelve has been discharged.
    """
    for index in range(1, patients + 1):
        rngs = tuple(
            np.random.default_rng(child) for child in np.random.SeedSequence([seed, 1, index]).spawn(4)
        )
        rng = rngs[0]
        special = patients >= 12
        before = float(rng.uniform(1.0, 5.0)) if special and 4 <= index <= 6 else float(rng.uniform(10, 118))
        admission = prediction_time - timedelta(hours=before)
        course = draw_course(rng, COURSE_HOURS)
        male = bool(rng.random() < 0.55)
        leaves = special and index % 12 == 0
        discharge = (
            prediction_time - timedelta(hours=float(rng.uniform(0.5, 0.4 * before))) if leaves else None
        )
        icu_hours = float(rng.uniform(60, 240)) if rng.random() < 0.94 else None
        height, weight = body_size(rng, male=male)
        yield Stay(
            index=index,
            patient_id=f"{prefix}{index:05d}",
            name=f"Synthetic-{index:04d}",
            birth_date=_birth_date(rng, admission, minor=special and index == 2),
            male=male,
            height=height,
            weight=weight,
            admission=admission,
            discharge=discharge,
            moves=_moves(rng, admission, discharge, icu_hours=icu_hours, until=discharge or prediction_time),
            died=False,
            recorded_until=discharge or prediction_time + EXPORT_DELAY,
            course=course,
            has_ecg=bool(rng.random() < shares.ecg),
            has_radiograph=bool(rng.random() < shares.radiograph),
            silent=special and index == 3,
            rngs=rngs[1:],
        )


def history_stays(
    patients: int,
    *,
    seed: int,
    prediction_time: datetime,
    shares: Shares = Shares(),
    prefix: str = "h",
    recorded_hours: float = 96,
) -> Iterator[Stay]:
    """Yield discharged stays of the half year before, with outcomes drawn from the latent risk.

    Stays are recorded for at most ``recorded_hours`` hours, so that training data stays small.
    """
    for index in range(1, patients + 1):
        rngs = tuple(
            np.random.default_rng(child) for child in np.random.SeedSequence([seed, 2, index]).spawn(4)
        )
        rng = rngs[0]
        course = draw_course(rng, COURSE_HOURS)
        died = bool(rng.random() < course.risk)
        short = rng.random() < 0.08
        length = float(rng.uniform(20, 47) if short else rng.uniform(56, 190))
        admission = prediction_time - timedelta(hours=float(rng.uniform(24 * 12, 24 * 190)))
        discharge = admission + timedelta(hours=length)
        icu_hours = (
            length if died else float(rng.uniform(0.75, 1.0) * length if length > 66 else 0.97 * length)
        )
        male = bool(rng.random() < 0.55)
        height, weight = body_size(rng, male=male)
        yield Stay(
            index=index,
            patient_id=f"{prefix}{index:05d}",
            name=f"Synthetic-H{index:04d}",
            birth_date=_birth_date(rng, admission, minor=False),
            male=male,
            height=height,
            weight=weight,
            admission=admission,
            discharge=discharge,
            moves=_moves(rng, admission, discharge, icu_hours=icu_hours, until=discharge),
            died=died,
            recorded_until=min(discharge, admission + timedelta(hours=recorded_hours)),
            course=course,
            has_ecg=bool(rng.random() < shares.ecg),
            has_radiograph=bool(rng.random() < shares.radiograph),
            rngs=rngs[1:],
        )
