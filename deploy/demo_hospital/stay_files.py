"""One stay after another to files: the good resources, and the broken ones among them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from deploy.demo_hospital import faults as planting
from deploy.demo_hospital.coding import WARD_BY_ID
from deploy.demo_hospital.dicom import add_pixels, make_header, make_uids, write_dicom
from deploy.demo_hospital.electrocardiogram import synthesise, write_wfdb
from deploy.demo_hospital.faults import ECG_FAULTS, IMAGE_FAULTS, Planted, dump, plant_observations
from deploy.demo_hospital.ndjson import NdjsonFolder
from deploy.demo_hospital.observations import Chart, without_unit
from deploy.demo_hospital.radiograph import draw_chest
from deploy.demo_hospital.resources import (
    WFDB_HEADER,
    WFDB_SIGNAL,
    Resource,
    attachment,
    ecg_document,
    encounters,
    imaging_study,
    patient,
    stamp,
)
from deploy.demo_hospital.stays import Stay
from deploy.demo_hospital.summary import HospitalSummary
from validation.reasons import Reason

FLOOD_SHARE = 0.6
IMAGE_SIZE = 256


class StayFiles:
    """Writes stay after stay: FHIR resources, ECG files, DICOM objects, and the list of planted faults."""

    def __init__(
        self, folder: Path, *, zone: ZoneInfo, seed: int, summary: HospitalSummary, flood: bool
    ) -> None:
        self.folder, self.zone, self.seed, self.summary, self.flood = folder, zone, seed, summary, flood
        self.writer = NdjsonFolder(folder / "fhir")
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

    def stay(self, stay: Stay, kinds: list[str], *, sparse_after: float, pace: float) -> None:
        """Write all of one stay."""
        self.put(patient(stay, self.zone))
        for encounter in encounters(stay, self.zone):
            self.put(encounter)
        self.summary.patients += 1
        self.summary.open_stays += stay.discharge is None
        self.summary.icu_stays += stay.icu is not None
        self.summary.deaths += stay.died
        if not stay.silent:
            chart = Chart(stay, self.zone, sparse_after=sparse_after, pace=pace)
            self._observations(stay, chart, kinds)
            self._ecgs(stay, chart, kinds)
            self._radiographs(stay, kinds)
        self.writer.end_of_stay()

    def _observations(self, stay: Stay, chart: Chart, kinds: list[str]) -> None:
        originals = observations = list(chart.resources())
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
        for fault in plant_observations(kinds, originals, stay.patient_id):
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
        document = ecg_document(
            resource_id=f"{stay.patient_id}-ecg-{number}",
            patient_id=stay.patient_id,
            encounter_id=stay.encounter_at(moment),
            moment=moment,
            attachments=items,
            zone=self.zone,
        )
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
        data = make_header(
            uids=uids,
            patient_id=stay.patient_id,
            patient_name=f"Synthetic^{stay.patient_id}",
            taken=moment.astimezone(self.zone),
            view="LL" if kind == "lateral view" else "AP" if portable else "PA",
            note="SYNTHETIC test data: drawn by a program, shows no patient",
        )
        if kind != "DICOM without pixel data":
            inverted, bits = variant < 0.3, 16 if variant > 0.8 else 12
            shown = 1 - pixels if inverted else pixels
            add_pixels(
                data,
                np.round(shown * (2**bits - 1) * 0.9).astype(np.uint16),
                bits=bits,
                inverted=inverted,
                spacing=1.4,
                syntax="explicit" if kind or variant < 0.5 else "jpeg-ls" if variant < 0.9 else "rle",
            )
        path = self.folder / "dicom" / uids.path
        if kind == "file is no DICOM":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"This is no DICOM object. " * 40)
        elif kind != "study is not in the PACS":
            write_dicom(data, self.folder / "dicom", uids)
        study = imaging_study(
            resource_id=f"{stay.patient_id}-cxr-{number}",
            patient_id=stay.patient_id,
            encounter_id=stay.encounter_at(moment),
            moment=moment,
            uids=uids,
            zone=self.zone,
        )
        file, line = self.put(study)
        if fault:
            self.list_fault(*fault, file, line, f"ImagingStudy/{stay.patient_id}-cxr-{number}")


def _lie(match: re.Match[str]) -> str:
    return f"{match[1]} {(int(match[2]) + 1) % 65536} 0 {match[3]}"
