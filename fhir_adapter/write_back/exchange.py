"""Bundle entries and what the server answered to each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from fhir_adapter.errors import ContentError
from fhir_adapter.references import ID_PATTERN
from fhir_adapter.transport import issue_codes
from fhir_adapter.write_back.item import Item
from fhir_adapter.write_back.strategy import Method, Route

REPLACED = frozenset({"RiskAssessment", "Observation"})
"""Types whose status says that an earlier version was replaced."""

_LOCATION = re.compile(rf"(?:^|/)([A-Z][A-Za-z]{{1,40}})/({ID_PATTERN})(?:/_history/({ID_PATTERN}))?$")


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One write as an HTTP request.

    Attributes
    ----------
    method, url
        Of the request, relative to the base.
    resource
        Body.
    if_match, if_none_exist
        Conditions: a version, a search.
    """

    method: str
    url: str
    resource: dict[str, Any]
    if_match: str | None = None
    if_none_exist: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The conditions as headers, for a request outside a Bundle."""
        headers = {"Prefer": "return=minimal"}
        if self.if_match:
            headers["If-Match"] = self.if_match
        if self.if_none_exist:
            headers["If-None-Exist"] = self.if_none_exist
        return headers

    def entry(self) -> dict[str, Any]:
        """Return the Bundle entry."""
        request = {"method": self.method, "url": self.url}
        if self.if_match:
            request["ifMatch"] = self.if_match
        if self.if_none_exist:
            request["ifNoneExist"] = self.if_none_exist
        return {"resource": self.resource, "request": request}


@dataclass(frozen=True, kw_only=True)
class EntryAnswer:
    """What the server said to one write.

    Attributes
    ----------
    status
        HTTP status of the entry.
    id, version
        From location and ETag.
    codes
        ``issue.code`` values of its OperationOutcome; diagnostics may hold values and are dropped.
    retry_after
        Seconds that the server asks to wait.
    """

    status: int
    id: str | None = None
    version: str | None = None
    codes: tuple[str, ...] = ()
    retry_after: float | None = None


def ask(item: Item, route: Route) -> Ask | None:
    """Return the request that writes an item; None where the server cannot replace what it holds."""
    payload = item.payload
    server_id = item.server_id
    if server_id is not None and payload["resourceType"] in REPLACED and payload["status"] == "final":
        payload = payload | {"status": "corrected"}
    if server_id is None and route.method is Method.CONDITIONAL_CREATE:
        body = {key: value for key, value in payload.items() if key != "id"}
        return Ask(method="POST", url=route.server_type, resource=body, if_none_exist=condition(item))
    if not route.update:
        return None
    name = server_id or item.key[1]
    return Ask(
        method="PUT",
        url=f"{route.server_type}/{name}",
        resource=payload | {"id": name},
        if_match=f'W/"{item.version}"' if item.version else None,
    )


def condition(item: Item) -> str:
    """Return the search that finds an item and nothing else.

    Provenance has no identifier in R4: its first target and its agent stand for it.
    """
    if item.identifier:
        return urlencode({"identifier": item.identifier})
    target = item.payload["target"][0]["reference"]
    agent = item.payload["agent"][0]["who"].get("reference")
    return urlencode({"target": target} | ({"agent": agent} if agent else {}))


def is_same(item: Item, resource: dict[str, Any]) -> bool:
    """Tell whether a search's match is an item, for servers that do not know a search parameter."""
    key = "identifier" if item.identifier else "target"
    ours, theirs = item.payload.get(key) or [{}], resource.get(key) or [{}]
    return isinstance(theirs, list) and all(part in theirs for part in ours[:1])


def batch(asks: Sequence[Ask]) -> dict[str, Any]:
    """Return the batch Bundle of some writes."""
    return {"resourceType": "Bundle", "type": "batch", "entry": [item.entry() for item in asks]}


def read_answers(bundle: Any, expected: int) -> list[EntryAnswer]:
    """Return the answers of a batch-response, in order.

    Raises
    ------
    ContentError
        If the answer is not a batch-response with one status for each entry: it is then unknown which
        resources were taken.
    """
    entries = bundle.get("entry") if isinstance(bundle, dict) else None
    if (
        not isinstance(bundle, dict)
        or bundle.get("resourceType") != "Bundle"
        or not isinstance(entries, list)
        or len(entries) != expected
    ):
        raise ContentError("POST Bundle: the answer is not a batch-response with an entry for each")
    return [_entry_answer(entry) for entry in entries]


def _entry_answer(entry: Any) -> EntryAnswer:
    response = entry.get("response") if isinstance(entry, dict) else None
    status = re.match(r"\d{3}", str(response.get("status"))) if isinstance(response, dict) else None
    if not isinstance(response, dict) or status is None:
        raise ContentError("POST Bundle: an entry of the answer has no status")
    place = location(response.get("location"))
    version = _etag(response.get("etag"))
    return EntryAnswer(
        status=int(status[0]),
        id=place[1] if place else None,
        version=version or (place[2] if place else None),
        codes=issue_codes(response.get("outcome")),
    )


def location(value: Any) -> tuple[str, str, str | None] | None:
    """Return type, id and version of a ``Location``, relative or absolute."""
    match = _LOCATION.search(value) if isinstance(value, str) else None
    return (match[1], match[2], match[3]) if match else None


def _etag(value: Any) -> str | None:
    match = re.fullmatch(r'(?:W/)?"([^"]+)"', value) if isinstance(value, str) else None
    return match[1] if match else None
