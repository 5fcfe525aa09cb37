"""Bundles on their way: each entry's own status judged, what may pass tried again, the rest set aside.

A bundle whose answer is lost, too large or too slow is halved, so that one resource cannot hold up the
others; before anything is sent again the server is asked what it took, so that a lost answer never
becomes a second score.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fhir_adapter.errors import (
    AuthorizationError,
    ConnectionLostError,
    ContentError,
    FatalError,
    OriginError,
    RequestError,
)
from fhir_adapter.transport import retry_after_seconds
from fhir_adapter.write_back.exchange import EntryAnswer, ask, condition, is_same
from fhir_adapter.write_back.item import Answer, Held, Item, Key, Outcome, dead, left_alone
from fhir_adapter.write_back.server import FhirServer, identifiers_of
from fhir_adapter.write_back.strategy import Method, Route

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
BUSY = frozenset({425, 429, 503})
"""The server did nothing and says so: the same bundle again, not halves of it."""

NO_BUNDLES = frozenset({404, 405, 415, 501})
"""What servers say that take no Bundles at their base."""

MAX_FAILURES = 15
"""Failures in a row, without any success, after which the server counts as down."""

CLASSES = {
    400: "invalid",
    403: "forbidden",
    404: "not_found",
    410: "deleted",
    413: "too_large",
    422: "invalid",
}


class _DownError(Exception):
    """Nothing more can be written now; ``error_class`` says why."""

    def __init__(self, error_class: str) -> None:
        super().__init__(error_class)
        self.error_class = error_class


@dataclass(frozen=True)
class _Piece:
    items: tuple[Item, ...]
    tries: int = 0


class Sending:
    """Sends the items of one type.

    Parameters
    ----------
    server
        Destination.
    route
        How the type is written there.
    before
        Called with the items of a request before it leaves.
    after
        Called with answers as they become final.
    draw
        Uniform random numbers for jitter.
    """

    def __init__(
        self,
        server: FhirServer,
        route: Route,
        *,
        before: Callable[[Sequence[Item]], None],
        after: Callable[[Sequence[Answer]], None],
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._server = server
        self._route = route
        self._before = before
        self._report = after
        self._draw = draw
        self._failures = 0
        self._answered: set[Key] = set()

    def send(self, items: Sequence[Item]) -> str | None:
        """Send all items; each gets exactly one answer.

        Returns
        -------
        str or None
            Why the server takes nothing more, or None.
        """
        size = self._server.bundle_size
        waiting = [_Piece(tuple(items[start : start + size])) for start in range(0, len(items), size)]
        waiting.reverse()
        while waiting:
            piece = waiting.pop()
            try:
                waiting += reversed(self._try(piece))
            except _DownError as error:
                rest = [item for left in [piece, *reversed(waiting)] for item in left.items]
                self._after(
                    [dead(item, error.error_class) for item in rest if item.key not in self._answered]
                )
                return error.error_class
        return None

    def _after(self, answers: Sequence[Answer]) -> None:
        if answers:
            self._answered.update(answer.item.key for answer in answers)
            self._report(answers)

    def _try(self, piece: _Piece) -> list[_Piece]:
        """Send one piece once; return what must be sent again."""
        pairs = [(item, ask(item, self._route)) for item in piece.items]
        fixed = [item for item, request in pairs if request is None]
        self._after([dead(item, "not_replaceable") for item in fixed])
        sent = [(item, request) for item, request in pairs if request is not None]
        if not sent:
            return []
        items = tuple(item for item, _ in sent)
        piece = replace(piece, items=items)
        self._before(items)
        try:
            reply = self._server.submit([request for _, request in sent])
        except (AuthorizationError, OriginError):
            raise _DownError("authorization") from None
        except (ConnectionLostError, ContentError):
            return self._again(self._not_taken(piece), halve=True, error_class="connection")
        except RequestError:
            raise _DownError("request") from None
        if isinstance(reply, list):
            return self._judge(piece, reply)
        if reply.status in PASSING or reply.status == 413:
            wait = retry_after_seconds(reply.headers.get("retry-after"), self._server.transport.clock.now())
            halve = reply.status not in BUSY
            if reply.status not in (413, *BUSY):
                piece = self._not_taken(piece)
            error_class = "too_large" if reply.status == 413 else "server"
            return self._again(
                piece, halve=halve, error_class=error_class, wait=wait, pause=reply.status != 413
            )
        if reply.status == 403:
            raise _DownError("authorization")
        if reply.status in NO_BUNDLES and self._server.bundle_size > 1:
            self._server.bundle_size = 1
            return [_Piece((item,), piece.tries) for item in items]
        if len(items) > 1:  # one bad resource must not condemn its neighbours
            return self._again(piece, halve=True, error_class="invalid", pause=False)
        self._after([dead(items[0], CLASSES.get(reply.status, f"status_{reply.status}"))])
        return []

    def _again(
        self, piece: _Piece, *, halve: bool, error_class: str, wait: float | None = None, pause: bool = True
    ) -> list[_Piece]:
        """Wait and return the piece, whole or in halves; give up where it has been tried enough."""
        if not piece.items:
            return []
        tries = piece.tries + 1
        alone = len(piece.items) == 1
        if alone and error_class == "too_large":
            self._after([dead(piece.items[0], error_class)])
            return []
        policy = self._server.retry
        if pause:
            self._failures += 1
            if self._failures >= MAX_FAILURES:
                raise _DownError(error_class)
        if tries >= policy.attempts and (alone or not halve):
            if not halve:  # busy for the whole time: it would be so for the next bundle too
                raise _DownError(error_class)
            self._after([dead(item, error_class) for item in piece.items])
            return []
        if wait is not None and wait > policy.longest_wait:
            raise _DownError("retry_after")
        if pause:
            self._server.transport.clock.sleep(
                policy.backoff(tries - 1, self._draw()) if wait is None else wait
            )
        if not halve or alone:
            return [_Piece(piece.items, tries)]
        middle = len(piece.items) // 2
        return [_Piece(piece.items[:middle], tries), _Piece(piece.items[middle:], tries)]

    def _not_taken(self, piece: _Piece) -> _Piece:
        """Ask the server which items it took though the answer was lost; return the piece without them."""
        try:
            there = look_up(self._server, self._route, piece.items)
        except RequestError:
            raise _DownError("unreachable") from None
        done, left = [], []
        for item in piece.items:
            held = there.get(item.key)
            verdict = item if held is None else judge_held(item, held)
            if isinstance(verdict, Item):
                left.append(verdict)
            elif verdict.outcome is Outcome.FOUND:
                done.append(replace(verdict, outcome=Outcome.WRITTEN))
            else:
                done.append(verdict)
        if done:
            self._failures = 0
        self._after(done)
        return replace(piece, items=tuple(left))

    def _judge(self, piece: _Piece, answers: Sequence[EntryAnswer]) -> list[_Piece]:
        """Settle what each entry's status says; return what must be sent again."""
        final: list[Answer] = []
        again: list[Item] = []
        waits: list[float] = []
        for item, answer in zip(piece.items, answers, strict=True):
            verdict = self._verdict(item, answer)
            if isinstance(verdict, Answer):
                final.append(verdict)
            else:
                again.append(verdict)
                waits += [answer.retry_after] if answer.retry_after is not None else []
        if any(answer.outcome is not Outcome.DEAD_LETTERED for answer in final):
            self._failures = 0
        self._after(final)
        left = _Piece(tuple(again), piece.tries)
        if again and piece.tries + 1 >= self._server.retry.attempts:
            self._after([dead(item, "server") for item in again])
            return []
        return self._again(left, halve=False, error_class="server", wait=max(waits, default=None))

    def _verdict(self, item: Item, answer: EntryAnswer) -> Answer | Item:
        """Return the final answer of an entry, or the item to send again."""
        status = answer.status
        created = self._route.method is Method.CONDITIONAL_CREATE and item.server_id is None
        if created and status == 200:  # something with our identifier was there: nothing was written
            return self._compare(item, answer.id)
        if 200 <= status < 300:
            name = answer.id or item.server_id or item.key[1]
            return Answer(item=item, outcome=Outcome.WRITTEN, server_id=name, server_version=answer.version)
        if status in PASSING:
            return item
        if created and status == 412:
            return dead(item, "several_matches", answer.codes)
        if created and status == 409:
            return item
        if status in (409, 412):
            return self._compare(item, item.server_id or item.key[1])
        return dead(item, CLASSES.get(status, f"status_{status}"), answer.codes)

    def _compare(self, item: Item, name: str | None) -> Answer | Item:
        """Read what is there and decide: ours already, an older one of ours, or someone else's."""
        try:
            if name is None:
                held: Held | int = find(self._server, self._route, item) or 404
            else:
                held = self._server.read(self._route.server_type, name)
        except RequestError:
            return item
        if isinstance(held, int):
            return dead(item, CLASSES.get(held, f"status_{held}"))
        return judge_held(item, held)


