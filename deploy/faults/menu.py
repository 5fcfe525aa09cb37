"""The menu: what can go wrong between two correct programs, one function a dish.

A :class:`Fault` says which requests it spoils, how many, and how. Every function here makes the ``spoil`` of
a fault: it gets the request and a way to the server's own answer, which may or may not be taken.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from email.utils import format_datetime
from threading import Lock
from typing import Any

from deploy.faults.clock import VirtualClock
from deploy.faults.loopback import Answer, Handle, Request, json_answer, outcome

Spoil = Callable[[Request, Handle], Answer]
Chooser = Callable[[Request], bool]
FOREVER = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault of a case.

    Attributes
    ----------
    on
        Tells which requests it is about.
    spoil
        What becomes of the answer.
    times
        How many requests are spoilt.
    skip
        Matching requests that pass unharmed before.
    """

    on: Chooser
    spoil: Spoil
    times: int = 1
    skip: int = 0


@dataclass
class Saboteur:
    """Stands before a server and spoils answers by script.

    Attributes
    ----------
    injected
        Answers spoilt so far.
    """

    handle: Handle
    faults: tuple[Fault, ...]
    injected: int = 0
    _matched: dict[int, int] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def __call__(self, request: Request) -> Answer:
        """Answer a request, spoilt by the first fault that applies."""
        for number, fault in enumerate(self.faults):
            if not fault.on(request):
                continue
            with self._lock:
                before = self._matched.get(number, 0)
                self._matched[number] = before + 1
                due = fault.skip <= before < fault.skip + fault.times
                self.injected += due
            if due:
                return fault.spoil(request, self.handle)
        return self.handle(request)

    def heal(self) -> None:
        """Spoil nothing any more."""
        self.faults = ()


# Which requests


def get(path_part: str, query_part: str = "") -> Chooser:
    """Choose GET requests by parts of path and query."""
    return lambda request: (
        request.method == "GET" and path_part in request.path and query_part in request.target
    )


def send(method: str, path_part: str) -> Chooser:
    """Choose requests of another method by a part of the path."""
    return lambda request: request.method == method and path_part in request.path


def batch_of(kind: str) -> Chooser:
    """Choose batch Bundles that hold a type."""
    return lambda request: (
        request.method == "POST" and f'"resourceType":"{kind}"'.encode() in request.body.replace(b": ", b":")
    )


# What becomes of the answer


def status(code: int, *, retry_after: str | None = None, issue: str = "transient") -> Spoil:
    """Refuse before the server acts."""
    headers = {"Retry_After": retry_after} if retry_after else {}
    return lambda request, carry_on: outcome(code, issue, **headers)


def too_many(clock: VirtualClock, seconds: int) -> Spoil:
    """429 with Retry-After as an HTTP date by the server's clock."""

    def spoil(request: Request, carry_on: Handle) -> Answer:
        moment = clock.now() + timedelta(seconds=seconds)
        return outcome(429, "throttled", Retry_After=format_datetime(moment, usegmt=True))

    return spoil


def reset() -> Spoil:
    """Reset the connection before anything is done."""
    return lambda request, carry_on: Answer(cut=-1)


def lost_answer() -> Spoil:
    """Let the server act, then reset the connection: the client cannot know."""

    def spoil(request: Request, carry_on: Handle) -> Answer:
        return replace(carry_on(request), cut=-1)

    return spoil


def cut(share: float = 0.5) -> Spoil:
    """Reset the connection in the middle of the body."""

    def spoil(request: Request, carry_on: Handle) -> Answer:
        answer = carry_on(request)
        return replace(answer, cut=int(len(answer.body) * share))

    return spoil


def drip(clock: VirtualClock, seconds: float) -> Spoil:
    """Send half of the body, then nothing for a very long time: slow-loris from the other side."""

    def spoil(request: Request, carry_on: Handle) -> Answer:
        return replace(carry_on(request), pause=lambda: clock.advance(seconds))

    return spoil


def wrong_length(difference: int) -> Spoil:
    """Claim a Content-Length that is not the body's."""

    def spoil(request: Request, carry_on: Handle) -> Answer:
        answer = carry_on(request)
        return replace(answer, length=len(answer.body) + difference)

    return spoil


def cut_gzip() -> Spoil:
    """Compress the body and leave its end out, with a matching Content-Length."""

    def spoil(request: Request, carry_on: Handle) -> Answer:
        answer = carry_on(request)
        body = gzip.compress(answer.body)
        return replace(
            answer, body=body[: len(body) // 2], headers={**answer.headers, "Content-Encoding": "gzip"}
        )

    return spoil


def login_page(request: Request, carry_on: Handle) -> Answer:
    """Answer with a web page and status 200, as a single sign-on proxy does."""
    page = b"<!DOCTYPE html><html><title>Sign in</title><form>Your session has ended</form></html>"
    return Answer(body=page, headers={"Content-Type": "text/html; charset=utf-8"})


def redirect(target: str) -> Spoil:
    """Send the client elsewhere."""
    return lambda request, carry_on: Answer(status=302, headers={"Location": target})


def instead(answer: Answer) -> Spoil:
    """Answer something else."""
    return lambda request, carry_on: answer


def body(change: Callable[[Any, Request], Any]) -> Spoil:
    """Change a JSON answer."""

    def spoil(request: Request, carry_on: Handle) -> Answer:
        answer = carry_on(request)
        value = change(json.loads(answer.body), request)
        return json_answer(value, answer.status)

    return spoil


def lines(change: Callable[[list[bytes]], list[bytes]]) -> Spoil:
    """Change the lines of an NDJSON answer."""

    def spoil(request: Request, carry_on: Handle) -> Answer:
        answer = carry_on(request)
        return replace(answer, body=b"".join(change(answer.body.splitlines(keepends=True))))

    return spoil


def first_entries_only(count: int) -> Spoil:
    """Act on the first entries of a batch, then break down: the client sees a reset."""

    def spoil(request: Request, carry_on: Handle) -> Answer:
        bundle = request.json()
        part = bundle | {"entry": bundle["entry"][:count]}
        carry_on(replace(request, body=json.dumps(part).encode()))
        return Answer(cut=-1)

    return spoil


def entry_statuses(refusals: dict[int, tuple[int, str]]) -> Spoil:
    """Refuse entries of a batch by position, and do the others."""
    from deploy.faults.fhir_server import entry_refusal

    def spoil(request: Request, carry_on: Handle) -> Answer:
        bundle = request.json()
        kept = [entry for number, entry in enumerate(bundle["entry"]) if number not in refusals]
        answer = carry_on(replace(request, body=json.dumps(bundle | {"entry": kept}).encode()))
        value = json.loads(answer.body)
        done = iter(value["entry"])
        value["entry"] = [
            entry_refusal(*refusals[number]) if number in refusals else next(done)
            for number in range(len(bundle["entry"]))
        ]
        return json_answer(value)

    return spoil
