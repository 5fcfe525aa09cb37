"""A small FHIR R4 server for loopback: search with paging, batch writes, ``$export``, SMART tokens.

It behaves as a good server does; everything bad is added by :mod:`deploy.faults.menu`. HAPI itself is run in
``tests/integration``; this one exists because HAPI cannot be told to fail at the third page.
"""

from __future__ import annotations

import base64
import re
from threading import RLock
from typing import Any

from deploy.faults.bulk_jobs import BulkJobs
from deploy.faults.clock import VirtualClock
from deploy.faults.loopback import Answer, Request, json_answer, outcome
from deploy.faults.store import Refused, Resource, ResourceStore, Stored
from deploy.faults.tokens import TokenServer

PREFIX = "/fhir"
SEARCHED = (
    "Patient",
    "Encounter",
    "Observation",
    "DocumentReference",
    "ImagingStudy",
    "Endpoint",
    "RiskAssessment",
    "Device",
    "Provenance",
)


class FhirServer:
    """Answers requests below ``/fhir``.

    Parameters
    ----------
    store
        Its resources.
    clock
        Its time.
    tokens
        Asks for a SMART token where given.
    page_limit
        Most entries a page, whatever the client asks for.
    """

    def __init__(
        self,
        store: ResourceStore,
        clock: VirtualClock,
        *,
        tokens: TokenServer | None = None,
        page_limit: int = 100,
    ) -> None:
        self.store = store
        self.clock = clock
        self.tokens = tokens
        self.page_limit = page_limit
        self.jobs = BulkJobs(store, clock)
        self._searches: list[list[Resource]] = []
        self._lock = RLock()

    def handle(self, request: Request) -> Answer:
        """Answer one request."""
        path = request.path.removeprefix(PREFIX).strip("/")
        if path == ".well-known/smart-configuration" and self.tokens:
            return self.tokens.configuration(request)
        if path == "token" and self.tokens:
            return self.tokens.issue(request)
        free = path == "metadata" or (path.startswith("files/") and not self.jobs.requires_token)
        if self.tokens and not free and not self.tokens.accepts(request):
            return outcome(401, "login")
        try:
            with self._lock:
                return self._route(request, path)
        except Refused as refused:
            return outcome(refused.status, refused.code)

    def _route(self, request: Request, path: str) -> Answer:
        if path == "metadata":
            return json_answer(capability_statement())
        if path.endswith("$export") or path.startswith(("jobs/", "files/")):
            return self.jobs.handle(request, path)
        if not path and request.method == "POST":
            return self._bundle(request.json())
        if not path and "_getpages" in request.query:
            return self._page(request, int(request.query["_getpages"][0]), int(request.query["_offset"][0]))
        kind, _, name = path.partition("/")
        if not re.fullmatch(r"[A-Z][A-Za-z]+", kind):
            raise Refused(404, "not-found")
        if name:
            return self._instance(request, kind, name)
        if request.method == "POST":
            stored = self.store.create(
                kind, request.json(), if_none_exist=request.headers.get("if-none-exist")
            )
            return _written(request, stored)
        if request.method != "GET":
            raise Refused(405, "not-supported")
        found = self.store.search(kind, request.query)
        if request.query.get("_summary") == ["count"]:
            return json_answer({"resourceType": "Bundle", "type": "searchset", "total": len(found)})
        self._searches.append(found)
        return self._page(request, len(self._searches) - 1, 0)

    def _instance(self, request: Request, kind: str, name: str) -> Answer:
        if request.method == "PUT":
            stored = self.store.put(kind, name, request.json(), if_match=request.headers.get("if-match"))
            return _written(request, stored)
        if request.method == "DELETE":
            self.store.delete(kind, name)
            return Answer(status=204)
        resource = self.store.read(kind, name)
        if kind == "Binary" and "json" not in request.headers.get("accept", ""):
            data = base64.b64decode(resource["data"])
            return Answer(body=data, headers={"Content-Type": resource["contentType"]})
        return json_answer(resource, ETag=Stored(resource, 200).etag)

    def _page(self, request: Request, search: int, offset: int) -> Answer:
        """Return one page; its next link is opaque, as HAPI's is."""
        if search >= len(self._searches):
            raise Refused(410, "not-found")
        found = self._searches[search]
        size = min(int((request.query.get("_count") or [str(self.page_limit)])[0]), self.page_limit)
        base = f"{request.base}{PREFIX}"
        bundle: dict[str, Any] = {
            "resourceType": "Bundle",
            "type": "searchset",
            "total": len(found),
            "link": [{"relation": "self", "url": f"{request.base}{request.target}"}],
            "entry": [
                {
                    "fullUrl": f"{base}/{resource['resourceType']}/{resource['id']}",
                    "resource": resource,
                    "search": {"mode": "match"},
                }
                for resource in found[offset : offset + size]
            ],
        }
        if offset + size < len(found):
            after = f"{base}?_getpages={search}&_offset={offset + size}&_count={size}&_pretty=a%2Fb%3D%3D"
            bundle["link"].append({"relation": "next", "url": after})
        return json_answer(bundle)

    def _bundle(self, bundle: Resource) -> Answer:
        """Do a batch entry by entry, or a transaction as a whole."""
        kind = bundle.get("type")
        if bundle.get("resourceType") != "Bundle" or kind not in {"batch", "transaction"}:
            raise Refused(400, "invalid")
        before = dict(self.store.current)
        answers = []
        for entry in bundle.get("entry") or []:
            try:
                answers.append(_entry_answer(self.store.entry(entry)))
            except Refused as refused:
                if kind == "transaction":
                    self.store.current = before
                    raise
                answers.append(entry_refusal(refused.status, refused.code))
        return json_answer({"resourceType": "Bundle", "type": f"{kind}-response", "entry": answers})


