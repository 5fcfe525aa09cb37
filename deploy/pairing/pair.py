"""Give the patients of an ICU data set ECGs and chest films of other, unrelated people.

No open data set holds ICU records, ECGs and radiographs of the same patients, so a replay over open records
has to borrow. What comes out shows that files are found, decoded, dated, fused and named in a score; it can
say nothing about how well a model predicts. Every borrowed object says so.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from deploy.demo_hospital.dicom import add_pixels, make_header, make_uids, write_dicom
from deploy.demo_hospital.faults import dump
from deploy.demo_hospital.ndjson import NdjsonFolder
from deploy.demo_hospital.resources import (
    WFDB_HEADER,
    WFDB_SIGNAL,
    attachment,
    ecg_document,
    endpoint,
    imaging_study,
    stamp,
)
from deploy.errors import DeployError
from deploy.pairing.archives import (
    Ecg,
    Radiograph,
    list_ecgs,
    list_radiographs,
    read_grey,
    redate_header,
)
from fhir_adapter.census import encounter_kind

WINDOW_HOURS = 46.0
"""Recordings are dated in the first 46 hours of the ICU stay, so that a replay at 48 hours knows them."""

TAG = {
    "system": "https://nightingale.invalid/fhir/CodeSystem/provenance-of-test-data",
    "code": "artificial-pairing",
    "display": "taken from an unrelated person for a plumbing test",
}
NOTE = """# Artificial pairing

The ECGs (PTB-XL) and chest radiographs (NIH ChestX-ray14) in this folder belong to other people than the ICU
patients whose records they are attached to. They were assigned at random (seed {seed}, share {share}) and
dated anew within the first {hours:.0f} hours of each ICU stay.

This proves plumbing only: that files are found, checked, decoded, fused and named in a score. A score
computed from such a patient, and any measure of performance over such patients, means nothing.

