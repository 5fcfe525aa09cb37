"""Broken input, planted on purpose: each fault is one more resource, listed with the reason it must get.

The good data of the patient stays as it is, so that a fault costs the night a row and never a score.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from deploy.demo_hospital.coding import UCUM
from deploy.demo_hospital.observations import without_unit
from deploy.demo_hospital.resources import Resource
from validation.reasons import Reason


@dataclass(frozen=True)
class Planted:
    """A line that must be refused.

    ``text`` is the line as written. ``resource`` names it where it can be named.
    """

    kind: str
    reason: Reason
    text: str
    resource: str | None


@dataclass(frozen=True)
class Fault:
    """A kind of Observation fault: which Observation it starts from, and what becomes of it."""

    kind: str
    reason: Reason
    start: str
    change: Callable[[Resource], Resource]


def _with(**fields: Any) -> Callable[[Resource], Resource]:
    return lambda resource: resource | fields


def _without(*names: str) -> Callable[[Resource], Resource]:
    return lambda resource: {name: value for name, value in resource.items() if name not in names}


def _value(**fields: Any) -> Callable[[Resource], Resource]:
    return lambda resource: resource | {"valueQuantity": resource["valueQuantity"] | fields}


def _only_date(resource: Resource) -> Resource:
    return resource | {"effectiveDateTime": resource["effectiveDateTime"][:10]}


def _no_zone(resource: Resource) -> Resource:
    return resource | {"effectiveDateTime": resource["effectiveDateTime"][:19]}


def _known_before_measured(resource: Resource) -> Resource:
    moment = datetime.fromisoformat(resource["issued"]) + timedelta(hours=9)
    return resource | {"effectiveDateTime": moment.isoformat(timespec="seconds")}


def _crossed_pressure(resource: Resource) -> Resource:
    high, low = resource["component"][0], resource["component"][1]
    crossed = [
        high | {"valueQuantity": high["valueQuantity"] | {"value": 62}},
        low | {"valueQuantity": low["valueQuantity"] | {"value": 101}},
    ]
    # Some minutes later, so that the good panel of that minute is not drawn into the contradiction.
    later = {
        name: (datetime.fromisoformat(resource[name]) + timedelta(minutes=7)).isoformat(timespec="seconds")
        for name in ("effectiveDateTime", "issued")
    }
    return resource | later | {"component": crossed}


def _absent(resource: Resource) -> Resource:
    system = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
    return _without("valueQuantity")(resource) | {
        "dataAbsentReason": {"coding": [{"system": system, "code": "error"}]}
    }


def _no_code(resource: Resource) -> Resource:
    return resource | {"code": {"text": "Heart rate"}}


OBSERVATION_FAULTS: tuple[Fault, ...] = (
    Fault("temperature without unit", Reason.UNIT_MISSING, "temp-", without_unit),
    Fault("weight without unit", Reason.UNIT_MISSING, "weight", without_unit),
    Fault("glucose without unit", Reason.UNIT_MISSING, "pocglu-", without_unit),
    Fault(
        "temperature in degrees Réaumur",
        Reason.UNIT_UNKNOWN,
        "temp-",
        _value(value=29.6, unit="°Ré", system=UCUM, code="[degRe]"),
    ),
    Fault("entered in error", Reason.STATUS_NOT_ACCEPTED, "hr-", _with(status="entered-in-error")),
    Fault("cancelled result", Reason.STATUS_NOT_ACCEPTED, "crea-", _with(status="cancelled")),
    Fault("no subject", Reason.SUBJECT_MISSING, "rr-", _without("subject")),
    Fault("unknown subject", Reason.SUBJECT_UNKNOWN, "rr-", _with(subject={"reference": "Patient/nobody"})),
    Fault("time is only a date", Reason.TIME_PARTIAL, "na-", _only_date),
    Fault("time without zone", Reason.TIME_ZONE_MISSING, "hr-", _no_zone),
    Fault("no time", Reason.TIME_MISSING, "k-", _without("effectiveDateTime")),
    Fault("measured after it was issued", Reason.TIME_IN_FUTURE, "k-", _known_before_measured),
    Fault("heart rate of 900", Reason.VALUE_OUT_OF_RANGE, "hr-", _value(value=900)),
    Fault(
        "98.6 called Celsius", Reason.VALUE_OUT_OF_RANGE, "temp-", _value(value=98.6, unit="Cel", code="Cel")
    ),
    Fault("systolic below diastolic", Reason.PHYSIOLOGY_CONTRADICTION, "bp-", _crossed_pressure),
    Fault("value absent with a reason", Reason.VALUE_ABSENT_REASON, "lac-", _absent),
    Fault("no value at all", Reason.VALUE_MISSING, "hb-", _without("valueQuantity")),
    Fault("code only as text", Reason.CODE_MISSING, "hr-", _no_code),
)
"""Faults that change a copy of one of the stay's own Observations under a new id."""

