"""Withdrawal: a run's or a model's scores marked entered-in-error where they were written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from fhir_adapter.errors import RequestError
from fhir_adapter.store.ledger import Entry, Ledger, utc_now
from fhir_adapter.write_back.canonical import content_hash
from fhir_adapter.write_back.item import Answer, Held, Item, Outcome
from fhir_adapter.write_back.ndjson_drop import NdjsonDrop
from fhir_adapter.write_back.sending import Sending
from fhir_adapter.write_back.server import FhirServer, identifiers_of
from fhir_adapter.write_back.strategy import Method, Route
from fhir_adapter.write_back.summary import SCORE

WITHDRAWN = "entered-in-error"


@dataclass(frozen=True, kw_only=True)
class WithdrawalSummary:
    """Counts of one withdrawal.

    Attributes
    ----------
    selected
        Scores of the run or model; the sum of all that follows.
    withdrawn
        Marked entered-in-error now.
    already
        Marked before, by this command or by a person.
    amended_by_others
        Changed by someone else and left alone.
    not_there
        Not held by the destination; a rerun will not write them either.
    failed
        Not marked; ``errors`` says why, by class.
    """

    selected: int
    withdrawn: int = 0
    already: int = 0
    amended_by_others: int = 0
    not_there: int = 0
    failed: int = 0
    errors: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)


def withdraw(
    *,
    ledger: Ledger,
    destination: FhirServer | NdjsonDrop,
    run: str | None = None,
    model_digest: str | None = None,
    also_amended: bool = False,
    now: Callable[[], datetime] = utc_now,
    progress: Callable[[int, int], None] | None = None,
) -> WithdrawalSummary:
    """Mark scores entered-in-error; safe to repeat.

    Parameters
    ----------
    run, model_digest
        Which scores: those that a run wrote, those of a model, or those that are both.
    also_amended
        Whether scores that someone has changed are marked too; the changes stay.

    Raises
    ------
    ValueError
        If neither run nor model is given.
    """
    if run is None and model_digest is None:
        raise ValueError("a withdrawal needs a run or a model")
    entries = ledger.find(destination.key, run=run, model_digest=model_digest, resource_type=SCORE)
    counts: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    open_entries = [entry for entry in entries if entry.withdrawn is None]
    counts["already"] = len(entries) - len(open_entries)

    def tell() -> None:
        if progress:
            progress(counts.total(), len(entries))

    tell()
    if isinstance(destination, NdjsonDrop):
        _in_files(ledger, destination, open_entries, counts, now)
    else:
        _on_server(ledger, destination, open_entries, counts, errors, also_amended, now, tell)
    tell()
    return WithdrawalSummary(selected=len(entries), **counts, errors=dict(sorted(errors.items())))


def _on_server(
    ledger: Ledger,
    server: FhirServer,
    entries: Sequence[Entry],
    counts: Counter[str],
    errors: Counter[str],
    also_amended: bool,
    now: Callable[[], datetime],
    tell: Callable[[], None],
) -> None:
    def settle(answers: Sequence[Answer]) -> None:
        done = []
        for answer in answers:
            if answer.outcome in (Outcome.WRITTEN, Outcome.FOUND):
                counts["withdrawn"] += 1
                done.append((answer.item.key, answer.server_version))
            elif answer.outcome is Outcome.AMENDED_BY_OTHERS:
                counts["amended_by_others"] += 1
            else:
                counts["failed"] += 1
                errors[answer.error_class or "unknown"] += 1
        ledger.mark_withdrawn(server.key, done, now=now())
        tell()

    down = False
    for start in range(0, len(entries), server.bundle_size):
        items: list[Item] = []
        for entry in entries[start : start + server.bundle_size]:
            held = None
            try:
                held = None if down else _read(server, entry)
            except RequestError:
                down = True
            if down:
                counts["failed"] += 1
                errors["unreachable"] += 1
            elif held is None:
                counts["not_there"] += 1
                ledger.mark_withdrawn(server.key, [(entry.key, entry.server_version)], now=now())
            elif held.resource.get("status") == WITHDRAWN:
                counts["already"] += 1
                ledger.mark_withdrawn(server.key, [(entry.key, held.version)], now=now())
            elif _amended(entry, held) and not also_amended:
                counts["amended_by_others"] += 1
            else:
                items.append(_item(entry, held))
        for kind in sorted({item.server_type for item in items}):
            route = Route(server_type=kind, method=Method.PUT, update=True)
            group = [item for item in items if item.server_type == kind]
            if Sending(server, route, before=lambda sent: None, after=settle).send(group):
                down = True


def _read(server: FhirServer, entry: Entry) -> Held | None:
    """Return what the server holds of a score, also where its answer to the first writing was lost."""
    if entry.server_id is None:
        for kind in (SCORE, "Observation"):
            found = server.first(
                kind,
                f"identifier={entry.resource_id}",
                wanted=lambda item: any(
                    name.endswith(f"|{entry.resource_id}") for name in identifiers_of(item)
                ),
            )
            if found is not None:
                return found
        return None
    held = server.read(str(entry.server_type), entry.server_id)
    return held if isinstance(held, Held) else None


def _amended(entry: Entry, held: Held) -> bool:
    return held.version != entry.server_version and held.digest != entry.payload_hash


def _item(entry: Entry, held: Held) -> Item:
    payload = held.resource | {"status": WITHDRAWN}
    place = replace(entry, server_type=held.resource_type, server_id=held.id, server_version=held.version)
    return Item(
        key=entry.key, payload=payload, digest=content_hash(payload), known=place, version=held.version
    )


def _in_files(
    ledger: Ledger,
    drop: NdjsonDrop,
    entries: Sequence[Entry],
    counts: Counter[str],
    now: Callable[[], datetime],
) -> None:
    for partition in sorted({entry.partition for entry in entries}):
        mine = [entry for entry in entries if entry.partition == partition]
        lines = drop.read(SCORE, partition)
        there = [entry for entry in mine if entry.key in lines]
        for entry in there:
            lines[entry.key]["status"] = WITHDRAWN
        if there:
            drop.write(SCORE, partition, list(lines.values()))
        ledger.mark_withdrawn(drop.key, [(entry.key, entry.server_version) for entry in mine], now=now())
        counts["withdrawn"] += len(there)
        counts["not_there"] += len(mine) - len(there)
