"""A real FHIR server behind the saboteur: requests are passed on, addresses in its answers are made ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx

from deploy.faults.loopback import Answer, Request
from deploy.faults.store import Key, Resource

PREFIX = "/fhir"
DROPPED = frozenset({"host", "content-length", "connection", "accept-encoding", "transfer-encoding"})
KEPT = ("content-type", "etag", "last-modified", "content-location", "retry-after", "location")
PAGE = 500
PATIENCE = httpx.Timeout(120.0)


class RemoteServer:
    """Passes requests below ``/fhir`` on to a real server.

    Parameters
    ----------
    base_url
        Its base address.
    """

    def __init__(self, base_url: str) -> None:
        self._base = base_url.rstrip("/")
        self._client = httpx.Client(timeout=PATIENCE, follow_redirects=False)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def handle(self, request: Request) -> Answer:
        """Answer as the real server does."""
        headers = {name: value for name, value in request.headers.items() if name not in DROPPED}
        here = f"{request.base}{PREFIX}"
        reply = self._client.request(
            request.method,
            f"{self._base}{request.target.removeprefix(PREFIX)}",
            content=request.body,
            headers=headers | {"accept-encoding": "identity"},
        )
        shown = {
            name: reply.headers[name].replace(self._base, here) for name in KEPT if name in reply.headers
        }
        body = reply.content.replace(self._base.encode(), here.encode())
        return Answer(status=reply.status_code, body=body, headers=shown)

    def resources(self, kind: str) -> Iterator[Resource]:
        """Yield every current resource of a type."""
        url: str | None = f"{self._base}/{kind}?_count={PAGE}"
        while url:
            bundle: dict[str, Any] = self._client.get(url).raise_for_status().json()
            yield from (entry["resource"] for entry in bundle.get("entry", ()))
            url = next((item["url"] for item in bundle["link"] if item["relation"] == "next"), None)

    def snapshot(self, kinds: tuple[str, ...]) -> tuple[dict[Key, Resource], list[Key]]:
        """Return what the server holds of some types, and each key as often as it was written."""
        current: dict[Key, Resource] = {}
        written: list[Key] = []
        for kind in kinds:
            for resource in self.resources(kind):
                key = (kind, str(resource["id"]))
                current[key] = resource
                written += [key] * int(resource["meta"]["versionId"])
        return current, written
