"""A loopback FHIR server that keeps versions, and answers as badly as a test asks it to."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import NAMESPACE_URL, uuid5

from reading_server import Answer, Loopback, Seen, fhir, serving

Resource = dict[str, Any]
TYPES = ("RiskAssessment", "Device", "DocumentReference", "Provenance", "Observation")


def outcome(code: str) -> Resource:
    issue = {"severity": "error", "code": code, "diagnostics": "Patient/p1 Jane Doe is unknown"}
    return {"resourceType": "OperationOutcome", "issue": [issue]}


@dataclass
class Ward:
    """What the server holds: every version of every resource, and the faults to come.

    ``judge`` sees one write before it is done and may answer in its place; ``fault`` sees one HTTP
    request and may answer in its place; ``lose`` lets a request be done and its answer be lost.
    """

    puts: bool = True
    types: tuple[str, ...] = TYPES
    bundles: bool = True
    tags: bool = True
    history: dict[tuple[str, str], list[Resource | None]] = field(default_factory=dict)
    judge: Callable[[str, Resource], tuple[int, Resource] | None] = lambda method, resource: None
    fault: Callable[[Seen], Answer | None] = lambda seen: None
    lose: Callable[[Seen], bool] = lambda seen: False
    page: int = 2
    base: str = ""

    def holds(self, kind: str) -> list[Resource]:
        """Return the current resources of a type."""
        return [versions[-1] for key, versions in self.history.items() if key[0] == kind and versions[-1]]

    def amend(self, kind: str, name: str, **changes: Any) -> None:
        """Change a resource as a clinician would."""
        versions = self.history[kind, name]
        assert versions[-1] is not None
        self._store(kind, name, versions[-1] | changes)

    def delete(self, kind: str, name: str) -> None:
        self.history[kind, name].append(None)

    def answer(self, seen: Seen) -> Answer:
        fault = self.fault(seen)
        if fault is not None:
            return fault
        reply = self._answer(seen)
        return replace(reply, cut=0) if self.lose(seen) else reply

    def _answer(self, seen: Seen) -> Answer:
        parts = urlsplit(seen.target)
        path = parts.path.removeprefix("/fhir").strip("/").split("/")
        if path == ["metadata"]:
            return fhir(self.statement())
        if seen.method == "GET":
            if len(path) == 2:
                return self._read(path[0], path[1])
            return fhir(self._search(path[0], parse_qs(parts.query)))
        body = json.loads(seen.body)
        if path == [""]:
            if not self.bundles:
                return fhir(outcome("not-supported"), 405)
            entries = [self._entry(entry) for entry in body["entry"]]
            return fhir({"resourceType": "Bundle", "type": "batch-response", "entry": entries})
        status, headers, problem = self._write(
            seen.method, "/".join(path), body, seen.headers.get("if-match"), seen.headers.get("if-none-exist")
        )
        return fhir(problem or {}, status, **headers)

    def statement(self) -> Resource:
        actions = [{"code": code} for code in ("read", "create", "update", "search-type")]
        able = {"updateCreate": True} if self.puts else {"conditionalCreate": True}
        return {
            "resourceType": "CapabilityStatement",
            "fhirVersion": "4.0.1",
            "rest": [
                {
                    "mode": "server",
                    "interaction": [{"code": "batch"}] if self.bundles else [],
                    "resource": [{"type": kind, "interaction": actions, **able} for kind in self.types],
                }
            ],
        }

    def _entry(self, entry: Resource) -> Resource:
        request = entry["request"]
        status, headers, problem = self._write(
            request["method"],
            request["url"],
            entry["resource"],
            request.get("ifMatch"),
            request.get("ifNoneExist"),
        )
        response: Resource = {"status": f"{status} Something"}
        response |= {name.lower(): value for name, value in headers.items()}
        return {"response": response | ({"outcome": problem} if problem else {})}

    def _write(
        self, method: str, url: str, resource: Resource, if_match: str | None, if_none_exist: str | None
    ) -> tuple[int, dict[str, str], Resource | None]:
        judged = self.judge(method, resource)
        if judged is not None:
            return judged[0], {}, judged[1]
        kind, _, name = url.partition("/")
        if kind not in self.types:
            return 404, {}, outcome("not-supported")
        if method == "POST":
            query = parse_qs(if_none_exist or "")
            matches = [item for item in self.holds(kind) if query and self._matches(item, query)]
            if len(matches) > 1:
                return 412, {}, outcome("multiple-matches")
            if matches:
                return 200, {"Location": f"{kind}/{matches[0]['id']}/_history/1"}, None
            name = str(uuid5(NAMESPACE_URL, f"{kind} {len(self.history)}"))
        versions = self.history.get((kind, name), [])
        if if_match and if_match != f'W/"{len(versions)}"':
            return 412, {}, outcome("conflict")
        last = versions[-1] if versions else None
        if last is not None and _content(last) == _content(resource):
            return 200, {"ETag": f'W/"{len(versions)}"', "Location": self._place(kind, name)}, None
        self._store(kind, name, resource)
        return (
            200 if versions else 201,
            {"ETag": f'W/"{len(versions) + (not versions)}"', "Location": self._place(kind, name)},
            None,
        )

    def _place(self, kind: str, name: str) -> str:
        return f"{self.base}/{kind}/{name}/_history/{len(self.history[kind, name])}"

    def _store(self, kind: str, name: str, resource: Resource) -> None:
        versions = self.history.setdefault((kind, name), [])
        meta = resource.get("meta", {}) | {
            "versionId": str(len(versions) + 1),
            "lastUpdated": "2026-01-19T05:00:00Z",
        }
        versions.append(resource | {"id": name, "meta": meta})

    def _read(self, kind: str, name: str) -> Answer:
        versions = self.history.get((kind, name))
        if not versions:
            return fhir(outcome("not-found"), 404)
        return fhir(versions[-1]) if versions[-1] else fhir(outcome("deleted"), 410)

    def _search(self, kind: str, query: dict[str, list[str]]) -> Resource:
        start = int(query.pop("_start", ["0"])[0])
        if not self.tags:
            query.pop("_tag", None)
        found = [item for item in self.holds(kind) if self._matches(item, query)]
        bundle: Resource = {
            "resourceType": "Bundle",
            "type": "searchset",
            "entry": [{"resource": item} for item in found[start : start + self.page]],
        }
        if start + self.page < len(found):
            text = "&".join(f"{name}={values[0]}" for name, values in query.items())
            link = f"{self.base}/{kind}?{text}&_start={start + self.page}".replace("|", "%7C")
            bundle["link"] = [{"relation": "next", "url": link}]
        return bundle

    def _matches(self, item: Resource, query: dict[str, list[str]]) -> bool:
        for name, values in query.items():
            wanted = values[0].split(",")
            if name == "_tag":
                have = [f"{tag['system']}|{tag['code']}" for tag in item["meta"].get("tag", ())]
            elif name == "identifier":
                have = [
                    text
                    for one in item.get("identifier", ())
                    for text in (f"{one['system']}|{one['value']}", one["value"])
                ]
            elif name == "target":
                have = [one["reference"] for one in item["target"]]
            elif name == "agent":
                have = [one["who"].get("reference") for one in item["agent"]]
            else:
                continue
            if not set(have) & set(wanted):
                return False
        return True


def _content(resource: Resource) -> Resource:
    return {key: value for key, value in resource.items() if key not in ("id", "meta")}


@contextmanager
def ward_server(ward: Ward) -> Iterator[Loopback]:
    with serving(ward.answer) as loopback:
        ward.base = loopback.base
        yield loopback


def is_bundle(seen: Seen) -> bool:
    """Tell whether a request is a batch of writes."""
    return seen.method == "POST" and re.fullmatch(r"/fhir/?", urlsplit(seen.target).path) is not None


def bundle_of(kind: str) -> Callable[[Seen], bool]:
    """Return a test for batches of one type."""
    return lambda seen: is_bundle(seen) and f'"resourceType":"{kind}"'.encode() in seen.body
