"""The exact path: one Observation at a time, with the exact reason where it is refused.

This path defines what an Observation means to Nightingale; the columnar path must give the same rows
(a property test holds them together). ``fhir.resources.R4B`` is asked, on refusal, which element breaks R4.

Rules (https://hl7.org/fhir/R4/observation.html):

* status ``final``, ``amended`` or ``corrected``; anything else is refused.
* A ``modifierExtension`` or ``implicitRules`` refuses the resource: it could turn its meaning around.
* The time is effectiveDateTime or effectiveInstant, or the end of effectivePeriod (the value is complete
  only then), or its start where it has no end.
* ``issued`` is the time at which the value was known; if it cannot be read, the resource is refused.
* Each component is a row of its own; a panel without own value leaves only its components' rows.
* valueDateTime and valueTime are kept as text; Range, Ratio and Period are refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from fhir.resources.R4B.observation import Observation
from pydantic import ValidationError

from fhir_adapter.errors import Refusal
from fhir_adapter.references import element_reference, is_id, is_one_of, scalar_text
from fhir_adapter.times import parse_time
from validation.reasons import Reason

READ_TYPES = frozenset({"Patient", "Encounter", "Observation", "DocumentReference", "Media", "ImagingStudy"})
ACCEPTED_STATUS = frozenset({"final", "amended", "corrected"})
COMPARATORS = frozenset({"<", "<=", ">=", ">"})
MAX_TEXT = 256
"""Longest text value kept, in characters: a categorical result, not a note."""
VALUE_TYPES = (
    "valueQuantity",
    "valueCodeableConcept",
    "valueString",
    "valueBoolean",
    "valueInteger",
    "valueDateTime",
    "valueTime",
)
REFUSED_TYPES = ("valueRange", "valueRatio", "valuePeriod", "valueSampledData")
_ALL_VALUES = frozenset((*VALUE_TYPES, *REFUSED_TYPES))
EXPLAINED = frozenset(
    {
        Reason.RESOURCE_INVALID,
        Reason.CODE_MISSING,
        Reason.VALUE_MISSING,
        Reason.VALUE_INVALID,
        Reason.TIME_INVALID,
        Reason.TIME_MISSING,
        Reason.SUBJECT_MISSING,
    }
)


class Value(NamedTuple):
    """What a value[x] says: a number with unit, or a text."""

    number: float | None = None
    text: str | None = None
    comparator: str | None = None
    unit_system: str | None = None
    unit_code: str | None = None
    unit_text: str | None = None


@dataclass
class Reading:
    """Rows of one Observation, and the components that were refused alone."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    refused: list[tuple[int, Refusal]] = field(default_factory=list)


@dataclass(frozen=True)
class Head:
    """What all rows of one resource share."""

    subject_id: int
    encounter_id: str | None
    time: datetime
    available_time: datetime | None
    status: str
    source_ref: str


def source_ref(resource: dict[str, Any]) -> str | None:
    """Return ``Observation/<id>``-like reference of a resource of a type that is read, or None."""
    kind, key = resource.get("resourceType"), scalar_text(resource.get("id"))
    return f"{kind}/{key}" if isinstance(kind, str) and kind in READ_TYPES and is_id(key) else None


def codings(concept: object) -> list[str]:
    """Return ``system|code`` of every coding that has both, in order."""
    found = concept.get("coding") if isinstance(concept, dict) else None
    if not isinstance(found, list):
        return []
    pairs = [(item.get("system"), item.get("code")) for item in found if isinstance(item, dict)]
    return [
        f"{system}|{code}"
        for system, code in pairs
        if system and code and isinstance(system, str) and isinstance(code, str)
    ]


