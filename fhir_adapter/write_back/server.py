"""A FHIR R4 server as destination: its routes, what it holds, single requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urljoin

from fhir_adapter.errors import ContentError, PagingError
from fhir_adapter.transport import RETRIED, Reply, RetryPolicy, Transport, outcome_codes, retry_after_seconds
from fhir_adapter.write_back.canonical import content_hash
from fhir_adapter.write_back.exchange import Ask, EntryAnswer, batch, location, read_answers
from fhir_adapter.write_back.item import Held
from fhir_adapter.write_back.strategy import Route, Strategy, choose_routes, read_write_capabilities

JUDGED = frozenset(range(400, 600)) - {401}
"""Statuses that the writing side judges itself; 401 is the transport's, which renews the token."""

PAGE = 200
IDENTIFIERS = 30
"""Identifiers a search: its address stays below the 8 kB that servers take."""

MAX_BARREN_PAGES = 3


class FhirServer:
    """A FHIR server that scores are written to.

    Parameters
    ----------
    transport
        Client of the server.
    strategy
        How scores are written; ``auto`` asks ``/metadata``.
    bundle_size
        Most resources in a batch Bundle; 1 sends each alone.
    retry
        Tries and waits of what may pass.
    """

    kind = "fhir"

    def __init__(
        self,
        transport: Transport,
        *,
        strategy: Strategy | str = Strategy.AUTO,
        bundle_size: int = 100,
        retry: RetryPolicy | None = None,
    ) -> None:
        self.transport = transport
        self.retry = retry or RetryPolicy(cap=30.0)
        self.bundle_size = bundle_size
        self.requests = 0
        self._strategy = Strategy(strategy)
        self._routes: dict[str, Route] | None = None

    @property
    def key(self) -> str:
        """Name of the destination in the ledger."""
        return self.transport.base_url

    def routes(self) -> dict[str, Route]:
        """Return the route of each type that can be written; ``/metadata`` is asked once.

        Raises
        ------
        WriteError
            If scores cannot be written safely.
        RequestError
            If ``/metadata`` cannot be had.
        """
        if self._routes is None:
            forced = self._strategy in (Strategy.PUT, Strategy.CONDITIONAL_CREATE)
            capabilities = None
            if not forced:
                self.requests += 1
                capabilities = read_write_capabilities(self.transport)
                if not capabilities.batch:
                    self.bundle_size = 1
            self._routes = choose_routes(self._strategy, capabilities)
        return self._routes

    def read(self, resource_type: str, name: str) -> Held | int:
        """Return a resource, or the status that says why not (404, 410 ...)."""
        self.requests += 1
        reply = self.transport.request("GET", f"{resource_type}/{name}", accept_status=JUDGED - RETRIED)
        if reply.status >= 400:
            return reply.status
        return held(reply.json())

    def tagged(self, resource_type: str, tag: Mapping[str, str]) -> Iterator[Held]:
        """Yield the resources with a tag, over all pages.

        Raises
        ------
        RequestError
            If a page cannot be had, or the server does not know ``_tag``.
        """
        params = {"_tag": f"{tag['system']}|{tag['code']}", "_count": str(PAGE)}
        barren = 0
        for page in self._pages(resource_type, params):
            marked = [
                item
                for item in page
                if any(
                    label.get("system") == tag["system"] and label.get("code") == tag["code"]
                    for label in item.get("meta", {}).get("tag", ())
                )
            ]
            barren = 0 if marked or not page else barren + 1
            if barren >= MAX_BARREN_PAGES:
                raise PagingError(f"search {resource_type}: the server does not heed _tag")
            yield from (held(item) for item in marked)

    def identified(self, resource_type: str, identifiers: Sequence[str]) -> Iterator[Held]:
        """Yield the resources with one of these ``system|value`` identifiers.

        Raises
        ------
        RequestError
            If a page cannot be had, or the server does not heed ``identifier``.
        """
        for start in range(0, len(identifiers), IDENTIFIERS):
            wanted = set(identifiers[start : start + IDENTIFIERS])
            params = {"identifier": ",".join(sorted(wanted)), "_count": str(PAGE)}
            for page in self._pages(resource_type, params):
                matches = [item for item in page if wanted & set(identifiers_of(item))]
                if page and not matches:
                    raise PagingError(f"search {resource_type}: the server does not heed identifier")
                yield from (held(item) for item in matches)

    def first(
        self, resource_type: str, query: str, *, wanted: Callable[[dict[str, Any]], bool]
    ) -> Held | None:
        """Return the first match of a query string that is also ``wanted``, or None.

        A server that does not know a parameter answers with whatever it has.
        """
        for page in self._pages(resource_type, None, query=query):
            for item in page:
                if wanted(item):
                    return held(item)
            if page:
                return None
        return None

    def _pages(
        self, resource_type: str, params: Mapping[str, str] | None, *, query: str = ""
    ) -> Iterator[list[dict[str, Any]]]:
        path = f"{resource_type}?{query}" if query else resource_type
        seen: set[str] = set()
        url = self.transport.base_url + "/"
        while True:
            self.requests += 1
            bundle = self.transport.get_json(path, params=params)
            if bundle.get("resourceType") != "Bundle" or bundle.get("type") != "searchset":
                raise ContentError(f"search {resource_type}: the answer is not a searchset Bundle")
            entries = bundle.get("entry")
            found = [
                entry["resource"]
                for entry in (entries if isinstance(entries, list) else [])
                if isinstance(entry, dict) and isinstance(entry.get("resource"), dict)
            ]
            yield [item for item in found if item.get("resourceType") == resource_type]
            link = next(
                (
                    item.get("url")
                    for item in bundle.get("link") or ()
                    if isinstance(item, dict) and item.get("relation") == "next"
                ),
                None,
            )
            if not isinstance(link, str):
                return
            if link in seen:
                raise PagingError(f"search {resource_type}: the pages go round in a circle")
            seen.add(link)
            path = url = urljoin(url, link)
            params = None

    def submit(self, asks: Sequence[Ask]) -> Reply | list[EntryAnswer]:
        """Send some writes once, without retries.

        Returns
        -------
        list of EntryAnswer or Reply
            An answer for each; or the reply with a status of 400 and above for the whole.

        Raises
        ------
        ConnectionLostError, ContentError
            If it is unknown what the server did.
        AuthorizationError, OriginError
            If nothing can be written at all.
        """
        self.requests += 1
        if len(asks) == 1 and self.bundle_size == 1:
            return [self._alone(asks[0])]
        reply = self.transport.request(
            "POST",
            "",
            json=batch(asks),
            headers={"Prefer": "return=minimal"},
            accept_status=JUDGED,
            idempotent=False,
        )
        if reply.status >= 400:
            return reply
        return read_answers(reply.json(), len(asks))

    def _alone(self, item: Ask) -> EntryAnswer:
        reply = self.transport.request(
            item.method,
            item.url,
            json=item.resource,
            headers=item.headers,
            accept_status=JUDGED,
            idempotent=False,
        )
        place = location(reply.headers.get("location"))
        return EntryAnswer(
            status=reply.status,
            id=place[1] if place else None,
            version=reply.etag_version or (place[2] if place else None),
            codes=outcome_codes(reply.content),
            retry_after=retry_after_seconds(reply.headers.get("retry-after"), self.transport.clock.now()),
        )


def held(resource: dict[str, Any]) -> Held:
    """Return a server's resource with its content hash."""
    meta = resource.get("meta")
    version = meta.get("versionId") if isinstance(meta, dict) else None
    return Held(
        resource_type=str(resource.get("resourceType")),
        id=str(resource.get("id")),
        version=version if isinstance(version, str) else None,
        digest=content_hash(resource),
        resource=resource,
    )


def identifiers_of(resource: Mapping[str, Any]) -> list[str]:
    """Return ``system|value`` of a resource's identifiers."""
    found = resource.get("identifier")
    return [
        f"{item.get('system')}|{item.get('value')}"
        for item in (found if isinstance(found, list) else ())
        if isinstance(item, dict)
    ]
