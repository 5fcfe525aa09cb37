"""A loopback HTTP server whose faults are scripted: the answer is computed, then spoilt."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

FHIR_JSON = "application/fhir+json"


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request as it arrived; header names in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """Decoded path."""
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, list[str]]:
        """Decoded query parameters."""
        return parse_qs(urlsplit(self.target).query, keep_blank_values=True)

    @property
    def base(self) -> str:
        """Address of this server as the client named it."""
        return f"http://{self.headers['host']}"

    def json(self) -> Any:
        """Return the parsed body."""
        return json.loads(self.body)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer, and how it is spoilt on its way.

    Attributes
    ----------
    length
        Content-Length to claim; None tells the truth.
    cut
        Reset the connection after this many bytes of the body; -1 before the status line.
    pause
        Called between the two halves of the body: a server that drips.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    cut: int | None = None
    pause: Callable[[], None] | None = None


Handle = Callable[[Request], Answer]


def json_answer(value: Any, status: int = 200, **headers: str) -> Answer:
    """Return a FHIR JSON answer; underscores in header names stand for hyphens."""
    names = {name.replace("_", "-"): text for name, text in headers.items()}
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return Answer(status=status, body=body, headers={"Content-Type": FHIR_JSON, **names})


def outcome(status: int, code: str, text: str = "refused", **headers: str) -> Answer:
    """Return an OperationOutcome."""
    issue = {"severity": "error", "code": code, "diagnostics": text}
    return json_answer({"resourceType": "OperationOutcome", "issue": [issue]}, status, **headers)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    disable_nagle_algorithm = True
    handle_request: Handle

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(
            method=self.command, target=self.path, headers=headers, body=self.rfile.read(length)
        )
        answer = type(self).handle_request(request)
        if answer.cut == -1:
            self._reset()
            return
        self.send_response_only(answer.status)  # a Date header, if any, is the case's own
        for name, value in answer.headers.items():
            self.send_header(name, value)
        claimed = len(answer.body) if answer.length is None else answer.length
        self.send_header("Content-Length", str(claimed))
        self.end_headers()
        if answer.pause is not None:
            half = len(answer.body) // 2
            self.wfile.write(answer.body[:half])
            self.wfile.flush()
            answer.pause()
            self.wfile.write(answer.body[half:])
        else:
            self.wfile.write(answer.body[: answer.cut] if answer.cut is not None else answer.body)
        self.wfile.flush()
        if answer.cut is not None:
            self._reset()
        elif claimed != len(answer.body):
            self.close_connection = True

    def _reset(self) -> None:
        """Close with RST, as a crashing server or an impatient proxy does."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _serve  # noqa: N815 - names that http.server asks for

    def log_message(self, *arguments: object) -> None:
        """Say nothing: paths hold ids."""
        del arguments


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that we or the client broke is no news; anything else is a defect of this server."""
        import sys

        if not isinstance(sys.exc_info()[1], (OSError, ValueError)):
            super().handle_error(request, client_address)


@contextmanager
def serving(handle: Handle) -> Iterator[str]:
    """Serve on a free loopback port; yield the address without a path."""
    handler = type("Handler", (_Handler,), {"handle_request": staticmethod(handle)})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
