"""Build a demo hospital on disk: stays are drawn and written one after another, so memory does not grow."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

from deploy.demo_hospital.faults import plan_faults
from deploy.demo_hospital.resources import organisations
from deploy.demo_hospital.stay_files import StayFiles
from deploy.demo_hospital.stays import Shares, Stay, history_stays, tonight_stays
from deploy.demo_hospital.summary import HospitalSummary
from deploy.errors import DeployError
from validation.contracts import write_json

Progress = Callable[[int, int], None]

NOTE = """# Synthetic test data

Everything in this folder was made by `deploy.demo_hospital` of Nightingale from a seed (see below). It
describes no person and no hospital. Vitals, laboratory values, ECGs and radiographs follow from a simulated
severity that also draws the outcome, so a model can learn from every modality; scores learnt here mean
nothing for patients.

Every FHIR resource carries the security label HTEST ("test health data"), patients are named Synthetic-...,
WFDB headers and DICOM objects say that they are synthetic.

`faults.json` lists the input that was broken on purpose and the reason code that it must get.
"""


def build_hospital(
    folder: Path,
    *,
    patients: int = 72,
    seed: int = 20260115,
    night: date,
    history: bool,
    faults: bool | Literal["flood"] = True,
    progress: Progress | None = None,
    time_zone: str = "Europe/Berlin",
    prediction_at: time = time(5, 0),
    shares: Shares | None = None,
    pace: float = 1.0,
) -> HospitalSummary:
    """Build a synthetic hospital below ``folder``.

    Parameters
    ----------
    folder
        Target; must be empty or absent, since files of another hospital would mix with this one's.
    patients
        Number of stays; they are streamed, so 10,000 need no more memory than 10.
    seed
        Same seed and arguments give the same bytes.
    night
        Date of the prediction time.
    history
        False: tonight's inpatients, admitted in the five days before prediction time. True: discharged stays
        of the half year before, with outcomes, for training.
    faults
        Plant broken input (True), none (False), or ``"flood"``: also take the unit from more than 30 % of all
        Observations, so that the gate must stop.
    progress
        Called with stays done and stays in all.
    time_zone, prediction_at
        The site's zone and ward-clock time of prediction.
    shares
        How many stays have an ECG and a radiograph; zero makes a large hospital for load tests cheap.

    pace
        Factor on the hours between two measurements: 2 halves the number of Observations.

    Returns
    -------
    HospitalSummary
        Counts; also written as ``hospital.json``.

    Raises
    ------
    DeployError
        If the folder is not empty or ``patients`` is not positive.
    """
    if patients < 1:
        raise DeployError("a demo hospital needs at least one patient")
    if folder.is_dir() and any(folder.iterdir()):
        raise DeployError(f"{folder} is not empty; remove it or choose another folder for the demo hospital")
    zone = ZoneInfo(time_zone)
    prediction_time = datetime.combine(night, prediction_at, tzinfo=zone)
    summary = HospitalSummary(folder=str(folder), prediction_time=prediction_time.isoformat())
    builder = StayFiles(folder, zone=zone, seed=seed, summary=summary, flood=faults == "flood")
    plan = plan_faults(patients, seed=seed) if faults else {}
    stays: Iterator[Stay] = (history_stays if history else tonight_stays)(
        patients, seed=seed, prediction_time=prediction_time, shares=shares or Shares()
    )
    try:
        for resource in organisations():
            builder.put(resource)
        for done, stay in enumerate(stays, start=1):
            builder.stay(stay, plan.get(stay.index, []), sparse_after=48 if history else 1e9, pace=pace)
            if progress:
                progress(done, patients)
    finally:
        builder.writer.close()
    (folder / "SYNTHETIC.md").write_text(
        f"{NOTE}\nSeed {seed}, {patients} stays, {'history' if history else 'tonight'}, "
        f"prediction time {prediction_time.isoformat()}.\n",
        encoding="utf-8",
    )
    (folder / "faults.json").write_text(
        "[\n" + ",\n".join(json.dumps(item, ensure_ascii=False) for item in builder.planted) + "\n]\n",
        encoding="utf-8",
    )
    write_json(summary.to_dict() | {"folder": "."}, folder / "hospital.json")
    return summary
