"""Delivery into a folder of NDJSON files."""

from __future__ import annotations

from typing import Any

from fhir_adapter.write_back.exchange import REPLACED
from fhir_adapter.write_back.item import Answer, Item, Key, Outcome, dead
from fhir_adapter.write_back.ndjson_drop import NdjsonDrop
from fhir_adapter.write_back.outbox import Outbox
from fhir_adapter.write_back.preparation import in_order
from fhir_adapter.write_back.summary import SCORE, Reconciliation, WriteSummary


def deliver_files(outbox: Outbox, drop: NdjsonDrop, resources: list[dict[str, Any]]) -> WriteSummary:
    """Write one file a type; what the ledger calls unchanged stands in it with the same bytes."""
    missing = 0
    scores: dict[Key, dict[str, Any]] = {}
    expected = 0
    for group in in_order(resources):
        if not group:
            continue
        kind = str(group[0]["resourceType"])
        items = outbox.items(group)
        waiting = outbox.to_send(items)
        outbox.enqueue(waiting)
        outbox.mark_sent(waiting)
        fresh = {item.key for item in waiting}
        versions = {item.key: _version(item, fresh=item.key in fresh) for item in items}
        lines = [_line(item, versions[item.key], outbox) for item in items]
        try:
            drop.write(kind, outbox.partition, lines)
            there = drop.read(kind, outbox.partition)
        except OSError:
            outbox.settle([dead(item, "file") for item in items])
            continue
        written = [item for item in waiting if item.key in there]
        outbox.settle(
            [
                Answer(
                    item=item,
                    outcome=Outcome.WRITTEN,
                    server_id=item.key[1],
                    server_version=str(versions[item.key]),
                )
                for item in written
            ]
        )
        lost = [item for item in items if item.key not in there]
        outbox.settle([dead(item, "missing") for item in lost])
        missing += len(lost)
        if kind == SCORE:
            scores, expected = there, len(items)
    return outbox.tally.summary(
        destination=drop.kind,
        requests=drop.requests,
        strategies={},
        reconciliation=Reconciliation(complete=True, expected=expected, held=len(scores), missing=missing),
    )


def _version(item: Item, *, fresh: bool) -> int:
    """Return the number of a resource's version: one more than the last for what is new."""
    last = int(item.version) if item.version else 0
    return last + 1 if fresh else last


def _line(item: Item, version: int, outbox: Outbox) -> dict[str, Any]:
    withdrawn = item.known is not None and item.known.withdrawn and not outbox.rewrite_withdrawn
    if withdrawn:
        return item.payload | {"status": "entered-in-error"}
    if version > 1 and item.payload["resourceType"] in REPLACED:
        return item.payload | {"status": "corrected"}
    return item.payload
