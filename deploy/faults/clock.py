"""Time that passes only by waiting, so that five hours of Retry-After cost nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import fhir_adapter.transport

START = datetime(2026, 1, 15, 4, 15, tzinfo=UTC)
"""The demo night's prediction time and a quarter of an hour: when its schedule fires."""


class VirtualClock:
    """A :class:`fhir_adapter.transport.Clock` shared by client and server; nobody ever waits for it.

    Attributes
    ----------
    slept
        Every wait asked for, in order, in seconds.
    """

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self._elapsed = 0.0
        self._lock = threading.Lock()
        self.slept: list[float] = []

    def now(self) -> datetime:
        """Return the virtual time."""
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        """Return virtual seconds since the start."""
        return self._elapsed

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        with self._lock:
            self.slept.append(seconds)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass without anybody having waited: a server that takes its time."""
        with self._lock:
            self._elapsed += seconds


@contextmanager
def virtual_time(clock: VirtualClock) -> Iterator[None]:
    """Give every transport that is opened without a clock this one, as the night's steps open theirs."""
    original = fhir_adapter.transport.SystemClock
    fhir_adapter.transport.SystemClock = lambda: clock  # type: ignore[assignment, misc, return-value]
    try:
        yield
    finally:
        fhir_adapter.transport.SystemClock = original  # type: ignore[misc]
