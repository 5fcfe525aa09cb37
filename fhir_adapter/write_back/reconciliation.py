"""After the run: what the server is seen to hold, beside what the ledger says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from fhir_adapter.errors import RequestError
from fhir_adapter.store.ledger import Entry, Ledger
from fhir_adapter.write_back.item import Held, Key
from fhir_adapter.write_back.server import FhirServer, identifiers_of
from fhir_adapter.write_back.strategy import Route
from fhir_adapter.write_back.summary import SCORE, Reconciliation


@dataclass
class Findings:
    """Counts, and the resources behind them.

    Attributes
    ----------
    counts
        For the summary.
    unknown, deleted
        Resources that the server does not hold: it says that it never did (404), or no longer does (410).
    amended
        Scores that someone else has changed.
    adopted
        Versions of resources that say what ours says, where the ledger has another version.
    """

    counts: Reconciliation = field(default_factory=Reconciliation)
    unknown: list[Key] = field(default_factory=list)
    deleted: list[Key] = field(default_factory=list)
    amended: list[Key] = field(default_factory=list)
    adopted: dict[Key, Held] = field(default_factory=dict)


def reconcile(
    server: FhirServer,
    ledger: Ledger,
    expected: Mapping[Key, Entry],
    *,
    tag: Mapping[str, str] | None,
    routes: Mapping[str, Route],
) -> Findings:
    """Compare what the ledger calls confirmed with what the server holds.

    Scores and Provenances are found by the run's tag, page by page; what the search does not show, and
    the few resources without a tag, are read one by one, since an index may lag or drop tags.

    Parameters
    ----------
    expected
        Confirmed rows by key.
    tag
        The run's tag; None where nothing carries one.
    """
    found = Findings()
    held: dict[tuple[str, str], Held] = {}
    tagged_scores: list[Held] = []
    for kind in (SCORE, "Provenance"):
        route = routes.get(kind)
        if tag is None or route is None:
            continue
        try:
            listed = list(server.tagged(route.server_type, tag))
        except RequestError:
            continue  # a server without _tag: everything is read one by one
        held |= {(item.resource_type, item.id): item for item in listed}
        tagged_scores += listed if kind == SCORE else []
    complete = True
    for key, entry in expected.items():
        place = (str(entry.server_type), str(entry.server_id))
        if place not in held:
            try:
                there = server.read(*place)
            except RequestError:
                complete = False
                continue
            if isinstance(there, int):
                (found.deleted if there == 410 else found.unknown).append(key)
                continue
            held[place] = there
        _compare(key, entry, held[place], found)
    scores = {key: entry for key, entry in expected.items() if key[0] == SCORE}
    lost = {*found.unknown, *found.deleted}
    places = {(entry.server_type, entry.server_id) for entry in expected.values()}
    strangers = [item for item in tagged_scores if (item.resource_type, item.id) not in places]
    known: set[str] = set()
    if strangers:
        known = ledger.known_ids(server.key, strangers[0].resource_type, [item.id for item in strangers])
    identifiers = Counter(name for item in tagged_scores for name in identifiers_of(item.resource))
    found.counts = Reconciliation(
        complete=complete,
        expected=len(scores),
        held=sum((str(e.server_type), str(e.server_id)) in held for e in scores.values()),
        missing=len(lost),
        duplicated=sum(n > 1 for n in identifiers.values()),
        unexpected=sum(item.id not in known for item in strangers),
        amended=len(found.amended),
    )
    return found


def _compare(key: Key, entry: Entry, held: Held, found: Findings) -> None:
    if held.version == entry.server_version and held.version is not None:
        return
    if entry.withdrawn:
        return
    if held.digest == entry.payload_hash:
        if held.version is not None:
            found.adopted[key] = held
    elif key[0] == SCORE:
        found.amended.append(key)
