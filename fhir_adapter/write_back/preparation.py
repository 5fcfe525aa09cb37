"""From resources as Nightingale names them to resources as one destination can take them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fhir_adapter.write_back.item import Key

ORDER = ("DocumentReference", "Device", "RiskAssessment", "Provenance")
"""Order of writing: entries of a batch must not refer to one another, so each type goes in its own."""


def key_of(resource: Mapping[str, Any]) -> Key:
    """Return type and id."""
    return str(resource["resourceType"]), str(resource["id"])


def model_digests(resources: Sequence[Mapping[str, Any]]) -> dict[Key, str]:
    """Return the weights digest behind each resource, read from the Devices among them."""
    digests = {
        str(item["id"]): str(item["identifier"][0]["value"])
        for item in resources
        if item["resourceType"] == "Device" and item.get("identifier")
    }
    found: dict[Key, str] = {}
    for item in resources:
        kind = item["resourceType"]
        reference = None
        if kind == "Device":
            reference = f"Device/{item['id']}"
        elif kind == "RiskAssessment":
            reference = (item.get("performer") or {}).get("reference")
        elif kind == "Provenance":
            reference = item["agent"][0]["who"].get("reference")
        digest = digests.get(str(reference).removeprefix("Device/"))
        if kind == "DocumentReference" and item.get("identifier"):
            digest = str(item["identifier"][0]["value"])
        if digest:
            found[key_of(item)] = digest
    return found


def localise(
    resource: Mapping[str, Any],
    *,
    own: Mapping[Key, Mapping[str, Any]],
    places: Mapping[Key, str],
) -> dict[str, Any] | None:
    """Return a copy whose references to our other resources hold at the destination.

    Parameters
    ----------
    own
        All resources of this delivery by type and id.
    places
        ``Type/id`` at the destination of those that it holds.

    Returns
    -------
    dict or None
        A reference to a resource that the destination does not hold becomes a logical one, since a
        literal one could not resolve; a Provenance names only targets that are there, and is None
        without any.
    """
    copy = {key: _localised(value, own, places) for key, value in resource.items()}
    if copy.get("resourceType") == "Provenance":
        copy["target"] = [item for item in copy["target"] if "reference" in item]
        if not copy["target"]:
            return None
    return copy


def _localised(value: Any, own: Mapping[Key, Mapping[str, Any]], places: Mapping[Key, str]) -> Any:
    if isinstance(value, list):
        return [_localised(item, own, places) for item in value]
    if not isinstance(value, dict):
        return value
    literal = value.get("reference")
    if isinstance(literal, str):
        kind, _, name = literal.partition("/")
        key = (kind, name)
        if key in own:
            return _place(key, own[key], places.get(key))
    return {name: _localised(item, own, places) for name, item in value.items()}


def _place(key: Key, target: Mapping[str, Any], place: str | None) -> dict[str, Any]:
    if place is not None:
        return {"reference": place}
    logical: dict[str, Any] = {"type": key[0]}
    if target.get("identifier"):
        logical["identifier"] = dict(target["identifier"][0])
    return logical


def in_order(
    resources: Sequence[dict[str, Any]], kinds: Collection[str] = ORDER
) -> list[list[dict[str, Any]]]:
    """Return the resources by type in the order of writing; within a type as they came."""
    return [[item for item in resources if item["resourceType"] == kind] for kind in kinds]