LINE_FAULTS = ("unreadable line", "duplicate", "superseded", "wrong resource type")
ECG_FAULTS: tuple[tuple[str, Reason], ...] = (
    ("signal file cut short", Reason.ECG_SIGNAL_TRUNCATED),
    ("header checksum lies", Reason.ECG_CHECKSUM_MISMATCH),
    ("attachment outside the archive", Reason.ATTACHMENT_OUTSIDE_ARCHIVE),
    ("attachment is not there", Reason.ATTACHMENT_MISSING),
    ("attachment hash differs", Reason.ATTACHMENT_HASH_MISMATCH),
    ("flat ECG", Reason.ECG_FLAT),
)
IMAGE_FAULTS: tuple[tuple[str, Reason], ...] = (
    ("DICOM without pixel data", Reason.IMAGE_NO_PIXELS),
    ("blank radiograph", Reason.IMAGE_BLANK),
    ("lateral view", Reason.IMAGE_VIEW_NOT_FRONTAL),
    ("study is not in the PACS", Reason.IMAGE_NOT_FOUND),
    ("file is no DICOM", Reason.IMAGE_UNREADABLE),
)

KINDS = (
    *(fault.kind for fault in OBSERVATION_FAULTS),
    *LINE_FAULTS,
    *(kind for kind, _ in ECG_FAULTS),
    *(kind for kind, _ in IMAGE_FAULTS),
)


def plan_faults(patients: int, *, seed: int) -> dict[int, list[str]]:
    """Return which stay (by index) gets which kinds: about two of each kind for 72 patients.

    The first six stays, which play special parts, are spared where there are others.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, 3]))
    first = 7 if patients >= 12 else 1
    copies = max(1, round(patients / 36))
    plan: dict[int, list[str]] = {}
    for kind in KINDS:
        candidates = np.arange(min(first, patients), patients + 1)
        for index in rng.choice(candidates, size=min(copies, candidates.size), replace=False):
            plan.setdefault(int(index), []).append(kind)
    return plan


def dump(resource: Resource) -> str:
    """Write a resource as one NDJSON line without its end."""
    return json.dumps(resource, ensure_ascii=False, separators=(",", ":"))


def plant_observations(kinds: list[str], observations: list[Resource], patient_id: str) -> Iterator[Planted]:
    """Yield the faulty lines of one stay; a kind whose starting Observation the stay lacks is left out."""
    for fault in OBSERVATION_FAULTS:
        if fault.kind not in kinds:
            continue
        start = _find(observations, f"{patient_id}-{fault.start}")
        if start is not None:
            broken = fault.change(start) | {"id": f"{patient_id}-fault-{KINDS.index(fault.kind):02d}"}
            yield Planted(fault.kind, fault.reason, dump(broken), f"Observation/{broken['id']}")
    if not observations:
        return
    last = observations[-1]
    if "unreadable line" in kinds:
        yield Planted("unreadable line", Reason.JSON_UNREADABLE, dump(last)[:-40], None)
    if "wrong resource type" in kinds:
        text = dump({"resourceType": "Basic", "id": f"{patient_id}-basic", "code": {"text": "stray"}})
        yield Planted(
            "wrong resource type", Reason.RESOURCE_UNEXPECTED_TYPE, text, f"Basic/{patient_id}-basic"
        )
    if "duplicate" in kinds:
        yield Planted("duplicate", Reason.RESOURCE_DUPLICATE, dump(last), f"Observation/{last['id']}")


def supersede(
    kinds: list[str], observations: list[Resource], patient_id: str
) -> tuple[Resource | None, Resource | None]:
    """Return an Observation that is about to be corrected, and its correction (version 2)."""
    old = _find(observations, f"{patient_id}-crea-") if "superseded" in kinds else None
    if old is None:
        return None, None
    value = old["valueQuantity"] | {"value": round(old["valueQuantity"]["value"] + 0.1, 2)}
    return old, old | {
        "status": "corrected",
        "meta": old["meta"] | {"versionId": "2"},
        "valueQuantity": value,
    }


def _find(observations: list[Resource], prefix: str) -> Resource | None:
    return next((item for item in observations if item["id"].startswith(prefix)), None)
