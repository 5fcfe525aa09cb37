"""Showing reports on this machine only: loopback, read-only, nothing but the report and the Data Docs."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

SHOWN = ("report", "gate/data_docs")


class _ReportHandler(SimpleHTTPRequestHandler):
    """Serves files below ``report/`` and ``gate/data_docs/`` of one run folder."""

    server_version = "Nightingale"
    sys_version = ""

    def _may_show(self) -> bool:
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
        if host not in {
            "127.0.0.1",
            "localhost",
        }:  # a foreign page must not reach us by a name of its own (DNS rebinding)
            return False
        path = unquote(urlsplit(self.path).path).strip("/")
        target = Path(self.translate_path(self.path)).resolve()
        root = Path(self.directory).resolve()
        return target.is_file() and any(
            path.startswith(f"{folder}/") and target.is_relative_to(root / folder) for folder in SHOWN
        )

    def _guarded(self, answer: str) -> None:
        if urlsplit(self.path).path in {"", "/"}:
            self.send_response(HTTPStatus.FOUND)
            self.send_header("Location", "/report/index.html")
            self.end_headers()
        elif self._may_show():
            getattr(super(), answer)()
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def do_GET(self) -> None:
        """Answer GET."""
        self._guarded("do_GET")

    def do_HEAD(self) -> None:
        """Answer HEAD."""
        self._guarded("do_HEAD")

    def end_headers(self) -> None:
        """Add headers that keep the page from being framed, cached or guessed at."""
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Stay silent."""


def make_server(run_folder: Path, *, port: int = 0) -> ThreadingHTTPServer:
    """Return a server bound to 127.0.0.1; the caller runs ``serve_forever`` and ``server_close``.

    Parameters
    ----------
    port
        0 chooses a free one; see ``server_address``.
    """
    return ThreadingHTTPServer(("127.0.0.1", port), partial(_ReportHandler, directory=str(run_folder)))


def latest_report(runs: Path) -> Path | None:
    """Return the newest ``report/index.html`` below a folder of runs, or None."""
    pages = [path for path in runs.glob("**/report/index.html") if path.is_file()]
    return max(pages, key=lambda path: path.stat().st_mtime_ns, default=None)