{ecgs} ECGs and {radiographs} radiographs for {stays} ICU stays. Licences of the sources apply: PTB-XL is
CC BY 4.0; for ChestX-ray14 the NIH Clinical Center asks to be acknowledged as the source.
"""


Lent = TypeVar("Lent", Ecg, Radiograph)


@dataclass(frozen=True)
class PairingSummary:
    """What was paired.

    Attributes
    ----------
    stays
        ICU stays in the source.
    ecgs, radiographs
        Stays that were given one.
    """

    stays: int
    ecgs: int
    radiographs: int

    def to_dict(self) -> dict[str, int]:
        """Return a JSON-ready dict."""
        return asdict(self)


@dataclass(frozen=True)
class _IcuStay:
    encounter_id: str
    patient_id: str
    start: datetime
    hours: float


def pair(
    source_fhir: Path,
    ptbxl: Path,
    images: Path,
    out: Path,
    *,
    share: float = 0.8,
    seed: int = 20260115,
    include_source: bool = False,
) -> PairingSummary:
    """Write ECGs and radiographs for a share of the ICU stays of a FHIR data set.

    Parameters
    ----------
    source_fhir
        Folder of NDJSON(.gz) with Encounters.
    ptbxl, images
        Folders of the PTB-XL and the NIH ChestX-ray14 excerpts.
    out
        Target; must be empty or absent. Gets ``fhir/*.ndjson``, ``wfdb/``, ``dicom/`` and ``PAIRING.md``.
    share
        Share of stays that get an ECG, and, drawn independently, a radiograph. Each person of the archives
        is lent to one patient at most; where the archive is too small, fewer stays get one.
    seed
        Same seed and input give the same bytes.
    include_source
        Also link (or copy, on another file system) the source's own files into ``out/fhir``, so that one
        folder holds all of a night's input.

    Raises
    ------
    DeployError
        If ``out`` is not empty, ``share`` is not in 0 to 1, an archive is missing, or the source holds no
        stay in intensive care.
    """
    if not 0 <= share <= 1:
        raise DeployError("the share of stays to pair must lie between 0 and 1")
    if out.is_dir() and any(out.iterdir()):
        raise DeployError(f"{out} is not empty; remove it or choose another folder for the paired data")
    stays = _icu_stays(source_fhir)
    if not stays:
        raise DeployError(f"{source_fhir} holds no Encounter in intensive care")
    rng = np.random.default_rng(seed)
    ecgs = _assign(stays, list_ecgs(ptbxl), share, rng)
    films = _assign(stays, list_radiographs(images), share, rng)
    files = NdjsonFolder(out / "fhir")
    try:
        files.write("Endpoint.paired", dump(_tagged(endpoint())))
        for stay, ecg in ecgs:
            files.write("DocumentReference.paired", dump(_lend_ecg(stay, ecg, out / "wfdb", rng)))
        for stay, film in films:
            files.write("ImagingStudy.paired", dump(_lend_film(stay, film, out / "dicom", seed, rng)))
    finally:
        files.close()
    if include_source:
        _take_along(source_fhir, out / "fhir")
    summary = PairingSummary(stays=len(stays), ecgs=len(ecgs), radiographs=len(films))
    note = NOTE.format(seed=seed, share=share, hours=WINDOW_HOURS, **summary.to_dict())
    (out / "PAIRING.md").write_text(note, encoding="utf-8")
    return summary


def _icu_stays(folder: Path) -> list[_IcuStay]:
    """Return stays in intensive care with a start, sorted by id."""
    stays = {}
    for resource in _encounters(folder):
        period = resource.get("period") or {}
        if encounter_kind(resource) != "icu" or "start" not in period:
            continue
        start = datetime.fromisoformat(period["start"])
        hours = WINDOW_HOURS
        if "end" in period:
            hours = min(hours, (datetime.fromisoformat(period["end"]) - start).total_seconds() / 3600)
        patient = resource["subject"]["reference"].removeprefix("Patient/")
        stays[resource["id"]] = _IcuStay(resource["id"], patient, start, hours)
    return [stays[key] for key in sorted(stays)]


def _encounters(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted([*folder.rglob("*Encounter*.ndjson"), *folder.rglob("*Encounter*.ndjson.gz")]):
        open_file = gzip.open if path.suffix == ".gz" else open
        with open_file(path, "rt", encoding="utf-8") as file:
            for line in file:
                try:
                    resource = json.loads(line)
                except json.JSONDecodeError:
                    continue  # the night itself reads this file again and puts the line into quarantine
                if resource.get("resourceType") == "Encounter":
                    yield resource


def _assign(
    stays: list[_IcuStay], lent: list[Lent], share: float, rng: np.random.Generator
) -> list[tuple[_IcuStay, Lent]]:
    """Draw stays, and for each patient's stays people of the archive that nobody else gets."""
    drawn = [stay for stay, number in zip(stays, rng.random(len(stays)), strict=True) if number < share]
    order = rng.permutation(len(lent))
    return [(stay, lent[index]) for stay, index in zip(drawn, order, strict=False)]


def _moment(stay: _IcuStay, rng: np.random.Generator) -> datetime:
    hour = float(rng.uniform(0.2, 0.95)) * stay.hours
    return (stay.start + timedelta(hours=hour)).replace(microsecond=0)


def _tagged(resource: dict[str, Any]) -> dict[str, Any]:
    return resource | {"meta": resource["meta"] | {"tag": [TAG]}}


def _lend_ecg(stay: _IcuStay, ecg: Ecg, archive: Path, rng: np.random.Generator) -> dict[str, Any]:
    moment, zone = _moment(stay, rng), stay.start.tzinfo
    assert zone is not None  # noqa: S101 - FHIR instants carry an offset
    name = f"ecg-{stay.encounter_id}"
    folder = archive / stay.patient_id
    folder.mkdir(parents=True, exist_ok=True)
    note = "PTB-XL recording of an unrelated person, paired artificially for a plumbing test"
    header, signal = folder / f"{name}.hea", folder / f"{name}.dat"
    text = ecg.record.with_name(f"{ecg.record.name}.hea").read_text(encoding="ascii")
    header.write_text(redate_header(text, name=name, recorded=moment, note=note) + "\n", encoding="ascii")
    signal.write_bytes(ecg.record.with_name(f"{ecg.record.name}.dat").read_bytes())
    attachments = [
        attachment(kind, f"{stay.patient_id}/{path.name}", path.read_bytes(), path.name, stamp(moment, zone))
        for kind, path in ((WFDB_HEADER, header), (WFDB_SIGNAL, signal))
    ]
    return _tagged(
        ecg_document(
            resource_id=name,
            patient_id=stay.patient_id,
            encounter_id=stay.encounter_id,
            moment=moment,
            attachments=attachments,
            zone=zone,
            description="12-lead ECG of an unrelated person (PTB-XL), paired artificially",
        )
    )


def _lend_film(
    stay: _IcuStay, film: Radiograph, archive: Path, seed: int, rng: np.random.Generator
) -> dict[str, Any]:
    moment, zone = _moment(stay, rng), stay.start.tzinfo
    assert zone is not None  # noqa: S101 - FHIR instants carry an offset
    uids = make_uids(seed, f"paired-{stay.encounter_id}")
    data = make_header(
        uids=uids,
        patient_id=stay.patient_id,
        patient_name="Paired^Artificially",
        taken=moment,
        view=film.view,
        note="NIH ChestX-ray14 image of an unrelated person, paired artificially for a plumbing test",
    )
    add_pixels(data, read_grey(film.path), bits=8, inverted=False, spacing=round(film.spacing, 4))
    write_dicom(data, archive, uids)
    return _tagged(
        imaging_study(
            resource_id=f"cxr-{stay.encounter_id}",
            patient_id=stay.patient_id,
            encounter_id=stay.encounter_id,
            moment=moment,
            uids=uids,
            zone=zone,
            description="Chest radiograph of an unrelated person (NIH ChestX-ray14), paired artificially",
        )
    )


def _take_along(source: Path, target: Path) -> None:
    for path in sorted([*source.rglob("*.ndjson"), *source.rglob("*.ndjson.gz")]):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, copy)
        except OSError:  # another file system, or one without links
            shutil.copyfile(path, copy)
