"""What must hold of every resource that leaves: the R4 structure, and rules that the structure does not know.

``fhir.resources`` checks elements and types. It does not check required value sets or invariants, so
``status``, probabilities and references are checked here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from fhir.resources.R4B import get_fhir_model_class
from pydantic import ValidationError

from fhir_adapter.references import ID_PATTERN, is_id

STATUSES = {
    "RiskAssessment": frozenset(
        [
            "registered",
            "preliminary",
            "final",
            "amended",
            "corrected",
            "cancelled",
            "entered-in-error",
            "unknown",
        ]
    ),
    "Observation": frozenset(
        [
            "registered",
            "preliminary",
            "final",
            "amended",
            "corrected",
            "cancelled",
            "entered-in-error",
            "unknown",
        ]
    ),
    "Device": frozenset({"active", "inactive", "entered-in-error", "unknown"}),
    "DocumentReference": frozenset({"current", "superseded", "entered-in-error"}),
}
_REFERENCE = re.compile(rf"(?:https?://\S+/)?[A-Z][A-Za-z]{{1,40}}/{ID_PATTERN}(?:/_history/{ID_PATTERN})?")


@cache
def _model(resource_type: str) -> Any:
    return get_fhir_model_class(resource_type)


def problems(resource: dict[str, Any]) -> list[str]:
    """Return what is wrong with a resource as names of elements and rules, never values.

    Examples
    --------
    >>> problems({"resourceType": "Device", "id": "a", "status": "bogus"})
    ['status: not in the value set']
    """
    kind = resource.get("resourceType")
    if kind not in {"RiskAssessment", "Observation", "Device", "DocumentReference", "Provenance"}:
        return ["resourceType: not written by Nightingale"]
    found = []
    if not is_id(resource.get("id")):
        found.append("id: not a FHIR id")
    try:
        _model(kind).model_validate(resource)
    except ValidationError as error:
        for item in error.errors(include_input=False, include_url=False, include_context=False):
            place = ".".join(str(part) for part in item["loc"]) or "resource"
            found.append(f"{place}: {item['type']}")
    if kind in STATUSES and resource.get("status") not in STATUSES[kind]:
        found.append("status: not in the value set")
    if kind == "RiskAssessment":
        found += _risk_problems(resource)
    found += [f"{place}: not a reference" for place in _bad_references(resource, kind)]
    return found


def _risk_problems(resource: dict[str, Any]) -> Iterator[str]:
    for name in ("subject", "encounter", "performer"):
        if not isinstance(resource.get(name), dict):
            yield f"{name}: missing"
    if not resource.get("occurrenceDateTime"):
        yield "occurrenceDateTime: missing"
    for prediction in resource.get("prediction") or [{}]:
        value = prediction.get("probabilityDecimal")
        if value is not None and not (
            isinstance(value, (int, float)) and math.isfinite(value) and 0 <= value <= 1
        ):
            yield "prediction.probabilityDecimal: not between 0 and 1"
        if not prediction.get("outcome"):
            yield "prediction.outcome: missing"


def _bad_references(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, dict):
        literal = value.get("reference")
        if isinstance(literal, str) and not _REFERENCE.fullmatch(literal):
            yield f"{place}.reference"
        for key, child in value.items():
            yield from _bad_references(child, f"{place}.{key}")
    elif isinstance(value, list):
        for child in value:
            yield from _bad_references(child, place)