def read_head(
    resource: dict[str, Any], *, subjects: dict[str, int], default_zone: ZoneInfo | None, resource_type: str
) -> Head:
    """Check type, id, status, subject and times; the same for Observations of any kind.

    Raises
    ------
    Refusal
        With the first rule that fails.
    """
    check_identity(resource, resource_type)
    status = resource.get("status")
    if not isinstance(status, str) or status not in ACCEPTED_STATUS:
        raise Refusal(
            Reason.STATUS_NOT_ACCEPTED, str(status) if is_one_of(status, _KNOWN_STATUS) else "status"
        )
    return Head(
        subject_id=read_subject(resource, subjects),
        encounter_id=element_reference(resource.get("encounter"), "Encounter"),
        time=_effective(resource, default_zone),
        available_time=_issued(resource, default_zone),
        status=status,
        source_ref=f"{resource_type}/{scalar_text(resource['id'])}",
    )


def check_identity(resource: dict[str, Any], resource_type: str) -> None:
    """Refuse another type, an unusable id, and content that could negate the rest."""
    kind = resource.get("resourceType")
    if kind == "OperationOutcome":
        raise Refusal(Reason.OPERATION_OUTCOME)
    if kind != resource_type:
        raise Refusal(Reason.RESOURCE_UNEXPECTED_TYPE)
    if not is_id(scalar_text(resource.get("id"))):
        raise Refusal(Reason.RESOURCE_ID_INVALID)
    for element in ("modifierExtension", "implicitRules"):
        if resource.get(element) is not None:
            raise Refusal(Reason.RESOURCE_MODIFIER, element)


def read_subject(resource: dict[str, Any], subjects: dict[str, int]) -> int:
    """Return the subject_id of a resource's patient.

    Raises
    ------
    Refusal
        ``subject.missing`` or ``subject.unknown``.
    """
    patient = element_reference(resource.get("subject"), "Patient")
    if patient is None:
        raise Refusal(Reason.SUBJECT_MISSING)
    if patient not in subjects:
        raise Refusal(Reason.SUBJECT_UNKNOWN)
    return subjects[patient]


def read_observation(
    resource: dict[str, Any], *, subjects: dict[str, int], default_zone: ZoneInfo | None
) -> Reading:
    """Return the rows of one Observation.

    Parameters
    ----------
    subjects
        FHIR id of a patient to subject_id.

    Raises
    ------
    Refusal
        If the resource is refused whole.
    """
    head = read_head(resource, subjects=subjects, default_zone=default_zone, resource_type="Observation")
    own = codings(resource.get("code"))
    components = resource.get("component")
    if components is None:
        components = []
    if not isinstance(components, list):
        raise Refusal(Reason.RESOURCE_INVALID, "component")
    reading = Reading()
    first: Refusal | None = None
    try:
        reading.rows.append(_row(head, own, _value(resource), 0))
    except Refusal as refusal:
        silent_panel = components and refusal.reason in {Reason.VALUE_MISSING, Reason.VALUE_ABSENT_REASON}
        if not silent_panel:
            first = refusal
            reading.refused.append((0, refusal))
    for number, component in enumerate(components, start=1):
        try:
            reading.rows.append(_row(head, *read_component(component), number))
        except Refusal as refusal:
            first = first or refusal
            reading.refused.append((number, refusal))
    if not reading.rows:
        raise first or Refusal(Reason.VALUE_MISSING)
    return reading


def read_component(component: object) -> tuple[list[str], Value]:
    """Return codings and value of one component.

    Raises
    ------
    Refusal
        If it is refused; the other components stand.
    """
    if not isinstance(component, dict):
        raise Refusal(Reason.RESOURCE_INVALID, "component")
    if component.get("modifierExtension") is not None:
        raise Refusal(Reason.RESOURCE_MODIFIER, "component.modifierExtension")
    value = _value(component)
    own = codings(component.get("code"))
    if not own:
        raise Refusal(Reason.CODE_MISSING)
    return own, value


