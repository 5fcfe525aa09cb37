"""What a FHIR server and a PACS allow: version, search, export, writing; tried, not only read from /metadata."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from deploy.doctor.check import Check, failed, ok, warning
from fhir_adapter.errors import AdapterError, AuthorizationError
from fhir_adapter.sources.capabilities import Capabilities, read_capabilities
from fhir_adapter.transport import Reply, Transport

READ = ("Patient", "Encounter", "Observation", "DocumentReference", "ImagingStudy")
WRITTEN = ("RiskAssessment", "Device", "Provenance")
SKEW_WARNING, SKEW_FAILED = 30.0, 300.0


def software_name(statement: dict[str, Any]) -> str:
    """Return name and version of the server's software, as far as it tells them."""
    found = statement.get("software")
    software = found if isinstance(found, dict) else {}
    return " ".join(str(software[key]) for key in ("name", "version") if key in software)


def check_reading(transport: Transport, *, kind: str, statement: dict[str, Any]) -> Iterable[Check]:
    """Yield version, declared searches or exports, and a real search of one resource of each type."""
    capabilities: Capabilities = read_capabilities(transport)
    name = software_name(statement)
    yield ok("source.server", f"FHIR {capabilities.fhir_version}{f', {name}' if name else ''}")
    if kind == "bulk" and not capabilities.bulk_export:
        yield warning(
            "source.export",
            "/metadata declares no $export",
            "some servers export without saying so; else set source.kind = 'search'",
        )
    absent = capabilities.missing_search(list(READ))
    if absent:
        yield warning(
            "source.search",
            f"/metadata declares no search of {', '.join(absent)}",
            "the night runs without these; Patient, Encounter and Observation are the least it needs",
        )
    undated = sorted(set(READ) - capabilities.last_updated - set(absent))
    if undated:
        yield ok("source.updated", f"no _lastUpdated for {', '.join(undated)}: every night reads them whole")
    yield from _try_searches(transport)


def _try_searches(transport: Transport) -> Iterable[Check]:
    refused, readable = [], []
    for resource_type in READ:
        try:
            transport.get_json(resource_type, params={"_count": "1"})
            readable.append(resource_type)
        except AuthorizationError:
            refused.append(resource_type)
        except AdapterError as error:
            refused.append(f"{resource_type} ({getattr(error, 'status', None) or type(error).__name__})")
    if refused:
        scopes = " ".join(f"system/{name.split()[0]}.read" for name in refused)
        yield failed(
            "source.rights",
            f"the server refused a search of {', '.join(refused)}",
            f"ask its administrators for {scopes}",
        )
    else:
        yield ok("source.rights", f"may search {', '.join(readable)}")


def writing_ways(statement: dict[str, Any], resource_type: str) -> list[str]:
    """Return how a type can be written so that a repeat does no harm, best first.

    ``update`` (PUT with our id), ``conditional create``, ``conditional update``.
    """
    for rest in _dicts(statement.get("rest")):
        for resource in _dicts(rest.get("resource")):
            if resource.get("type") != resource_type:
                continue
            actions = {str(action.get("code")) for action in _dicts(resource.get("interaction"))}
            ways = []
            if "update" in actions and resource.get("updateCreate"):
                ways.append("update")
            if "create" in actions and resource.get("conditionalCreate"):
                ways.append("conditional create")
            if "update" in actions and resource.get("conditionalUpdate"):
                ways.append("conditional update")
            return ways
    return []


def check_writing(statement: dict[str, Any]) -> Iterable[Check]:
    """Yield how scores can be written; nothing is written to find out."""
    for resource_type in WRITTEN:
        ways = writing_ways(statement, resource_type)
        subject = f"destination.{resource_type}"
        if ways:
            yield ok(subject, f"can be written by {', '.join(ways)}")
        elif resource_type == "RiskAssessment":
            yield failed(
                subject,
                "/metadata declares no write that may be repeated safely",
                "set destination.kind = 'ndjson' and load the files by your interface engine",
            )
        else:
            yield warning(
                subject,
                "/metadata declares no write that may be repeated safely",
                "scores can be written without it; set destination.transparency_profiles = false",
            )


def check_clock(reply: Reply, *, now: datetime, subject: str) -> Iterable[Check]:
    """Yield how far our clock is from the server's Date header (whole seconds)."""
    text = reply.headers.get("date")
    if not text:
        yield ok(subject, "the server sends no Date header; clocks were not compared")
        return
    try:
        skew = abs((parsedate_to_datetime(text) - now).total_seconds())
    except (TypeError, ValueError):
        yield ok(subject, "the server's Date header cannot be read; clocks were not compared")
        return
    found = f"{skew:.0f} s from the FHIR server's clock"
    remedy = "synchronise this machine's clock (chrony, NTP): tokens and times depend on it"
    if skew > SKEW_FAILED:
        yield failed(subject, found, remedy)
    elif skew > SKEW_WARNING:
        yield warning(subject, found, remedy)
    else:
        yield ok(subject, found)


def check_pacs(transport: Transport) -> Iterable[Check]:
    """Yield whether the PACS answers a QIDO-RS search for one study."""
    reply = transport.request(
        "GET", "studies", params={"limit": "1"}, headers={"Accept": "application/dicom+json"}
    )
    yield ok("images.server", f"DICOMweb answers (status {reply.status})")


def _dicts(found: object) -> Sequence[dict[str, Any]]:
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
