"""Who is there: Patients and Encounters to the census of a night.

Kinds of encounter, first rule that fits (see docs/reading.md):

==========  ========================================================================================
``icu``     identifier system ends in ``encounter-icu``; or an ICU code (SNOMED CT 305351004, 309904001;
            v3 ICU, PEDICU, PEDNICU, PEDCICU; NUCC ``icu``) in type, serviceType or a location's type;
            or class ``ACUTE`` with ``partOf`` (MIMIC-IV on FHIR)
``hospital``  identifier system ends in ``encounter-hosp``; or class ``IMP``, ``ACUTE``, ``NONAC``,
            ``OBSENC``, ``SS`` or ``PRENC``
``emergency``  identifier system ends in ``encounter-ed``; or class ``EMER``
``other``   everything else (ambulatory, virtual, home)
==========  ========================================================================================

Classes: http://terminology.hl7.org/CodeSystem/v3-ActCode.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from fhir_adapter.errors import Refusal, unforeseen_refused
from fhir_adapter.limits import Limits
from fhir_adapter.ndjson import parse_line, read_blocks
from fhir_adapter.observations.exact import check_identity, read_subject, source_ref
from fhir_adapter.quarantine import QuarantineLog
from fhir_adapter.references import element_reference, is_one_of, reference_id, scalar_text
from fhir_adapter.times import parse_date, parse_time
from validation.contracts import empty
from validation.reasons import Reason

ICU_CODES = frozenset({"305351004", "309904001", "ICU", "PEDICU", "PEDNICU", "PEDCICU", "icu"})
HOSPITAL_CLASSES = frozenset({"IMP", "ACUTE", "NONAC", "OBSENC", "SS", "PRENC"})
ENCOUNTER_STATUS = frozenset({"planned", "arrived", "triaged", "in-progress", "onleave", "finished"})
IDENTIFIER_KINDS = {"encounter-icu": "icu", "encounter-hosp": "hospital", "encounter-ed": "emergency"}
DIED = frozenset({"exp", "died", "expired", "20", "419099009"})
"""Discharge dispositions that mean death: HL7 ``exp``, MIMIC ``DIED``, UB-04 20, SNOMED CT 419099009."""
SEXES = frozenset({"male", "female", "other", "unknown"})
MAX_SUBJECT_ID = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class Census:
    """Tables of the people and stays of a night.

    Attributes
    ----------
    encounters, outcomes, quarantine
        Contract tables.
    subjects
        ``patient_id`` (FHIR id), ``subject_id`` (int64), ``patient_ref``.
    pulled, accepted
        Resources; pulled = accepted + quarantined.
    """

    encounters: pl.DataFrame
    outcomes: pl.DataFrame
    subjects: pl.DataFrame
    quarantine: pl.DataFrame
    pulled: int
    accepted: int


@dataclass(frozen=True)
class _Patient:
    patient_id: str
    subject_id: int
    birth_date: date | None
    sex: str
    deceased: date | datetime | bool | None


@dataclass(frozen=True)
class _Line:
    file: str
    number: int
    resource: dict[str, Any]


def read_census(
    *,
    patients: list[Path],
    encounters: list[Path],
    subject_system: str | None,
    default_zone: str | None,
    limits: Limits | None = None,
) -> Census:
    """Read Patient and Encounter files.

    Parameters
    ----------
    subject_system
        Identifier system whose integer value becomes ``subject_id``; None hashes the FHIR id.
    default_zone
        IANA zone of times that carry none.

    Raises
    ------
    SourceError
        If a file cannot be read to its end.
    """
    limits = limits or Limits()
    zone = ZoneInfo(default_zone) if default_zone else None
    log = QuarantineLog(stage="census")
    pulled = [0]
    people: dict[str, _Patient] = {}
    taken: dict[int, str] = {}
    for line in _newest(patients, limits, log, pulled):
        try:
            with unforeseen_refused():
                patient = _read_patient(line.resource, subject_system, zone)
            if taken.setdefault(patient.subject_id, patient.patient_id) != patient.patient_id:
                raise Refusal(Reason.RESOURCE_DUPLICATE, "two patients with one identifier")
            people[patient.patient_id] = patient
        except Refusal as refusal:
            log.add(refusal, file=line.file, line=line.number, ref=source_ref(line.resource))
    subjects = {key: patient.subject_id for key, patient in people.items()}
    rows = []
    facts = {}
    for line in _newest(encounters, limits, log, pulled):
        try:
            with unforeseen_refused():
                row = _read_encounter(line.resource, subjects, people, zone)
            rows.append(row | {"source_file": line.file, "source_line": line.number})
            facts[row["encounter_id"]] = _disposition(line.resource)
        except Refusal as refusal:
            log.add(refusal, file=line.file, line=line.number, ref=source_ref(line.resource))
    table = pl.DataFrame(rows, schema=empty("encounters").schema).sort("subject_id", "start", "encounter_id")
    return Census(
        encounters=table,
        outcomes=_outcomes(rows, facts, people),
        subjects=pl.DataFrame(
            [(key, number, f"Patient/{key}") for key, number in sorted(subjects.items())],
            schema={"patient_id": pl.String, "subject_id": pl.Int64, "patient_ref": pl.String},
            orient="row",
        ),
        quarantine=log.frame(),
        pulled=pulled[0],
        accepted=len(people) + table.height,
    )


def _newest(files: list[Path], limits: Limits, log: QuarantineLog, pulled: list[int]) -> Iterator[_Line]:
    """Yield the newest version of every resource; older ones and repeats go to quarantine."""
    kept: dict[str, tuple[tuple[str, int], _Line]] = {}
    plain: list[_Line] = []
    for path in files:
        for block in read_blocks(path, block_bytes=limits.block_bytes, max_line_bytes=limits.max_line_bytes):
            pulled[0] += len(block.numbered) + len(block.too_long)
            for number in block.too_long:
                log.add(Refusal(Reason.JSON_TOO_LONG), file=path.name, line=number)
            for number, raw in block.numbered:
                try:
                    line = _Line(path.name, number, parse_line(raw))
                except Refusal as refusal:
                    log.add(refusal, file=path.name, line=number)
                    continue
                key = scalar_text(line.resource.get("id"))
                if key is None:
                    plain.append(line)
                    continue
                version = _version(line.resource)
                if key not in kept:
                    kept[key] = (version, line)
                    continue
                older = kept[key] if version > kept[key][0] else (version, line)
                reason = Reason.RESOURCE_DUPLICATE if version == kept[key][0] else Reason.RESOURCE_SUPERSEDED
                if version > kept[key][0]:
                    kept[key] = (version, line)
                log.add(
                    Refusal(reason),
                    file=older[1].file,
                    line=older[1].number,
                    ref=source_ref(older[1].resource),
                )
    yield from plain
    for _, line in kept.values():
        yield line


def _version(resource: dict[str, Any]) -> tuple[str, int]:
    """Return something that grows with the version: lastUpdated in UTC, then a numeric versionId."""
    found = resource.get("meta")
    meta = found if isinstance(found, dict) else {}
    try:
        updated = parse_time(
            meta.get("lastUpdated"), element="meta.lastUpdated", default_zone=ZoneInfo("UTC")
        )
        text = updated.isoformat(timespec="microseconds")
    except Refusal:
        text = ""
    version = scalar_text(meta.get("versionId")) or ""
    return text, int(version) if version.isdecimal() and len(version) < 19 else -1


def subject_number(resource: dict[str, Any], subject_system: str | None) -> int:
    """Return the subject_id of a Patient.

    Raises
    ------
    Refusal
        If the site names an identifier system and the patient has no integer identifier in it.
    """
    if subject_system is None:
        digest = hashlib.sha256(str(scalar_text(resource["id"])).encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1
    found = resource.get("identifier")
    for item in found if isinstance(found, list) else []:
        if isinstance(item, dict) and item.get("system") == subject_system:
            text = scalar_text(item.get("value")) or ""
            if text.isascii() and text.isdecimal() and len(text) <= 19 and int(text) <= MAX_SUBJECT_ID:
                return int(text)
    raise Refusal(Reason.SUBJECT_MISSING, "no integer identifier of the site's system")


def _read_patient(resource: dict[str, Any], subject_system: str | None, zone: ZoneInfo | None) -> _Patient:
    check_identity(resource, "Patient")
    if resource.get("active") is False:
        raise Refusal(Reason.STATUS_NOT_ACCEPTED, "active")
    gender = resource.get("gender")
    moment = resource.get("deceasedDateTime")
    deceased: date | datetime | bool | None = resource.get("deceasedBoolean")
    if moment is not None:
        try:
            deceased = parse_time(moment, element="deceasedDateTime", default_zone=zone)
        except Refusal:
            deceased = parse_date(moment) or True  # a month or year still says that the patient died
    return _Patient(
        patient_id=str(scalar_text(resource["id"])),
        subject_id=subject_number(resource, subject_system),
        birth_date=parse_date(resource.get("birthDate")),
        sex=str(gender) if is_one_of(gender, SEXES) else "unknown",
        deceased=deceased if isinstance(deceased, (date, bool)) else None,
    )


def _read_encounter(
    resource: dict[str, Any], subjects: dict[str, int], people: dict[str, _Patient], zone: ZoneInfo | None
) -> dict[str, Any]:
    check_identity(resource, "Encounter")
    status = resource.get("status")
    if not is_one_of(status, ENCOUNTER_STATUS):
        raise Refusal(Reason.STATUS_NOT_ACCEPTED, "status")
    subject_id = read_subject(resource, subjects)
    patient = people[str(element_reference(resource.get("subject"), "Patient"))]
    start, end = _period(resource.get("period"), zone)
    key = str(scalar_text(resource["id"]))
    moves = _moves(resource, zone)
    hospitalization = resource.get("hospitalization")
    source = hospitalization.get("admitSource") if isinstance(hospitalization, dict) else None
    sources = _codes(source)
    return {
        "encounter_id": key,
        "subject_id": subject_id,
        "patient_ref": f"Patient/{patient.patient_id}",
        "encounter_ref": f"Encounter/{key}",
        "kind": encounter_kind(resource),
        "encounter_class": _class_code(resource),
        "status": status,
        "part_of": element_reference(resource.get("partOf"), "Encounter"),
        "start": start,
        "end": end,
        "ward": moves[-1]["ward"] if moves else None,
        "moves": moves,
        "birth_date": patient.birth_date,
        "sex": patient.sex,
        "admission_source": sources[0] if sources else None,
    }


def encounter_kind(resource: dict[str, Any]) -> str:
    """Return ``icu``, ``hospital``, ``emergency`` or ``other`` by the table at the top of this module."""
    identifiers = resource.get("identifier")
    for item in identifiers if isinstance(identifiers, list) else []:
        system = item.get("system") if isinstance(item, dict) else None
        kind = IDENTIFIER_KINDS.get(system.rsplit("/", 1)[-1]) if isinstance(system, str) else None
        if kind:
            return kind
    code = _class_code(resource)
    concepts = [resource.get("serviceType")]
    types = resource.get("type")
    concepts += types if isinstance(types, list) else []
    locations = resource.get("location")
    concepts += [item.get("physicalType") for item in _dicts(locations)]
    if any(found in ICU_CODES for concept in concepts for found in _codes(concept)) or code in ICU_CODES:
        return "icu"
    if code == "ACUTE" and resource.get("partOf") is not None:
        return "icu"
    if code in HOSPITAL_CLASSES:
        return "hospital"
    return "emergency" if code == "EMER" else "other"


def _class_code(resource: dict[str, Any]) -> str | None:
    found = resource.get("class")
    code = found.get("code") if isinstance(found, dict) else None
    return code if isinstance(code, str) else None


def _codes(concept: object) -> list[str]:
    found = concept.get("coding") if isinstance(concept, dict) else None
    return [item["code"] for item in _dicts(found) if isinstance(item.get("code"), str)]


def _dicts(found: object) -> list[dict[str, Any]]:
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _period(period: object, zone: ZoneInfo | None) -> tuple[datetime, datetime | None]:
    if not isinstance(period, dict) or period.get("start") is None:
        raise Refusal(Reason.TIME_MISSING, "period.start")
    start = parse_time(period["start"], element="period.start", default_zone=zone)
    if period.get("end") is None:
        return start, None
    end = parse_time(period["end"], element="period.end", default_zone=zone)
    if end < start:
        raise Refusal(Reason.TIME_INVALID, "period.end before period.start")
    return start, end


def _moves(resource: dict[str, Any], zone: ZoneInfo | None) -> list[dict[str, Any]]:
    """Return stays in wards by start; a stay whose time cannot be read has none."""
    moves = []
    for item in _dicts(resource.get("location")):
        place = item.get("location")
        reference = place.get("reference") if isinstance(place, dict) else None
        display = place.get("display") if isinstance(place, dict) else None
        ward = reference_id(reference, "Location") or (display if isinstance(display, str) else None)
        try:
            start, end = _period(item.get("period"), zone)
        except Refusal:
            start, end = None, None
        moves.append({"ward": ward, "start": start, "end": end})
    never = datetime.max.replace(tzinfo=ZoneInfo("UTC"))
    return sorted(moves, key=lambda move: (move["start"] or never, move["end"] or never, move["ward"] or ""))


def _disposition(resource: dict[str, Any]) -> str | None:
    """Return ``died``, ``alive`` or None where the resource does not say."""
    found = resource.get("hospitalization")
    codes = _codes(found.get("dischargeDisposition")) if isinstance(found, dict) else []
    if not codes:
        return None
    return "died" if any(code.lower() in DIED for code in codes) else "alive"


def _outcomes(
    rows: list[dict[str, Any]], dispositions: dict[str, str | None], people: dict[str, _Patient]
) -> pl.DataFrame:
    """Return what became of every stay; a stay inside another takes the outer one's fate."""
    by_id = {row["encounter_id"]: row for row in rows}
    icu_days: dict[str, float] = {}
    for row in rows:
        if row["kind"] == "icu" and row["end"] is not None:
            days = (row["end"] - row["start"]) / timedelta(days=1)
            icu_days[row["encounter_id"]] = days
            if row["part_of"] in by_id:
                icu_days[row["part_of"]] = icu_days.get(row["part_of"], 0.0) + days
    result = []
    for row in rows:
        outer = by_id.get(row["part_of"] or "", row)
        patient = people[row["patient_ref"].removeprefix("Patient/")]
        died = _died(outer, dispositions.get(outer["encounter_id"]), patient)
        result.append(
            {
                "encounter_id": row["encounter_id"],
                "subject_id": row["subject_id"],
                "discharge_time": row["end"] if row["status"] == "finished" else None,
                "death_time": _death_time(patient, outer, died),
                "died_in_hospital": died,
                "icu_days": icu_days.get(row["encounter_id"]),
            }
        )
    return pl.DataFrame(result, schema=empty("outcomes").schema).sort("subject_id", "encounter_id")


def _died(stay: dict[str, Any], disposition: str | None, patient: _Patient) -> bool | None:
    if disposition is not None:
        return disposition == "died"
    if isinstance(patient.deceased, datetime):
        inside = stay["end"] is None or patient.deceased <= stay["end"]
        return bool(patient.deceased >= stay["start"] and inside)
    if isinstance(patient.deceased, date):
        inside = stay["end"] is None or patient.deceased <= stay["end"].date()
        return bool(patient.deceased >= stay["start"].date() and inside)
    if stay["status"] != "finished" or patient.deceased is True:
        return None
    return False


def _death_time(patient: _Patient, stay: dict[str, Any], died: bool | None) -> datetime | None:
    """Return the time of death; with only a day known, the end of the stay that ended in death."""
    if isinstance(patient.deceased, datetime):
        return patient.deceased
    if died:
        end: datetime | None = stay["end"]
        return end
    if isinstance(patient.deceased, date):  # the day's end: the patient surely lived until that day began
        day = patient.deceased + timedelta(days=1)
        return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo("UTC"))
    return None
