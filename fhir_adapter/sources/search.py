"""FHIR search as a source (https://hl7.org/fhir/R4/search.html): paging that cannot lose a page.

The server's ``next`` link is followed exactly as given. A page that fails after all retries fails the
part: there is never a shorter table. Matches are counted against ``Bundle.total``, resources that come
twice are written once, and OperationOutcome entries that warn of something left out become lines of the
file, so that they are counted and quarantined like any other input.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin

from fhir_adapter.errors import ContentError, FatalError, PagingError
from fhir_adapter.sources.part import Part
from fhir_adapter.transport import Transport
from validation.contracts import write_json

MAX_BARREN_PAGES = 3
OVERLAP = timedelta(minutes=10)
"""How far a search reaches back before the watermark: clocks differ and indexes lag."""


@dataclass
class SearchCounts:
    """What a search gave.

    Attributes
    ----------
    pages, matches
        Pages read, distinct resources written.
    repeated
        Matches that came twice with the same id and version.
    outcomes
        OperationOutcome entries of any severity.
    total
        ``Bundle.total`` of the first page, or None.
    restarts
        How often the search began anew because a page had expired.
    """

    pages: int = 0
    matches: int = 0
    repeated: int = 0
    outcomes: int = 0
    total: int | None = None
    restarts: int = 0


class SearchSource:
    """Reads resources by search, one part a type or a type's time slice.

    Parameters
    ----------
    transport
        Client of the FHIR server.
    queries
        Search parameters by type, for example ``{"Encounter": {"status": "in-progress"}}``.
    page_size
        ``_count`` asked for.
    since
        Watermark: only resources changed since then (minus ``overlap``) are asked for.
    until
        End of the sliced interval; needs ``since``.
    slice_length
        Length of a time slice of ``_lastUpdated``; None gives one part a type.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        queries: Mapping[str, Mapping[str, str | Sequence[str]]] | None = None,
        page_size: int = 500,
        since: datetime | None = None,
        until: datetime | None = None,
        overlap: timedelta = OVERLAP,
        slice_length: timedelta | None = None,
    ) -> None:
        if since is not None and since.tzinfo is None:
            raise ValueError("since needs a zone")
        self._transport = transport
        self._queries = queries or {}
        self._page_size = page_size
        self._since = since
        self._until = until
        self._overlap = overlap
        self._slice = slice_length

    def plan(self, resource_types: list[str]) -> list[Part]:
        """Return one part a type, or one a slice of ``_lastUpdated``, in the order of the types."""
        parts = []
        for kind in resource_types:
            for number, bounds in enumerate(self._slices()):
                name = kind if len(bounds) < 2 else f"{kind}-{number:04d}"
                parts.append(Part(name, kind, {"file": f"{name}.ndjson", "lastUpdated": bounds}))
        return parts

    def _slices(self) -> list[list[str]]:
        """Return prefixed bounds of ``_lastUpdated``, half open, without gaps."""
        if self._since is None:
            return [[]]
        start = self._since - self._overlap
        if self._slice is None or self._until is None:
            return [[f"ge{_instant(start)}"]]
        edges = [start]
        while edges[-1] + self._slice < self._until:
            edges.append(edges[-1] + self._slice)
        inner = [[f"ge{_instant(low)}", f"lt{_instant(high)}"] for low, high in pairwise(edges)]
        return [*inner, [f"ge{_instant(edges[-1])}"]]

    def materialise(self, part: Part, folder: Path) -> Path:
        """Search and write the part's NDJSON file with its counts beside it; reuse a complete one.

        Raises
        ------
        PagingError
            If pages loop or fewer matches came than the server counted.
        RequestError
            If a page cannot be had.
        """
        target = folder / part.locator["file"]
        counts_file = target.with_suffix(".counts.json")
        if target.is_file() and counts_file.is_file():
            return target
        folder.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        restarts = 0
        try:
            while True:
                try:
                    with temporary.open("w", encoding="utf-8") as file:
                        counts = self._read_pages(part, file)
                        file.flush()
                        os.fsync(file.fileno())
                    break
                except _PageExpiredError:
                    restarts += 1
                    if restarts > 1:
                        raise PagingError(
                            f"search {part.resource_type}: pages expire before they are read"
                        ) from None
            counts.restarts = restarts
            write_json(asdict(counts), counts_file)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        return target

    def _read_pages(self, part: Part, file: IO[str]) -> SearchCounts:
        kind = part.resource_type
        counts = SearchCounts()
        seen: set[int] = set()
        links: set[str] = set()
        barren = 0
        bundle = self._first_page(part)
        url = self._transport.base_url + "/"
        counts.total = _total(bundle)
        while True:
            counts.pages += 1
            fresh, entries = self._write_entries(bundle, kind, file, seen, counts)
            barren = 0 if fresh or not entries else barren + 1
            link = _next_link(bundle)
            if link is None:
                break
            if link in links or barren >= MAX_BARREN_PAGES:
                raise PagingError(f"search {kind}: the pages go round in a circle")
            links.add(link)
            url = urljoin(url, link) if "://" not in link else link
            bundle = self._next_page(url, kind)
        if counts.total is not None and counts.matches < counts.total:
            raise PagingError(
                f"search {kind}: {counts.matches} of {counts.total} resources came; the rest is missing"
            )
        return counts

    def _first_page(self, part: Part) -> dict[str, Any]:
        params: dict[str, Any] = {
            "_count": str(self._page_size),
            "_total": "accurate",
            **self._queries.get(part.resource_type, {}),
        }
        if part.locator.get("lastUpdated"):
            params["_lastUpdated"] = part.locator["lastUpdated"]
        return _checked(self._transport.get_json(part.resource_type, params=params), part.resource_type)

    def _next_page(self, url: str, kind: str) -> dict[str, Any]:
        try:
            return _checked(self._transport.get_json(url), kind)
        except FatalError as error:
            if error.status in {404, 410}:
                raise _PageExpiredError(str(error), status=error.status) from None
            raise

    def _write_entries(
        self, bundle: dict[str, Any], kind: str, file: IO[str], seen: set[int], counts: SearchCounts
    ) -> tuple[int, int]:
        """Write a page's matches; return how many were new, and how many entries there were."""
        fresh = 0
        found = bundle.get("entry")
        entries = found if isinstance(found, list) else []
        for entry in entries:
            resource = entry.get("resource") if isinstance(entry, dict) else None
            if not isinstance(resource, dict):
                raise ContentError(f"search {kind}: an entry without a resource")
            if resource.get("resourceType") == "OperationOutcome":
                counts.outcomes += 1
                if _warns(resource):
                    _write_line(resource, file)
                continue
            mode = entry.get("search", {}).get("mode") if isinstance(entry.get("search"), dict) else None
            if mode == "include" or resource.get("resourceType") != kind:
                continue
            found_meta = resource.get("meta")
            meta = found_meta if isinstance(found_meta, dict) else {}
            key = hash((resource.get("id"), str(meta.get("versionId")), str(meta.get("lastUpdated"))))
            if resource.get("id") is not None and key in seen:
                counts.repeated += 1
                continue
            seen.add(key)
            fresh += 1
            counts.matches += 1
            _write_line(resource, file)
        return fresh, len(entries)


