"""The report as bodies of FHIR R4 resources: plain dicts, since this room does not speak FHIR.

Posting them is the adapter's work. The MeasureReport carries the night's counts as group populations
(https://hl7.org/fhir/R4/measurereport.html), type ``summary``, hence no patient; the DocumentReference
carries the page itself (https://hl7.org/fhir/R4/documentreference.html).
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from validation.report.facts import ReportFacts

COUNTS = (
    ("resources", ("pulled", "accepted", "quarantined")),
    ("encounters", ("eligible", "scored", "skipped")),
    ("risk-assessments", ("scored", "confirmed", "dead_lettered")),
)


def _key(facts: ReportFacts, site_uri: str, kind: str) -> str:
    return str(uuid5(NAMESPACE_URL, f"{site_uri}|{facts.site}|{facts.partition}|{kind}"))


def _period(facts: ReportFacts) -> dict[str, str]:
    moment = facts.prediction_time or facts.generated_at
    return {"start": moment.isoformat(timespec="seconds"), "end": moment.isoformat(timespec="seconds")}


def measure_report(facts: ReportFacts, *, site_uri: str) -> dict[str, Any]:
    """Return the body of a MeasureReport with the night's counts.

    Parameters
    ----------
    site_uri
        Base URI of the site's identifiers and codes.

    Returns
    -------
    dict
        The id is the same for the same site and night, so that a PUT repeated changes nothing else.
    """
    numbers = facts.counts.to_dict()
    system = f"{site_uri}/CodeSystem/nightly-count"
    identifier = _key(facts, site_uri, "MeasureReport")
    return {
        "resourceType": "MeasureReport",
        "id": identifier,
        "identifier": [{"system": f"{site_uri}/identifier/nightly-report", "value": identifier}],
        "status": "complete",
        "type": "summary",
        "measure": f"{site_uri}/Measure/nightly-data-quality",
        "date": facts.generated_at.isoformat(timespec="seconds"),
        "period": _period(facts),
        "group": [
            {
                "code": {"coding": [{"system": system, "code": group}]},
                "population": [
                    {
                        "code": {"coding": [{"system": system, "code": name.replace("_", "-")}]},
                        "count": numbers[name],
                    }
                    for name in names
                ],
            }
            for group, names in COUNTS
        ],
    }


def document_reference(facts: ReportFacts, page: str, *, site_uri: str) -> dict[str, Any]:
    """Return the body of a DocumentReference that holds the report's page.

    Parameters
    ----------
    page
        Result of :func:`validation.report.page.render_page`.
    """
    content = page.encode("utf-8")
    digest = hashlib.sha1(
        content, usedforsecurity=False
    ).digest()  # FHIR's Attachment.hash is SHA-1 by definition
    identifier = _key(facts, site_uri, "DocumentReference")
    return {
        "resourceType": "DocumentReference",
        "id": identifier,
        "identifier": [{"system": f"{site_uri}/identifier/nightly-report", "value": identifier}],
        "status": "current",
        "type": {"text": "Nightly data-quality report"},
        "date": facts.generated_at.isoformat(timespec="seconds"),
        "description": f"Data quality of night {facts.partition} at {facts.site}; aggregates only.",
        "content": [
            {
                "attachment": {
                    "contentType": "text/html; charset=utf-8",
                    "language": "en",
                    "data": base64.b64encode(content).decode("ascii"),
                    "size": len(content),
                    "hash": base64.b64encode(digest).decode("ascii"),
                    "title": f"nightingale-{facts.partition}.html",
                    "creation": facts.generated_at.isoformat(timespec="seconds"),
                }
            }
        ],
    }
