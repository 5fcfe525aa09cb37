"""FHIR R4 resources of the demo hospital as JSON dicts, other than Observations."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from deploy.demo_hospital.coding import HOSPITAL, LOINC, SNOMED, TEST_DATA, WARDS
from deploy.demo_hospital.dicom import SOP_CLASS, Uids
from deploy.demo_hospital.stays import Move, Stay

Resource = dict[str, Any]
ORGANISATION_ID = "demo-hospital"
ENDPOINT_ID = "demo-pacs"
WFDB_HEADER = "application/x-wfdb-header"
WFDB_SIGNAL = "application/x-wfdb-signal"
"""No registered media types exist for WFDB; these are agreed with :mod:`fhir_adapter.waveforms`."""
DICOMWEB_ADDRESS = f"{HOSPITAL}/dicom-web"
"""Placeholder address of the PACS in the NDJSON files; loading into a server replaces it by the real one."""

META: Resource = {"versionId": "1", "security": [TEST_DATA]}
NARRATIVE = {
    "status": "generated",
    "div": '<div xmlns="http://www.w3.org/1999/xhtml">Synthetic test data, no patient.</div>',
}


def stamp(moment: datetime, zone: tzinfo) -> str:
    """Write an instant in a zone, to the second."""
    return moment.astimezone(zone).replace(microsecond=0).isoformat()


def endpoint() -> Resource:
    """Return the Endpoint of the PACS."""
    return {
        "resourceType": "Endpoint",
        "id": ENDPOINT_ID,
        "meta": META,
        "text": NARRATIVE,
        "status": "active",
        "connectionType": {
            "system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type",
            "code": "dicom-wado-rs",
        },
        "name": "Demo PACS, DICOMweb (synthetic)",
        "managingOrganization": {"reference": f"Organization/{ORGANISATION_ID}"},
        "payloadType": [{"text": "DICOM WADO-RS"}],
        "payloadMimeType": ["application/dicom"],
        "address": DICOMWEB_ADDRESS,
    }


def organisations() -> list[Resource]:
    """Return the Organization, its wards as Locations, and the PACS Endpoint."""
    resources: list[Resource] = [
        {
            "resourceType": "Organization",
            "id": ORGANISATION_ID,
            "meta": META,
            "text": NARRATIVE,
            "identifier": [{"system": f"{HOSPITAL}/organisations", "value": "demo"}],
            "active": True,
            "name": "Demo hospital (synthetic)",
        },
        endpoint(),
    ]
    return resources + [
        {
            "resourceType": "Location",
            "id": ward.id,
            "meta": META,
            "text": NARRATIVE,
            "status": "active",
            "name": ward.name,
            "mode": "instance",
            "type": [
                {
                    "coding": [
                        {
                            "system": "http://terminology.hl7.org/CodeSystem/v3-RoleCode",
                            "code": "ICU" if ward.intensive else "HU",
                            "display": "Intensive care unit" if ward.intensive else "Hospital unit",
                        }
                    ]
                }
            ],
            "physicalType": {
                "coding": [
                    {
                        "system": "http://terminology.hl7.org/CodeSystem/location-physical-type",
                        "code": "wa",
                        "display": "Ward",
                    }
                ]
            },
            "managingOrganization": {"reference": f"Organization/{ORGANISATION_ID}"},
        }
        for ward in WARDS
    ]


def patient(stay: Stay, zone: ZoneInfo) -> Resource:
    """Return the Patient."""
    resource: Resource = {
        "resourceType": "Patient",
        "id": stay.patient_id,
        "meta": META,
        "text": NARRATIVE,
        "identifier": [{"use": "usual", "system": f"{HOSPITAL}/patients", "value": stay.name}],
        "active": True,
        "name": [{"use": "official", "text": stay.name, "family": stay.name, "given": ["Synthetic"]}],
        "gender": "male" if stay.male else "female",
        "birthDate": stay.birth_date.isoformat(),
        "managingOrganization": {"reference": f"Organization/{ORGANISATION_ID}"},
    }
    if stay.died and stay.discharge:
        resource["deceasedDateTime"] = stamp(stay.discharge, zone)
    return resource


def _period(start: datetime, end: datetime | None, zone: ZoneInfo) -> Resource:
    period = {"start": stamp(start, zone)}
    if end is not None:
        period["end"] = stamp(end, zone)
    return period


def _locations(moves: tuple[Move, ...], zone: ZoneInfo) -> list[Resource]:
    return [
        {
            "location": {"reference": f"Location/{move.ward}"},
            "status": "completed" if move.end else "active",
            "period": _period(move.start, move.end, zone),
        }
        for move in moves
    ]


def encounters(stay: Stay, zone: ZoneInfo) -> list[Resource]:
    """Return the hospital Encounter and, where there is one, the intensive care Encounter ``partOf`` it."""
    act_code = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
    subject = {"reference": f"Patient/{stay.patient_id}"}
    stationary: Resource = {
        "admitSource": {
            "coding": [
                {
                    "system": "http://terminology.hl7.org/CodeSystem/admit-source",
                    "code": ("emd", "gp", "hosp-trans")[stay.index % 3],
                }
            ]
        }
    }
    if stay.discharge:
        stationary["dischargeDisposition"] = {
            "coding": [
                {
                    "system": "http://terminology.hl7.org/CodeSystem/discharge-disposition",
                    "code": "exp" if stay.died else "home",
                }
            ]
        }
    resources: list[Resource] = [
        {
            "resourceType": "Encounter",
            "id": stay.encounter_id,
            "meta": META,
            "text": NARRATIVE,
            "identifier": [{"system": f"{HOSPITAL}/visits", "value": stay.encounter_id}],
            "status": "finished" if stay.discharge else "in-progress",
            "class": {"system": act_code, "code": "IMP", "display": "inpatient encounter"},
            "type": [{"coding": [{"system": SNOMED, "code": "32485007", "display": "Hospital admission"}]}],
            "subject": subject,
            "period": _period(stay.admission, stay.discharge, zone),
            "hospitalization": stationary,
            "location": _locations(stay.moves, zone),
            "serviceProvider": {"reference": f"Organization/{ORGANISATION_ID}"},
        }
    ]
    icu = stay.icu
    if icu:
        resources.append(
            {
                "resourceType": "Encounter",
                "id": f"{stay.patient_id}-icu",
                "meta": META,
                "text": NARRATIVE,
                "identifier": [{"system": f"{HOSPITAL}/visits", "value": f"{stay.patient_id}-icu"}],
                "status": "finished" if icu.end else "in-progress",
                "class": {"system": act_code, "code": "ACUTE", "display": "inpatient acute"},
                "type": [
                    {
                        "coding": [
                            {
                                "system": f"{HOSPITAL}/encounter-types",
                                "code": "ICU",
                                "display": "Intensive care stay",
                            },
                            {
                                "system": SNOMED,
                                "code": "305351004",
                                "display": "Admission to intensive care unit",
                            },
                        ]
                    }
                ],
                "subject": subject,
                "period": _period(icu.start, icu.end, zone),
                "location": _locations((icu,), zone),
                "serviceProvider": {"reference": f"Organization/{ORGANISATION_ID}"},
                "partOf": {"reference": f"Encounter/{stay.encounter_id}"},
            }
        )
    return resources


def attachment(content_type: str, url: str, data: bytes, title: str, created: str) -> Resource:
    """Return an Attachment by relative URL with size and SHA-1, as FHIR R4 defines ``hash``."""
    digest = hashlib.sha1(data, usedforsecurity=False).digest()
    return {
        "contentType": content_type,
        "url": url,
        "size": len(data),
        "hash": base64.b64encode(digest).decode("ascii"),
        "title": title,
        "creation": created,
    }


def ecg_document(
    *,
    resource_id: str,
    patient_id: str,
    encounter_id: str,
    moment: datetime,
    attachments: list[Resource],
    zone: tzinfo,
    description: str = "12-lead ECG (synthetic)",
) -> Resource:
    """Return the DocumentReference of a twelve-lead ECG kept as WFDB header and signal files."""
    return {
        "resourceType": "DocumentReference",
        "id": resource_id,
        "meta": META,
        "text": NARRATIVE,
        "identifier": [{"system": f"{HOSPITAL}/ecgs", "value": resource_id}],
        "status": "current",
        "docStatus": "final",
        "type": {
            "coding": [
                {"system": f"{HOSPITAL}/documents", "code": "ECG12"},
                {"system": LOINC, "code": "11524-6", "display": "EKG study"},
            ]
        },
        "subject": {"reference": f"Patient/{patient_id}"},
        "date": stamp(moment + timedelta(minutes=6), zone),
        "description": description,
        "content": [{"attachment": item} for item in attachments],
        "context": {
            "encounter": [{"reference": f"Encounter/{encounter_id}"}],
            "period": {"start": stamp(moment, zone), "end": stamp(moment + timedelta(seconds=10), zone)},
        },
    }


def imaging_study(
    *,
    resource_id: str,
    patient_id: str,
    encounter_id: str,
    moment: datetime,
    uids: Uids,
    zone: tzinfo,
    description: str = "Chest radiograph (synthetic)",
) -> Resource:
    """Return the ImagingStudy of one chest radiograph with one instance."""
    modality = {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "DX"}
    instance = {
        "uid": uids.instance,
        "sopClass": {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{SOP_CLASS}"},
        "number": 1,
    }
    return {
        "resourceType": "ImagingStudy",
        "id": resource_id,
        "meta": META,
        "text": NARRATIVE,
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{uids.study}"}],
        "status": "available",
        "modality": [modality],
        "subject": {"reference": f"Patient/{patient_id}"},
        "encounter": {"reference": f"Encounter/{encounter_id}"},
        "started": stamp(moment, zone),
        "endpoint": [{"reference": f"Endpoint/{ENDPOINT_ID}"}],
        "numberOfSeries": 1,
        "numberOfInstances": 1,
        "description": description,
        "series": [
            {
                "uid": uids.series,
                "number": 1,
                "modality": modality,
                "numberOfInstances": 1,
                "bodySite": {"system": SNOMED, "code": "51185008", "display": "Thoracic structure"},
                "instance": [instance],
            }
        ],
    }