class _PageExpiredError(FatalError):
    """A next link leads nowhere any more."""


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _write_line(resource: dict[str, Any], file: IO[str]) -> None:
    try:
        text = json.dumps(resource, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:  # parsers go deeper than writers
        raise ContentError("search: a resource is nested too deep") from None
    file.write(text + "\n")


def _checked(bundle: dict[str, Any], kind: str) -> dict[str, Any]:
    if bundle.get("resourceType") != "Bundle" or bundle.get("type") != "searchset":
        raise ContentError(f"search {kind}: the answer is not a searchset Bundle")
    return bundle


def _total(bundle: dict[str, Any]) -> int | None:
    total = bundle.get("total")
    return total if isinstance(total, int) and not isinstance(total, bool) else None


def _next_link(bundle: dict[str, Any]) -> str | None:
    links = bundle.get("link")
    for link in links if isinstance(links, list) else []:
        if isinstance(link, dict) and link.get("relation") == "next" and isinstance(link.get("url"), str):
            url: str = link["url"]
            return url
    return None


def _warns(outcome: dict[str, Any]) -> bool:
    """Tell whether an OperationOutcome says more than a hint."""
    issues = outcome.get("issue")
    return not isinstance(issues, list) or any(
        not isinstance(issue, dict) or issue.get("severity") != "information" for issue in issues
    )