def judge_held(item: Item, held: Held) -> Answer | Item:
    """Decide about what a server holds in an item's place.

    Returns
    -------
    Answer or Item
        The item itself, with the version to replace, where an older one of ours is there.
    """
    if held.digest == item.digest:
        return confirmed(item, Outcome.FOUND, held)
    known = item.known
    ours = known is not None and (
        held.digest == known.payload_hash
        or (known.server_version is not None and held.version == known.server_version)
    )
    if ours and known is not None:
        place = replace(known, server_type=held.resource_type, server_id=held.id)
        return replace(item, version=held.version, known=place)
    return left_alone(item, held)


def confirmed(item: Item, outcome: Outcome, held: Held) -> Answer:
    """Return the answer of an item that the server was seen to hold."""
    return Answer(item=item, outcome=outcome, server_id=held.id, server_version=held.version)


def find(server: FhirServer, route: Route, item: Item) -> Held | None:
    """Return what a search for an item alone finds."""
    return server.first(route.server_type, condition(item), wanted=lambda resource: is_same(item, resource))


def look_up(server: FhirServer, route: Route, items: Sequence[Item]) -> dict[Key, Held]:
    """Return what the server holds of some items: by identifiers, many a search, else one by one.

    Raises
    ------
    RequestError
        If the server cannot be asked.
    """
    by_identifier = {item.identifier: item.key for item in items if item.identifier}
    found: dict[Key, Held] = {}
    singly = [item for item in items if not item.identifier]
    try:
        for held in server.identified(route.server_type, list(by_identifier)):
            for identifier in identifiers_of(held.resource):
                if identifier in by_identifier:
                    found[by_identifier[identifier]] = held
    except FatalError:
        if route.method is not Method.PUT:
            raise
        singly = list(items)  # a server that cannot search by identifier, but takes our ids
    for item in singly:
        if route.method is Method.PUT or item.server_id:
            one = server.read(route.server_type, item.server_id or item.key[1])
        else:
            one = find(server, route, item) or 404
        if isinstance(one, Held):
            found[item.key] = one
    return found
