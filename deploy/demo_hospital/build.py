"""Build a demo hospital on disk: stays are drawn and written one after another, so memory does not grow."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import IO, Literal
from zoneinfo import ZoneInfo

import numpy as np

from deploy.demo_hospital import faults as planting
from deploy.demo_hospital.coding import WARD_BY_ID
from deploy.demo_hospital.electrocardiogram import synthesise, write_wfdb
from deploy.demo_hospital.faults import (
    ECG_FAULTS,
    IMAGE_FAULTS,
    Planted,
    dump,
    plan_faults,
    plant_observations,
)
from deploy.demo_hospital.observations import Chart, without_unit
from deploy.demo_hospital.radiograph import SOP_CLASS, Uids, draw_chest, make_dicom, make_uids, write_dicom
from deploy.demo_hospital.resources import (
    Resource,
    attachment,
    ecg_document,
    encounters,
    imaging_study,
    organisations,
    patient,
    stamp,
)
from deploy.demo_hospital.stays import Stay, history_stays, tonight_stays
from deploy.errors import DeployError
from validation.contracts import write_json
from validation.reasons import Reason

Progress = Callable[[int, int], None]
LINES_PER_FILE = 20_000
FLOOD_SHARE = 0.6
IMAGE_SIZE = 256

NOTE = """# Synthetic test data

Everything in this folder was made by `deploy.demo_hospital` of Nightingale from a seed (see below). It
describes no person and no hospital. Vitals, laboratory values, ECGs and radiographs follow from a simulated
severity that also draws the outcome, so a model can learn from every modality; scores learnt here mean
nothing for patients.

Every FHIR resource carries the security label HTEST ("test health data"), patients are named Synthetic-...,
WFDB headers and DICOM objects say that they are synthetic.

`faults.json` lists the input that was broken on purpose and the reason code that it must get.
"""


@dataclass
class HospitalSummary:
    """What was built.

    Attributes
    ----------
    patients, open_stays, icu_stays, deaths
        Stays in all, not yet discharged, with intensive care, ended by death.
    resources
        Lines written by resource type, faulty ones among them.
    ecgs, radiographs
        Recordings and images, faulty ones among them.
    faults
        Planted faults by reason code.
    """

    folder: str
    prediction_time: str
    patients: int = 0
    open_stays: int = 0
    icu_stays: int = 0
    deaths: int = 0
    ecgs: int = 0
    radiographs: int = 0
    resources: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def to_dict(self) -> dict[str, object]:
        """Return a JSON-ready dict."""
        counts = {"resources": dict(self.resources), "faults": dict(self.faults)}
        return {name: counts.get(name, getattr(self, name)) for name in self.__dataclass_fields__}


class _Writer:
    """Writes NDJSON, several files a resource type, and knows each line's place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.files: dict[str, IO[str]] = {}
        self.numbers: Counter[str] = Counter()
        self.lines: Counter[str] = Counter()

    def _name(self, stem: str) -> str:
        return f"{stem}.{self.numbers[stem] + 1:04d}.ndjson"

    def write(self, stem: str, text: str) -> tuple[str, int]:
        """Append a line; return its file's name and its line number, from 1."""
        if stem not in self.files:
            self.files[stem] = (self.folder / self._name(stem)).open("w", encoding="utf-8", newline="\n")
        self.files[stem].write(text + "\n")
        self.lines[stem] += 1
        return self._name(stem), self.lines[stem]

    def end_of_stay(self) -> None:
        """Begin new files where the current ones are long; versions of one resource stay in one file."""
        for stem in [stem for stem, lines in self.lines.items() if lines >= LINES_PER_FILE]:
            self.files.pop(stem).close()
            self.numbers[stem] += 1
            self.lines[stem] = 0

    def close(self) -> None:
        for file in self.files.values():
            file.close()