def _entry_answer(stored: Stored | None) -> Resource:
    if stored is None:
        return {"response": {"status": "204"}}
    resource = stored.resource
    place = f"{resource['resourceType']}/{resource['id']}/_history/{resource['meta']['versionId']}"
    return {
        "response": {
            "status": f"{stored.status} {'Created' if stored.status == 201 else 'OK'}",
            "location": place,
            "etag": stored.etag,
            "lastModified": resource["meta"]["lastUpdated"],
        }
    }


def entry_refusal(status: int, code: str) -> Resource:
    """Return a batch-response entry that says no."""
    issue = {"severity": "error", "code": code}
    return {
        "response": {"status": str(status), "outcome": {"resourceType": "OperationOutcome", "issue": [issue]}}
    }


def _written(request: Request, stored: Stored) -> Answer:
    resource = stored.resource
    place = f"{request.base}{PREFIX}/{resource['resourceType']}/{resource['id']}"
    location = f"{place}/_history/{resource['meta']['versionId']}"
    return json_answer(resource, stored.status, ETag=stored.etag, Location=location)


def capability_statement() -> Resource:
    """Return what this server says of itself."""
    actions = ("read", "search-type", "create", "update")
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": "2026-01-01",
        "kind": "instance",
        "fhirVersion": "4.0.1",
        "format": ["json"],
        "rest": [
            {
                "mode": "server",
                "interaction": [{"code": "batch"}, {"code": "transaction"}],
                "operation": [{"name": "export", "definition": "http://hl7.org/fhir/uv/bulkdata"}],
                "searchParam": [{"name": "_lastUpdated", "type": "date"}],
                "resource": [
                    {
                        "type": kind,
                        "versioning": "versioned-update",
                        "conditionalCreate": True,
                        "updateCreate": True,
                        "interaction": [{"code": code} for code in actions],
                        "searchParam": [
                            {"name": name, "type": "token"} for name in ("_id", "_tag", "identifier")
                        ],
                    }
                    for kind in SEARCHED
                ],
            }
        ],
    }
