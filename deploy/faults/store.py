"""Resources in memory with the versions and conditions of a FHIR R4 server (https://hl7.org/fhir/R4/http.html)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

Resource = dict[str, Any]
Key = tuple[str, str]
ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


class Refused(Exception):  # noqa: N818 - an HTTP status, caught where the answer is made
    """The server does not do it: status and ``issue.code``."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}")
        self.status, self.code = status, code


@dataclass(frozen=True)
class Stored:
    """What became of a write: the resource as stored, and 200 or 201."""

    resource: Resource
    status: int

    @property
    def etag(self) -> str:
        """Weak ETag of the version."""
        return f'W/"{self.resource["meta"]["versionId"]}"'


class ResourceStore:
    """A FHIR server's resources; thread safety is the caller's.

    Parameters
    ----------
    now
        Time for ``meta.lastUpdated``.

    Attributes
    ----------
    current
        Newest version by type and id; resources are never changed in place.
    written
        Every version that was made, in order: how often the server acted.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self.current: dict[Key, Resource] = {}
        self.written: list[Key] = []

    def copy(self, now: Callable[[], datetime]) -> ResourceStore:
        """Return a store with the same resources and no memory of writes."""
        twin = ResourceStore(now)
        twin.current = dict(self.current)
        return twin

    def read(self, kind: str, name: str) -> Resource:
        """Return a resource, or refuse with 404."""
        try:
            return self.current[kind, name]
        except KeyError:
            raise Refused(404, "not-found") from None

    def put(self, kind: str, name: str, resource: Resource, *, if_match: str | None = None) -> Stored:
        """Update, or create under the client's id; an unchanged resource keeps its version."""
        if not ID.fullmatch(name) or resource.get("resourceType") != kind or resource.get("id") != name:
            raise Refused(400, "invalid")
        known = self.current.get((kind, name))
        if if_match is not None:
            version = re.fullmatch(r'(?:W/)?"?([^"]*)"?', if_match)
            if known is None or version is None or known["meta"]["versionId"] != version[1]:
                raise Refused(412, "conflict")
        if known is not None and _content(known) == _content(resource):
            return Stored(known, 200)
        number = int(known["meta"]["versionId"]) + 1 if known else 1
        return Stored(self._keep(resource, number), 200 if known else 201)

    def create(self, kind: str, resource: Resource, *, if_none_exist: str | None = None) -> Stored:
        """Create under an id of the server's, or return the one resource that the condition finds."""
        if if_none_exist is not None:
            found = self.search(kind, parse_qs(if_none_exist.lstrip("?")))
            if len(found) > 1:
                raise Refused(412, "multiple-matches")
            if found:
                return Stored(found[0], 200)
        name = f"srv-{len(self.written) + 1}"
        return Stored(self._keep(resource | {"id": name}, 1), 201)

    def delete(self, kind: str, name: str) -> None:
        """Delete a resource; one that is not there is no error."""
        self.current.pop((kind, name), None)

    def search(self, kind: str, parameters: Mapping[str, Iterable[str]]) -> list[Resource]:
        """Return the resources of a type that match, in order of their ids.

        Known parameters: ``_id``, ``_tag``, ``_lastUpdated``, ``identifier``, ``status``,
        and Provenance's ``target`` and ``agent``; result parameters
        are passed over; any other is refused, so that a client's typing error cannot match everything.
        """
        found = [resource for (each, _), resource in sorted(self.current.items()) if each == kind]
        for name, values in parameters.items():
            if name in {"_count", "_total", "_elements", "_summary", "_sort", "_format"}:
                continue
            if name not in _MATCHERS:
                raise Refused(400, "not-supported")
            for value in values:
                wanted = value.split(",")
                found = [item for item in found if any(_MATCHERS[name](item, one) for one in wanted)]
        return found

    def entry(self, entry: Resource) -> Stored | None:
        """Do one entry of a batch or transaction; None for a deletion."""
        request = entry.get("request") or {}
        method, url = request.get("method"), str(request.get("url", ""))
        kind, _, name = urlsplit(url).path.strip("/").partition("/")
        if method == "PUT" and name:
            return self.put(kind, name, entry["resource"], if_match=request.get("ifMatch"))
        if method == "POST" and kind and not name:
            return self.create(kind, entry["resource"], if_none_exist=request.get("ifNoneExist"))
        if method == "DELETE" and name:
            self.delete(kind, name)
            return None
        raise Refused(400, "not-supported")

    def _keep(self, resource: Resource, number: int) -> Resource:
        stamp = self._now().isoformat(timespec="milliseconds")
        stored = resource | {
            "meta": dict(resource.get("meta") or {}) | {"versionId": str(number), "lastUpdated": stamp}
        }
        self.current[resource["resourceType"], resource["id"]] = stored
        self.written.append((resource["resourceType"], resource["id"]))
        return stored


def _content(resource: Resource) -> Resource:
    """Return a resource without what the server owns."""
    meta = {
        name: value
        for name, value in (resource.get("meta") or {}).items()
        if name not in {"versionId", "lastUpdated"}
    }
    return resource | {"meta": meta}


def _token(value: object, wanted: str) -> bool:
    """Tell whether an Identifier or Coding matches ``system|code`` or ``code``."""
    system, bar, code = wanted.rpartition("|")
    if not isinstance(value, dict) or code not in {value.get("value"), value.get("code")}:
        return False
    return not bar or value.get("system", "") == system


def _last_updated(resource: Resource, wanted: str) -> bool:
    prefix, moment = wanted[:2], datetime.fromisoformat(wanted[2:])
    changed = datetime.fromisoformat(resource["meta"]["lastUpdated"])
    if prefix not in {"ge", "lt", "gt", "le"}:
        raise Refused(400, "not-supported")
    return {
        "ge": changed >= moment,
        "gt": changed > moment,
        "lt": changed < moment,
        "le": changed <= moment,
    }[prefix]


_MATCHERS: dict[str, Callable[[Resource, str], bool]] = {
    "_id": lambda item, wanted: item["id"] == wanted,
    "_tag": lambda item, wanted: any(_token(tag, wanted) for tag in item["meta"].get("tag") or []),
    "_lastUpdated": _last_updated,
    "identifier": lambda item, wanted: any(_token(each, wanted) for each in item.get("identifier") or []),
    "target": lambda item, wanted: any(each.get("reference") == wanted for each in item.get("target") or []),
    "agent": lambda item, wanted: any(
        each["who"].get("reference") == wanted for each in item.get("agent") or []
    ),
    "status": lambda item, wanted: item.get("status") == wanted,
}