class _Builder:
    def __init__(
        self, folder: Path, *, zone: ZoneInfo, seed: int, summary: HospitalSummary, flood: bool
    ) -> None:
        self.folder, self.zone, self.seed, self.summary, self.flood = folder, zone, seed, summary, flood
        self.writer = _Writer(folder / "fhir")
        self.planted: list[dict[str, object]] = []

    def put(self, resource: Resource, *, stem: str | None = None) -> tuple[str, int]:
        """Write one good resource."""
        kind = resource["resourceType"]
        self.summary.resources[kind] += 1
        return self.writer.write(stem or kind, dump(resource))

    def plant(self, stem: str, fault: Planted) -> None:
        """Write one faulty line and list it."""
        self.summary.resources[stem] += 1
        file, line = self.writer.write(stem, fault.text)
        self.list_fault(fault.kind, fault.reason, file, line, fault.resource)

    def list_fault(self, kind: str, reason: Reason, file: str, line: int, resource: str | None) -> None:
        """Put a planted fault on the list."""
        self.summary.faults[reason.value] += 1
        self.planted.append(
            {"kind": kind, "reason": reason.value, "file": f"fhir/{file}", "line": line, "resource": resource}
        )

    # ------------------------------------------------------------------ one stay

    def stay(self, stay: Stay, kinds: list[str], *, sparse_after: float) -> None:
        """Write all of one stay."""
        self.put(patient(stay, self.zone))
        for encounter in encounters(stay, self.zone):
            self.put(encounter)
        self.summary.patients += 1
        self.summary.open_stays += stay.discharge is None
        self.summary.icu_stays += stay.icu is not None
        self.summary.deaths += stay.died
        if not stay.silent:
            chart = Chart(stay, self.zone, sparse_after=sparse_after)
            self._observations(stay, chart, kinds)
            self._ecgs(stay, chart, kinds)
            self._radiographs(stay, kinds)
        self.writer.end_of_stay()

    def _observations(self, stay: Stay, chart: Chart, kinds: list[str]) -> None:
        observations = list(chart.resources())
        if self.flood:
            lost = chart.rng.random(len(observations)) < FLOOD_SHARE
            observations = [
                without_unit(item) if gone and "valueQuantity" in item else item
                for item, gone in zip(observations, lost, strict=True)
            ]
        old, new = planting.supersede(kinds, observations, stay.patient_id)
        for observation in observations:
            file, line = self.put(observation)
            if observation is old and new is not None:
                self.list_fault(
                    "superseded", Reason.RESOURCE_SUPERSEDED, file, line, f"Observation/{old['id']}"
                )
        if new is not None:
            self.put(new)
        for fault in plant_observations(kinds, observations, stay.patient_id):
            self.plant("Observation", fault)

    def _moments(self, stay: Stay, rng: np.random.Generator, count: int) -> list[datetime]:
        """Draw times of recordings: the first soon after admission, at least a quarter of an hour old."""
        latest = stay.hours(stay.recorded_until) - 0.5
        hours = sorted(float(rng.uniform(0.3, 46)) for _ in range(count))
        return [
            (stay.admission + timedelta(hours=hour)).replace(microsecond=0) for hour in hours if hour < latest
        ]

    def _ecgs(self, stay: Stay, chart: Chart, kinds: list[str]) -> None:
        rng = stay.rngs[1]
        moments = self._moments(stay, rng, int(rng.integers(1, 3))) if stay.has_ecg else []
        for number, moment in enumerate(moments, start=1):
            self._ecg(stay, chart, f"{number:02d}", moment, rng, fault=None)
        for kind, reason in ECG_FAULTS:
            if kind in kinds:
                moment = (stay.admission + timedelta(minutes=15)).replace(microsecond=0)
                self._ecg(
                    stay, chart, f"f{planting.KINDS.index(kind):02d}", moment, rng, fault=(kind, reason)
                )

    def _ecg(
        self,
        stay: Stay,
        chart: Chart,
        number: str,
        moment: datetime,
        rng: np.random.Generator,
        *,
        fault: tuple[str, Reason] | None,
    ) -> None:
        self.summary.ecgs += 1
        hour = stay.hours(moment)
        heart_rate = float(chart.values["heart_rate"][min(int(hour), chart.values["heart_rate"].size - 1)])
        sampled = WARD_BY_ID[stay.ward_at(moment)].sampled_ecg and fault is None
        rate = 250 if sampled or rng.random() < 0.6 else 500
        severity = stay.course.at("heart", hour)
        samples = synthesise(heart_rate=heart_rate, severity=severity, sampling_rate=rate, rng=rng)
        kind = fault[0] if fault else None
        if kind == "flat ECG":
            samples[:] = 12
        if sampled:
            self.put(chart.sampled_ecg(number, moment, samples, sampling_rate=rate), stem="Observation.ecg")
            return
        archive = self.folder / "wfdb"
        name = f"{stay.patient_id}-{number}"
        local = moment.astimezone(self.zone)
        write_wfdb(archive / stay.patient_id, name, samples, sampling_rate=rate, recorded=local)
        header, signal = (archive / stay.patient_id / f"{name}{ending}" for ending in (".hea", ".dat"))
        if kind == "signal file cut short":
            signal.write_bytes(signal.read_bytes()[: signal.stat().st_size // 3])
        elif kind == "header checksum lies":
            header.write_text(
                re.sub(r"( 16 0 -?\d+) (\d+) 0 (I)$", _lie, header.read_text(), count=1, flags=re.M)
            )
        created = stamp(moment, self.zone)
        items = [
            attachment(content_type, f"{stay.patient_id}/{path.name}", path.read_bytes(), path.name, created)
            for content_type, path in ((WFDB_HEADER, header), (WFDB_SIGNAL, signal))
        ]
        if kind == "attachment outside the archive":
            items = [item | {"url": f"../../outside/{item['title']}"} for item in items]
        elif kind == "attachment is not there":
            header.unlink()
            signal.unlink()
        elif kind == "attachment hash differs":
            items[1] = items[1] | {"hash": attachment("", "", b"other", "", "")["hash"]}
        document = ecg_document(stay, number=number, moment=moment, attachments=items, zone=self.zone)
        file, line = self.put(document)
        if fault:
            self.list_fault(*fault, file, line, f"DocumentReference/{document['id']}")

    def _radiographs(self, stay: Stay, kinds: list[str]) -> None:
        rng = stay.rngs[2]
        moments = self._moments(stay, rng, 1 + int(rng.random() < 0.3)) if stay.has_radiograph else []
        for number, moment in enumerate(moments, start=1):
            self._radiograph(stay, f"{number:02d}", moment, rng, fault=None)
        for kind, reason in IMAGE_FAULTS:
            if kind in kinds:
                moment = (stay.admission + timedelta(minutes=18)).replace(microsecond=0)
                number_text = f"f{planting.KINDS.index(kind):02d}"
                self._radiograph(stay, number_text, moment, rng, fault=(kind, reason))

    def _radiograph(
        self,
        stay: Stay,
        number: str,
        moment: datetime,
        rng: np.random.Generator,
        *,
        fault: tuple[str, Reason] | None,
    ) -> None:
        self.summary.radiographs += 1
        hour = stay.hours(moment)
        kind = fault[0] if fault else None
        portable = WARD_BY_ID[stay.ward_at(moment)].intensive
        uids = make_uids(self.seed, f"{stay.patient_id}-{number}")
        pixels = draw_chest(
            lungs=stay.course.at("lungs", hour),
            heart=stay.course.at("heart", hour),
            size=IMAGE_SIZE,
            portable=portable,
            rng=rng,
        )
        if kind == "blank radiograph":
            pixels = np.full_like(pixels, 0.5)
        variant = float(rng.random())
        data = make_dicom(
            None if kind == "DICOM without pixel data" else pixels,
            uids=uids,
            patient_id=stay.patient_id,
            taken=moment.astimezone(self.zone),
            view="LL" if kind == "lateral view" else "AP" if portable else "PA",
            bits=16 if variant > 0.8 else 12,
            inverted=variant < 0.3,
            syntax="explicit" if kind or variant < 0.5 else "jpeg-ls" if variant < 0.9 else "rle",
        )
        path = self.folder / "dicom" / uids.path
        if kind == "file is no DICOM":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"This is no DICOM object. " * 40)
        elif kind != "study is not in the PACS":
            write_dicom(data, self.folder / "dicom", uids)
        file, line = self.put(self._study(stay, number, moment, uids))
        if fault:
            self.list_fault(*fault, file, line, f"ImagingStudy/{stay.patient_id}-cxr-{number}")

    def _study(self, stay: Stay, number: str, moment: datetime, uids: Uids) -> Resource:
        return imaging_study(
            stay,
            number=number,
            moment=moment,
            study_uid=uids.study,
            series_uid=uids.series,
            instance_uid=uids.instance,
            sop_class=SOP_CLASS,
            zone=self.zone,
        )


WFDB_HEADER = "application/x-wfdb-header"
WFDB_SIGNAL = "application/x-wfdb-signal"


def _lie(match: re.Match[str]) -> str:
    return f"{match[1]} {(int(match[2]) + 1) % 65536} 0 {match[3]}"


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
    builder = _Builder(folder, zone=zone, seed=seed, summary=summary, flood=faults == "flood")
    plan = plan_faults(patients, seed=seed) if faults else {}
    stays: Iterator[Stay] = (history_stays if history else tonight_stays)(
        patients, seed=seed, prediction_time=prediction_time
    )
    try:
        for resource in organisations():
            builder.put(resource)
        for done, stay in enumerate(stays, start=1):
            builder.stay(stay, plan.get(stay.index, []), sparse_after=48 if history else 1e9)
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
