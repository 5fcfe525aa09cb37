"""What a server's /metadata and discovery document tell about the settings that fit it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from deploy.doctor.servers import READ, software_name, writing_ways
from fhir_adapter.errors import AdapterError
from fhir_adapter.sources.capabilities import Capabilities, read_capabilities
from fhir_adapter.transport import Transport

Values = dict[tuple[str, str], Any]

VENDORS = {
    "epic": (
        "Epic: registers one client id per environment; allows one export per client and group, and declares no "
        "_lastUpdated, so a night reads by query. Ask for system/ scopes of the types below.",
        {"extra_headers": {"Epic-Client-ID": "PUT-THE-CLIENT-ID-HERE"}},
    ),
    "cerner": ("Oracle Health: repeats resources in exports (they are merged) and limits bursts.", {}),
    "oracle": ("Oracle Health: repeats resources in exports (they are merged) and limits bursts.", {}),
    "hapi": ("HAPI FHIR: search and update-as-create work as they are.", {}),
}


@dataclass
class Proposal:
    """Settings for a site.

    Attributes
    ----------
    values
        ``(section, field)`` to value, for what should differ from the defaults.
    notes
        ``(section, field)`` to a line that says why, or what to look at.
    """

    values: Values = field(default_factory=dict)
    notes: dict[tuple[str, str], str] = field(default_factory=dict)

    def put(self, section: str, name: str, value: Any, note: str = "") -> None:
        """Set a field and say why."""
        self.values[section, name] = value
        if note:
            self.notes[section, name] = note


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a server said.

    Attributes
    ----------
    statement
        Its CapabilityStatement.
    smart
        Its ``.well-known/smart-configuration``, or empty.
    pacs
        DICOMweb address of the first Endpoint that it lists, or None.
    """

    capabilities: Capabilities
    statement: dict[str, Any]
    smart: Mapping[str, Any] = field(default_factory=dict)
    pacs: str | None = None


def probe(transport: Transport) -> Probe:
    """Ask a server what it can do; only its /metadata must answer."""
    capabilities = read_capabilities(transport)
    statement = transport.get_json("metadata")
    smart: Mapping[str, Any] = {}
    pacs = None
    with suppress(AdapterError):  # a server without SMART has none
        smart = transport.get_json(".well-known/smart-configuration", headers={"Accept": "application/json"})
    with suppress(AdapterError):  # Endpoints may need rights that a first look does not have
        pacs = dicomweb_address(transport.get_json("Endpoint", params={"_count": "20"}))
    return Probe(capabilities=capabilities, statement=statement, smart=smart, pacs=pacs)


def dicomweb_address(bundle: Mapping[str, Any]) -> str | None:
    """Return the address of the first DICOM WADO-RS Endpoint of a search, without study and below."""
    for entry in bundle.get("entry") or []:
        endpoint = entry.get("resource") if isinstance(entry, dict) else None
        if not isinstance(endpoint, dict) or not isinstance(endpoint.get("address"), str):
            continue
        kind = endpoint.get("connectionType")
        if isinstance(kind, dict) and kind.get("code") == "dicom-wado-rs":
            return str(endpoint["address"]).split("/studies", 1)[0].rstrip("/")
    return None


def propose(base_url: str, found: Probe) -> Proposal:
    """Turn what a server said into settings, each with its reason."""
    proposal = Proposal()
    put = proposal.put
    software = software_name(found.statement)
    version = found.capabilities.fhir_version
    put("source", "kind", "search", f"FHIR {version}{f', {software}' if software else ''}.")
    if found.capabilities.bulk_export:
        proposal.notes["source", "kind"] += " It declares $export too: kind = 'bulk' suits many patients."
    put("source", "base_url", base_url)
    for name, (note, fields) in VENDORS.items():
        if name in software.lower():
            proposal.notes["source", "base_url"] = note
            for key, value in fields.items():
                put("source", key, value)
            break
    absent = found.capabilities.missing_search(list(READ))
    if absent:
        proposal.notes["source", "queries"] = f"/metadata declares no search of {', '.join(absent)}."
    if found.smart.get("token_endpoint"):
        _smart(proposal)
    ways = writing_ways(found.statement, "RiskAssessment")
    if ways:
        put("destination", "kind", "fhir", f"RiskAssessment can be written by {', '.join(ways)}.")
        profiles = all(writing_ways(found.statement, kind) for kind in ("Device", "Provenance"))
        put("destination", "transparency_profiles", profiles)
    else:
        put(
            "destination",
            "kind",
            "ndjson",
            "/metadata declares no safe write of RiskAssessment: files instead.",
        )
    if found.pacs:
        put("images", "kind", "dicomweb", "From the server's first dicom-wado-rs Endpoint.")
        put("images", "base_url", found.pacs)
    return proposal


def _smart(proposal: Proposal) -> None:
    note = "The server offers SMART: register a backend service and put its client id here."
    for section in ("source", "destination"):
        proposal.put(f"{section}.auth", "kind", "smart")
        proposal.put(f"{section}.auth", "client_id", "PUT-THE-CLIENT-ID-HERE", note)
        proposal.put(f"{section}.auth", "private_key_file", "/etc/nightingale/private_key.pem", "chmod 600.")
