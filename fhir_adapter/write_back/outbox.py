"""One delivery's work: what is to be sent by the ledger's word, and the account of how each ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fhir_adapter.store.ledger import Entry, Ledger, Settled, State
from fhir_adapter.write_back.canonical import content_hash
from fhir_adapter.write_back.checks import problems
from fhir_adapter.write_back.item import Answer, Item, Key, Outcome, dead
from fhir_adapter.write_back.preparation import key_of, localise
from fhir_adapter.write_back.summary import Tally

NO_DIGEST = "0" * 64
"""Digest of what has no canonical form (a number that is none)."""


@dataclass(kw_only=True)
class Outbox:
    """The ledger as one delivery sees it.

    Attributes
    ----------
    ledger, destination, partition, run
        Where rows go.
    now
        Clock of the ledger.
    progress
        Called with resources done and resources in all.
    own
        Every resource of the delivery by type and id.
    models
        Weights digest behind each.
    rewrite_withdrawn
        Whether withdrawn scores are written again.
    places
        ``Type/id`` at the destination of what it holds.
    tally
        How each resource ended.
    """

    ledger: Ledger
    destination: str
    partition: str
    run: str
    now: Callable[[], datetime]
    progress: Callable[[int, int], None]
    own: Mapping[Key, dict[str, Any]]
    models: Mapping[Key, str]
    rewrite_withdrawn: bool = False
    places: dict[Key, str] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)

    def sound(self, resources: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the resources that may leave; the others become dead letters."""
        good, bad = [], []
        for resource in resources:
            found = problems(resource)
            if found:
                item = Item(key=key_of(resource), payload=resource, digest=_digest(resource))
                bad.append(dead(item, "not_valid", tuple(found)))
            else:
                good.append(resource)
        if bad:
            self.enqueue([answer.item for answer in bad])
            self.settle(bad)
        return good

    def items(
        self,
        resources: Sequence[dict[str, Any]],
        form: Callable[[dict[str, Any]], dict[str, Any]] = lambda resource: resource,
    ) -> list[Item]:
        """Return resources as the destination can take them, with what the ledger knows of each."""
        known = self.ledger.entries(self.destination, [key_of(item) for item in resources])
        found = []
        for resource in resources:
            key = key_of(resource)
            payload = localise(resource, own=self.own, places=self.places)
            entry = known.get(key)
            if payload is None:
                item = Item(key=key, payload=resource, digest=content_hash(resource), known=entry)
                self.enqueue([item])
                self.settle([dead(item, "no_target")])
                continue
            payload = form(payload)
            found.append(
                Item(
                    key=key,
                    payload=payload,
                    digest=content_hash(payload),
                    known=entry,
                    version=entry.server_version if entry else None,
                )
            )
        return found

    def to_send(self, items: Sequence[Item]) -> list[Item]:
        """Return the items that the destination does not hold yet; note the others."""
        waiting = []
        for item in items:
            entry = item.known
            if entry is not None and entry.withdrawn:
                if self.rewrite_withdrawn:
                    waiting.append(item)
                else:
                    self._keep(item.key, Outcome.WITHDRAWN, entry)
            elif entry is not None and entry.state is State.CONFIRMED and entry.payload_hash == item.digest:
                amended = entry.error_class == str(Outcome.AMENDED_BY_OTHERS)
                self._keep(item.key, Outcome.AMENDED_BY_OTHERS if amended else Outcome.UNCHANGED, entry)
            else:
                waiting.append(item)
        return waiting

    def _keep(self, key: Key, outcome: Outcome, entry: Entry) -> None:
        self.tally.note(key, outcome)
        if entry.server_id is not None:
            self.places[key] = f"{entry.server_type}/{entry.server_id}"
        self._tell()

    def enqueue(self, items: Sequence[Item]) -> None:
        """Write rows before anything leaves."""
        rows = [(item.key, item.digest, self.models.get(item.key)) for item in items]
        self.ledger.enqueue(self.destination, rows, partition=self.partition, run=self.run, now=self.now())

    def remember(self, items: Sequence[Item]) -> None:
        """Write where older versions were found, before their rows are replaced."""
        rows = [
            Settled(
                key=item.key,
                state=State.CONFIRMED,
                server_type=item.server_type,
                server_id=item.server_id,
                server_version=item.version,
            )
            for item in items
        ]
        self.ledger.settle(self.destination, rows, now=self.now())

    def mark_sent(self, items: Sequence[Item]) -> None:
        """Note that from now on the destination may have acted."""
        self.ledger.mark_sent(self.destination, [item.key for item in items], now=self.now())

    def settle(self, answers: Sequence[Answer]) -> None:
        """Write how items ended, in the ledger and in the account."""
        rows = []
        for answer in answers:
            lost = answer.outcome is Outcome.DEAD_LETTERED
            rows.append(
                Settled(
                    key=answer.item.key,
                    state=State.DEAD_LETTER if lost else State.CONFIRMED,
                    server_type=answer.item.server_type,
                    server_id=answer.server_id,
                    server_version=answer.server_version,
                    error_class=answer.error_class,
                    error_codes=answer.codes,
                )
            )
            self.tally.note(answer.item.key, answer.outcome, answer.error_class)
            if not lost:
                self.places[answer.item.key] = f"{answer.item.server_type}/{answer.server_id}"
        self.ledger.settle(self.destination, rows, now=self.now())
        self._tell()

    def note_not_supported(self, resources: Sequence[dict[str, Any]]) -> None:
        """Count resources of a type that the destination does not take."""
        for resource in resources:
            self.tally.note(key_of(resource), Outcome.NOT_SUPPORTED)

    def _tell(self) -> None:
        self.progress(len(self.tally.outcomes), len(self.own))


def _digest(resource: dict[str, Any]) -> str:
    try:
        return content_hash(resource)
    except ValueError:
        return NO_DIGEST
