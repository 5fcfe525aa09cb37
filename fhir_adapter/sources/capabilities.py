"""What a server says it can do (``/metadata``), checked before a source is relied on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fhir_adapter.errors import ContentError
from fhir_adapter.transport import Transport


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """The reading side of a CapabilityStatement.

    Attributes
    ----------
    fhir_version
        ``4.0.1`` for R4.
    searchable
        Types with the ``search-type`` interaction.
    last_updated
        Types that declare the ``_lastUpdated`` search parameter.
    bulk_export
        Whether ``$export`` is declared at any level.
    """

    fhir_version: str
    searchable: frozenset[str]
    last_updated: frozenset[str]
    bulk_export: bool

    def missing_search(self, resource_types: list[str]) -> list[str]:
        """Return the types that cannot be searched."""
        return [kind for kind in resource_types if kind not in self.searchable]


def read_capabilities(transport: Transport) -> Capabilities:
    """Read ``/metadata``.

    Raises
    ------
    ContentError
        If it is no CapabilityStatement of FHIR R4.
    """
    statement = transport.get_json("metadata")
    version = str(statement.get("fhirVersion", ""))
    if statement.get("resourceType") != "CapabilityStatement":
        raise ContentError("metadata: the answer is not a CapabilityStatement")
    if not version.startswith("4."):
        raise ContentError("metadata: the server does not speak FHIR R4")
    rests = [item for item in _dicts(statement.get("rest")) if item.get("mode", "server") == "server"]
    resources = [item for rest in rests for item in _dicts(rest.get("resource"))]
    operations = [
        operation for holder in [*rests, *resources] for operation in _dicts(holder.get("operation"))
    ]
    common = {parameter.get("name") for rest in rests for parameter in _dicts(rest.get("searchParam"))}
    return Capabilities(
        fhir_version=version,
        searchable=frozenset(
            str(item.get("type"))
            for item in resources
            if any(action.get("code") == "search-type" for action in _dicts(item.get("interaction")))
        ),
        last_updated=frozenset(
            str(item.get("type"))
            for item in resources
            if "_lastUpdated" in common
            or any(parameter.get("name") == "_lastUpdated" for parameter in _dicts(item.get("searchParam")))
        ),
        bulk_export=any(str(item.get("name", "")).lstrip("$") == "export" for item in operations),
    )


def _dicts(found: object) -> list[dict[str, Any]]:
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
