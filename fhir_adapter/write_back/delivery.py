"""Delivery: every resource of a night to one destination, exactly once, with an account of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from fhir_adapter.errors import RequestError, WriteError
from fhir_adapter.store.ledger import Entry, Ledger, Settled, State, utc_now
from fhir_adapter.write_back.drop_delivery import deliver_files
from fhir_adapter.write_back.item import Answer, Item, Key, Outcome, dead
from fhir_adapter.write_back.ndjson_drop import NdjsonDrop
from fhir_adapter.write_back.observation import observation
from fhir_adapter.write_back.outbox import Outbox
from fhir_adapter.write_back.preparation import in_order, key_of, model_digests
from fhir_adapter.write_back.reconciliation import Findings, reconcile
from fhir_adapter.write_back.sending import Sending, judge_held, look_up
from fhir_adapter.write_back.server import FhirServer
from fhir_adapter.write_back.strategy import Route
from fhir_adapter.write_back.summary import WriteSummary

Destination = FhirServer | NdjsonDrop
Progress = Callable[[int, int], None]


def deliver(
    resources: Sequence[dict[str, Any]],
    *,
    ledger: Ledger,
    destination: Destination,
    partition: str,
    run: str | None = None,
    now: Callable[[], datetime] = utc_now,
    progress: Progress | None = None,
    rewrite_withdrawn: bool = False,
) -> WriteSummary:
    """Write resources to a destination; safe to repeat, also after a crash at any point.

    Parameters
    ----------
    resources
        Result of :func:`fhir_adapter.write_back.build_resources`, all of one partition.
    ledger
        Outbox; it decides what is sent at all.
    destination
        Server or folder.
    partition
        Partition of the night; the resources carry it as their tag.
    run
        Name by which these writes can be withdrawn; unset, the partition.
    now
        Clock of the ledger.
    progress
        Called with resources done and resources in all.
    rewrite_withdrawn
        Whether scores that were withdrawn are written again.

    Returns
    -------
    WriteSummary
        Faults do not raise: what could not be written is a dead letter with its class.
    """
    outbox = Outbox(
        ledger=ledger,
        destination=destination.key,
        partition=partition,
        run=run or partition,
        now=now,
        progress=progress or (lambda done, total: None),
        own={key_of(item): item for item in resources},
        models=model_digests(resources),
        rewrite_withdrawn=rewrite_withdrawn,
    )
    destination.requests = 0
    sound = outbox.sound(resources)
    if isinstance(destination, NdjsonDrop):
        return deliver_files(outbox, destination, sound)
    return _deliver_to_server(outbox, destination, sound)


def _deliver_to_server(outbox: Outbox, server: FhirServer, resources: list[dict[str, Any]]) -> WriteSummary:
    try:
        routes = server.routes()
    except (RequestError, WriteError) as error:
        refused = "not_writable" if isinstance(error, WriteError) else "unreachable"
        _give_up(outbox, outbox.items(resources), refused)
        routes = {}
    tag = _tag(resources, outbox.partition)
    findings = Findings()
    for last in (False, True):
        if not routes:
            break
        _send_all(outbox, server, routes, resources)
        findings = reconcile(server, outbox.ledger, _confirmed(outbox), tag=tag, routes=routes)
        # A restored or emptied server has lost what the ledger knows: that is sent once more.
        lost = [key for key in findings.unknown if outbox.tally.outcomes[key] is Outcome.UNCHANGED]
        if last or not lost:
            break
        outbox.ledger.forget_place(server.key, lost, now=outbox.now())
    _settle_findings(outbox, findings)
    return outbox.tally.summary(
        destination=server.kind,
        requests=server.requests,
        strategies={kind: str(route) for kind, route in routes.items()},
        reconciliation=findings.counts,
    )


def _send_all(
    outbox: Outbox,
    server: FhirServer,
    routes: dict[str, Route],
    resources: list[dict[str, Any]],
) -> None:
    down: str | None = None
    for group in in_order(resources):
        if not group:
            continue
        kind = str(group[0]["resourceType"])
        route = routes.get(kind)
        if route is None:
            outbox.note_not_supported(group)
            continue
        as_observation = route.server_type == "Observation"
        items = outbox.items(group, observation if as_observation else lambda resource: resource)
        waiting = outbox.to_send(items)
        if not waiting:
            continue
        if down is None:
            try:
                waiting = _recover(outbox, server, route, waiting)
            except RequestError:
                down = "unreachable"
        if down is not None:
            _give_up(outbox, waiting, down)
            continue
        outbox.enqueue(waiting)
        down = Sending(server, route, before=outbox.mark_sent, after=outbox.settle).send(waiting)


def _recover(outbox: Outbox, server: FhirServer, route: Route, items: list[Item]) -> list[Item]:
    """Look for items of which no version is known: an answer, or the whole ledger, may have been lost."""
    unknown = [item for item in items if item.version is None]
    if not unknown:
        return items
    there = look_up(server, route, unknown)
    left: list[Item] = []
    ended: list[Answer] = []
    for item in items:
        held = there.get(item.key) if item.version is None else None
        verdict = item if held is None else judge_held(item, held)
        if isinstance(verdict, Item):
            left.append(verdict)
        else:
            ended.append(verdict)
    outbox.remember([item for item in left if item.key in there])
    outbox.enqueue([answer.item for answer in ended])
    outbox.settle(ended)
    return left


def _give_up(outbox: Outbox, items: list[Item], error_class: str) -> None:
    """Count items that were not even tried; what the ledger knows of them stays as it is."""
    new = [item for item in items if item.known is None]
    outbox.enqueue(new)
    outbox.settle([dead(item, error_class) for item in new])
    for item in items:
        outbox.tally.note(item.key, Outcome.DEAD_LETTERED, error_class)


def _confirmed(outbox: Outbox) -> dict[Key, Entry]:
    lost = {Outcome.DEAD_LETTERED, Outcome.NOT_SUPPORTED}
    keys = [key for key, outcome in outbox.tally.outcomes.items() if outcome not in lost]
    entries = outbox.ledger.entries(outbox.destination, keys)
    return {key: entry for key, entry in entries.items() if entry.server_id is not None}


def _settle_findings(outbox: Outbox, findings: Findings) -> None:
    """Write into ledger and account what the reconciliation saw."""
    entries = _confirmed(outbox)
    rows = []
    for error_class, keys in (("missing", findings.unknown), ("deleted", findings.deleted)):
        for key in keys:
            outbox.tally.note(key, Outcome.DEAD_LETTERED, error_class)
            rows.append(Settled(key=key, state=State.DEAD_LETTER, error_class=error_class))
    for key in findings.amended:
        if outbox.tally.outcomes[key] is not Outcome.WITHDRAWN:
            outbox.tally.note(key, Outcome.AMENDED_BY_OTHERS)
    for key, held in findings.adopted.items():
        entry = entries[key]
        rows.append(
            Settled(
                key=key,
                state=State.CONFIRMED,
                server_type=entry.server_type,
                server_id=entry.server_id,
                server_version=held.version,
                error_class=entry.error_class,
            )
        )
    # without a version to match, the next delivery can create what the server never kept
    outbox.ledger.forget_place(outbox.destination, findings.unknown, now=outbox.now())
    outbox.ledger.settle(outbox.destination, rows, now=outbox.now())


def _tag(resources: Sequence[dict[str, Any]], partition: str) -> dict[str, str] | None:
    for resource in resources:
        for tag in resource.get("meta", {}).get("tag", ()):
            if tag.get("code") == partition:
                return {"system": str(tag["system"]), "code": str(tag["code"])}
    return None
