"""FHIR ids and references (https://hl7.org/fhir/R4/references.html)."""

from __future__ import annotations

import json
import re
from collections.abc import Collection

import polars as pl

ID_PATTERN = r"[A-Za-z0-9\-.]{1,64}"
"""A FHIR id (https://hl7.org/fhir/R4/datatypes.html#id)."""

_ID = re.compile(ID_PATTERN)


def is_id(value: object) -> bool:
    """Tell whether a value is a FHIR id.

    Examples
    --------
    >>> is_id("a-1.B"), is_id("../x"), is_id(None)
    (True, False, False)
    """
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def scalar_text(value: object) -> str | None:
    """Return a JSON scalar as text, None for null, objects and arrays.

    Some senders write ``"id": 5``; the meaning is plain, so it is not worth a refusal.

    Examples
    --------
    >>> scalar_text("a"), scalar_text(5), scalar_text(True), scalar_text({})
    ('a', '5', 'true', None)
    """
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, (bool, int, float)) else None


def is_one_of(value: object, allowed: Collection[str | None]) -> bool:
    """Tell whether a JSON value is one of some texts; an object or array is none, and cannot be looked up.

    Examples
    --------
    >>> is_one_of("final", {"final"}), is_one_of({"code": "final"}, {"final"})
    (True, False)
    """
    return (value is None or isinstance(value, str)) and value in allowed


def reference_pattern(resource_type: str) -> str:
    """Return a pattern whose first group is the id in a literal reference, relative or absolute."""
    return rf"^(?:\S*/)?{resource_type}/({ID_PATTERN})(?:/_history/{ID_PATTERN})?$"


def reference_id(reference: object, resource_type: str) -> str | None:
    """Return the id of a literal reference to a resource type, or None.

    Absolute addresses count by their end, because exports name their own server.

    Examples
    --------
    >>> reference_id("Patient/7", "Patient"), reference_id("https://a.example/Patient/7", "Patient")
    ('7', '7')
    >>> reference_id("Group/7", "Patient") is None
    True
    """
    if not isinstance(reference, str):
        return None
    match = re.fullmatch(reference_pattern(resource_type)[1:-1], reference)
    return match[1] if match else None


def element_reference(element: object, resource_type: str) -> str | None:
    """Return the id that a Reference element points to, or None."""
    return reference_id(element.get("reference"), resource_type) if isinstance(element, dict) else None


def reference_id_expression(reference: pl.Expr, resource_type: str) -> pl.Expr:
    """Return :func:`reference_id` as a polars expression."""
    return reference.str.extract(reference_pattern(resource_type), 1)
