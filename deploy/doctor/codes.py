"""Whether the site's Observations speak codes that the catalogue knows, counted on a sample."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.doctor.check import Check, failed, ok, warning
from fhir_adapter.ndjson import read_blocks
from fhir_adapter.transport import Transport

SAMPLE = 500
LEAST_KNOWN = 0.5


@dataclass(frozen=True)
class CodingCount:
    """Codings of a sample of Observations.

    Attributes
    ----------
    known, total
        Observations or components at least one of whose codings the catalogue has, and all of them.
    unknown
        ``system|code`` of the others by frequency; no display, for it may be free text.
    """

    known: int
    total: int
    unknown: Counter[str]


def count_codings(observations: Iterable[dict[str, Any]], known: Collection[str]) -> CodingCount:
    """Count codings of Observations and of their components against the catalogue.

    Examples
    --------
    >>> rate = {"code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}, "valueInteger": 80}
    >>> count_codings([rate], {"http://loinc.org|8867-4"})
    CodingCount(known=1, total=1, unknown=Counter())
    """
    hits = total = 0
    unknown: Counter[str] = Counter()
    for observation in observations:
        for item in _measured(observation):
            found = list(_codings(item))
            total += 1
            if any(coding in known for coding in found):
                hits += 1
            else:
                unknown[found[0] if found else "(no coding)"] += 1
    return CodingCount(hits, total, unknown)


def _measured(observation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    components = observation.get("component")
    parts = [part for part in components if isinstance(part, dict)] if isinstance(components, list) else []
    yield from parts
    if not parts or any(key.startswith("value") for key in observation):
        yield observation


def _codings(item: dict[str, Any]) -> Iterator[str]:
    code = item.get("code")
    codings = code.get("coding") if isinstance(code, dict) else None
    for coding in codings if isinstance(codings, list) else []:
        if isinstance(coding, dict) and coding.get("code"):
            yield f"{coding.get('system', '')}|{coding['code']}"


def sample_file(path: Path, limit: int = SAMPLE) -> list[dict[str, Any]]:
    """Return the first Observations of an NDJSON file; lines that cannot be read are passed over."""
    found: list[dict[str, Any]] = []
    for block in read_blocks(path):
        for line in block.lines:
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict) and value.get("resourceType") == "Observation":
                found.append(value)
            if len(found) >= limit:
                return found
    return found


def sample_server(transport: Transport, limit: int = SAMPLE) -> list[dict[str, Any]]:
    """Return the Observations of one page of a search, the newest first where the server sorts."""
    bundle = transport.get_json("Observation", params={"_count": str(limit), "_sort": "-_lastUpdated"})
    entries = bundle.get("entry")
    resources = [
        entry.get("resource")
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict)
    ]
    return [
        item for item in resources if isinstance(item, dict) and item.get("resourceType") == "Observation"
    ]


def judge_codings(count: CodingCount) -> Iterable[Check]:
    """Yield what share of a sample the catalogue knows, and what it does not."""
    if not count.total:
        yield warning(
            "source.codes", "no Observation to look at", "is the source empty, or the night's filter wrong?"
        )
        return
    share = count.known / count.total
    found = f"{share:.0%} of {count.total} sampled values have a code that the catalogue knows"
    common = ", ".join(f"{code} ({n})" for code, n in count.unknown.most_common(5))
    remedy = (
        f"most frequent unknown: {common}. Name what matters in a file of your site "
        "(site.codes; docs/add_a_feature.md)"
    )
    if not count.known:
        yield failed("source.codes", found, remedy)
    elif share < LEAST_KNOWN:
        yield warning("source.codes", found, remedy)
    else:
        yield ok("source.codes", f"{found}; most frequent unknown: {common}" if common else found)
