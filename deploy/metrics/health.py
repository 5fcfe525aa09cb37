"""A health page for load balancers and watchers: is the last run in order, and is it recent enough."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

from deploy.metrics.textfile import FILE

LONGEST_AGE = 26 * 3600.0
"""A nightly run may be two hours late before its absence counts as a fault."""
_SAMPLE = re.compile(r"nightingale_(run_success|run_ended_seconds)\{[^}]*\} (\S+)")


@dataclass(frozen=True)
class Health:
    """State of the site's nights.

    Attributes
    ----------
    status
        ``ok``; ``failed`` (the last run is not in order); ``late`` (none ended for too long); ``unknown``.
    age_seconds
        Since the last run ended.
    """

    status: Literal["ok", "failed", "late", "unknown"]
    age_seconds: float | None = None


def read_health(metrics: Path, *, now: float, longest_age: float = LONGEST_AGE) -> Health:
    """Judge the last run by its metrics file."""
    if not metrics.is_file():
        return Health("unknown")
    found = dict(_SAMPLE.findall(metrics.read_text("utf-8")))
    if {"run_success", "run_ended_seconds"} - set(found):
        return Health("unknown")
    age = now - float(found["run_ended_seconds"])
    if float(found["run_success"]) != 1:
        return Health("failed", age)
    return Health("late" if age > longest_age else "ok", age)


def make_server(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    longest_age: float = LONGEST_AGE,
    clock: Callable[[], float] = time.time,
) -> ThreadingHTTPServer:
    """Return a server of ``/health`` (200 or 503, JSON) and ``/metrics`` (text); nothing else is served."""

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "Nightingale", ""

        def do_GET(self) -> None:
            path = self.path.split("?", 1)[0]
            if path == "/health":
                health = read_health(folder / FILE, now=clock(), longest_age=longest_age)
                self._answer(
                    200 if health.status == "ok" else 503, json.dumps(asdict(health)), "application/json"
                )
            elif path == "/metrics" and (folder / FILE).is_file():
                self._answer(
                    200, (folder / FILE).read_text("utf-8"), "text/plain; version=0.0.4; charset=utf-8"
                )
            else:
                self._answer(404, "", "text/plain")

        def _answer(self, status: int, body: str, kind: str) -> None:
            content = body.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            del format, args

    return ThreadingHTTPServer((host, port), Handler)
