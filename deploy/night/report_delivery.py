"""The morning report as FHIR resources at the destination, where the site asks for it."""

from __future__ import annotations

import logging
from typing import Any

from deploy.night.connections import destination_transport
from deploy.settings import Settings
from fhir_adapter.errors import RequestError
from fhir_adapter.transport import Transport
from fhir_adapter.write_back import NdjsonDrop
from validation.report import ReportFacts
from validation.report.exchange import document_reference, measure_report

log = logging.getLogger(__name__)


def report_resources(settings: Settings, facts: ReportFacts, page: str) -> list[dict[str, Any]]:
    """Return the bodies that ``destination.report`` asks for."""
    wanted = settings.destination.report
    if wanted == "none":
        return []
    counts = measure_report(facts, site_uri=settings.site.uri)
    if wanted == "counts":
        return [counts]
    return [counts, document_reference(facts, page, site_uri=settings.site.uri)]


def deliver_report(settings: Settings, facts: ReportFacts, page: str) -> dict[str, str]:
    """Write the report to the destination; a night does not fail because its report was refused there.

    A night has one id for each, so that a night that is run again replaces its report.

    Returns
    -------
    dict
        ``written`` or the class of the error, by resource type.
    """
    resources = report_resources(settings, facts, page)
    if not resources:
        return {}
    if settings.destination.kind == "ndjson":
        drop = NdjsonDrop(settings.destination.folder / settings.site.name)
        for resource in resources:
            drop.write(f"{resource['resourceType']}-report", facts.partition, [resource])
        return {resource["resourceType"]: "written" for resource in resources}
    with destination_transport(settings) as transport:
        return {resource["resourceType"]: _put(transport, resource) for resource in resources}


def _put(transport: Transport, resource: dict[str, Any]) -> str:
    kind = resource["resourceType"]
    try:
        transport.request("PUT", f"{kind}/{resource['id']}", json=resource)
    except RequestError as error:
        log.warning("the report's %s was not written: %s", kind, type(error).__name__)
        return type(error).__name__
    return "written"