def explain_refusal(refusal: Refusal, resource: dict[str, Any]) -> Refusal:
    """Return the refusal with the elements that break R4, as ``fhir.resources`` names them.

    Element paths and error types only: pydantic's messages may hold values.
    """
    if refusal.reason not in EXPLAINED:
        return refusal
    try:
        Observation.model_validate(resource)
    except ValidationError as error:
        found = [
            f"{'.'.join(_path_step(step) for step in item['loc'])}: {item['type']}"
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        shown = "; ".join(sorted(set(found))[:3])
        return Refusal(refusal.reason, "; ".join(filter(None, [refusal.detail, shown])))
    except (RecursionError, ValueError, TypeError, AttributeError) as error:
        # the library's own validators may trip over odd input before pydantic reports it
        return Refusal(refusal.reason, "; ".join(filter(None, [refusal.detail, type(error).__name__])))
    return refusal


def _path_step(step: object) -> str:
    """Show an element name; a key that came with the data could be anything, and is not shown."""
    if isinstance(step, int):
        return str(step)
    return step if isinstance(step, str) and step in _ELEMENTS else "(unknown element)"


def _row(head: Head, own: list[str], value: Value, component: int) -> dict[str, Any]:
    if not own:
        raise Refusal(Reason.CODE_MISSING)
    return {
        "subject_id": head.subject_id,
        "encounter_id": head.encounter_id,
        "time": head.time,
        "available_time": head.available_time,
        "codings": own,
        "value": value.number,
        "text_value": value.text,
        "comparator": value.comparator,
        "unit_system": value.unit_system,
        "unit_code": value.unit_code,
        "unit_text": value.unit_text,
        "status": head.status,
        "source_ref": head.source_ref,
        "component": component,
    }


def _effective(resource: dict[str, Any], zone: ZoneInfo | None) -> datetime:
    given = [name for name in _EFFECTIVE if resource.get(name) is not None]
    if not given:
        raise Refusal(Reason.TIME_MISSING, "effective")
    if len(given) > 1:
        raise Refusal(Reason.RESOURCE_INVALID, "more than one effective[x]")
    element = given[0]
    if element == "effectiveTiming":
        raise Refusal(Reason.TIME_MISSING, element)
    value = resource[element]
    if element == "effectivePeriod":
        if not isinstance(value, dict):
            raise Refusal(Reason.TIME_INVALID, element)
        edge = "end" if value.get("end") is not None else "start"
        if value.get(edge) is None:
            raise Refusal(Reason.TIME_MISSING, element)
        return parse_time(value[edge], element=f"{element}.{edge}", default_zone=zone)
    return parse_time(value, element=element, default_zone=zone)


def _issued(resource: dict[str, Any], zone: ZoneInfo | None) -> datetime | None:
    value = resource.get("issued")
    return None if value is None else parse_time(value, element="issued", default_zone=zone)


def _value(element: dict[str, Any]) -> Value:
    """Return the value of a resource or component."""
    given = [name for name in element if name in _ALL_VALUES and element[name] is not None]
    absent = element.get("dataAbsentReason") is not None
    if len(given) > 1:
        raise Refusal(Reason.RESOURCE_INVALID, "more than one value[x]")
    if given and absent:
        raise Refusal(Reason.RESOURCE_INVALID, "value[x] beside dataAbsentReason (obs-6)")
    if not given:
        raise Refusal(Reason.VALUE_ABSENT_REASON if absent else Reason.VALUE_MISSING)
    name = given[0]
    if name in REFUSED_TYPES:
        raise Refusal(Reason.VALUE_TYPE_NOT_SUPPORTED, name)
    return _READERS[name](element[name])


def _quantity(value: object) -> Value:
    if not isinstance(value, dict):
        raise Refusal(Reason.VALUE_INVALID, "valueQuantity")
    number = value.get("value")
    if number is None:
        raise Refusal(Reason.VALUE_MISSING, "valueQuantity.value")
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise Refusal(Reason.VALUE_INVALID, "valueQuantity.value")
    comparator = value.get("comparator")
    if comparator is not None and not is_one_of(comparator, COMPARATORS):
        raise Refusal(Reason.VALUE_INVALID, "valueQuantity.comparator")
    return Value(
        number=_finite(number),
        comparator=comparator,
        unit_system=_text_or_none(value.get("system"), "valueQuantity.system"),
        unit_code=_text_or_none(value.get("code"), "valueQuantity.code"),
        unit_text=_text_or_none(value.get("unit"), "valueQuantity.unit"),
    )


def _finite(number: float) -> float:
    try:
        result = float(number)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise Refusal(Reason.VALUE_INVALID, "not finite")
    return result


def read_concept(value: object) -> Value:
    """Return the code of the first coding that has one (levels are coded), else the text."""
    if not isinstance(value, dict):
        raise Refusal(Reason.VALUE_INVALID, "valueCodeableConcept")
    found = value.get("coding")
    for item in found if isinstance(found, list) else []:
        if isinstance(item, dict) and _filled(item.get("code")):
            return Value(text=item["code"][:MAX_TEXT])
    if _filled(value.get("text")):
        return Value(text=value["text"][:MAX_TEXT])
    raise Refusal(Reason.VALUE_MISSING, "valueCodeableConcept")


def _string(value: object) -> Value:
    text = scalar_text(value)
    if text is None:
        raise Refusal(Reason.VALUE_INVALID, "valueString")
    if not text.strip():
        raise Refusal(Reason.VALUE_MISSING, "valueString")
    return Value(text=text[:MAX_TEXT])


def _boolean(value: object) -> Value:
    if not isinstance(value, bool):
        raise Refusal(Reason.VALUE_INVALID, "valueBoolean")
    return Value(text="true" if value else "false")


def _integer(value: object) -> Value:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refusal(Reason.VALUE_INVALID, "valueInteger")
    return Value(number=_finite(value))


def _filled(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _text_or_none(value: object, element: str) -> str | None:
    if isinstance(value, str):
        return value or None
    text = scalar_text(value)
    if text is None and value is not None:
        raise Refusal(Reason.VALUE_INVALID, element)
    return text


_READERS = {
    "valueQuantity": _quantity,
    "valueCodeableConcept": read_concept,
    "valueString": _string,
    "valueBoolean": _boolean,
    "valueInteger": _integer,
    "valueDateTime": _string,
    "valueTime": _string,
}
_EFFECTIVE = ("effectiveDateTime", "effectiveInstant", "effectivePeriod", "effectiveTiming")
_KNOWN_STATUS = frozenset({"registered", "preliminary", "cancelled", "entered-in-error", "unknown"})
_ELEMENTS = frozenset(
    [
        "resourceType",
        "id",
        "meta",
        "implicitRules",
        "language",
        "text",
        "contained",
        "extension",
        "modifierExtension",
        "identifier",
        "basedOn",
        "partOf",
        "status",
        "category",
        "code",
        "subject",
        "focus",
        "encounter",
        "effectiveDateTime",
        "effectivePeriod",
        "effectiveTiming",
        "effectiveInstant",
        "issued",
        "performer",
        "valueQuantity",
        "valueCodeableConcept",
        "valueString",
        "valueBoolean",
        "valueInteger",
        "valueRange",
        "valueRatio",
        "valueSampledData",
        "valueTime",
        "valueDateTime",
        "valuePeriod",
        "dataAbsentReason",
        "interpretation",
        "note",
        "bodySite",
        "method",
        "specimen",
        "device",
        "referenceRange",
        "hasMember",
        "derivedFrom",
        "component",
        "coding",
        "system",
        "version",
        "display",
        "userSelected",
        "reference",
        "type",
        "value",
        "comparator",
        "unit",
        "start",
        "end",
        "low",
        "high",
        "appliesTo",
        "age",
        "origin",
        "period",
        "factor",
        "lowerLimit",
        "upperLimit",
        "dimensions",
        "data",
        "versionId",
        "lastUpdated",
        "source",
        "profile",
        "security",
        "tag",
        "url",
        "use",
        "assigner",
        "numerator",
        "denominator",
        "authorReference",
        "authorString",
        "time",
    ]
)
