"""Start a server process, wait until it answers, and end exactly that process."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from deploy.errors import ServerError

CACHE_VARIABLE = "NIGHTINGALE_CACHE"


def cache_folder() -> Path:
    """Return where downloaded jars are kept: ``NIGHTINGALE_CACHE`` or ``~/.cache/nightingale``."""
    named = os.environ.get(CACHE_VARIABLE)
    base = Path(named) if named else Path.home() / ".cache" / "nightingale"
    base.mkdir(parents=True, exist_ok=True)
    return base


def free_port() -> int:
    """Return a loopback port that is free now; another program may take it before it is used."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """One child process with its own throw-away work folder and log.

    Parameters
    ----------
    name
        Shown in errors.
    folder
        Parent of the work folder; unset, the system's temporary folder.
    """

    def __init__(self, name: str, *, folder: Path | None = None) -> None:
        self.name = name
        self.work = Path(tempfile.mkdtemp(prefix=f"nightingale-{name}-", dir=folder))
        self.log = self.work / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(
        self,
        command: Sequence[str],
        *,
        ready: Callable[[], bool],
        timeout: float,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start the command and wait until ``ready()`` is true.

        Raises
        ------
        ServerError
            If the process ends or is not ready in ``timeout`` seconds; the message holds the end of its log.
        """
        with self.log.open("wb") as log:
            # A session of its own keeps a Ctrl-C of the terminal from ending the server before its client.
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                cwd=self.work,
                start_new_session=True,
            )
        try:
            self._wait(ready, timeout)
        except BaseException:
            self.stop()
            raise

    def _wait(self, ready: Callable[[], bool], timeout: float) -> None:
        assert self._process is not None  # noqa: S101 - start sets it
        end = time.monotonic() + timeout
        while not ready():
            if self._process.poll() is not None:
                raise ServerError(
                    f"{self.name} ended with status {self._process.returncode}:\n{self.log_tail()}"
                )
            if time.monotonic() > end:
                raise ServerError(f"{self.name} was not ready after {timeout:.0f} s:\n{self.log_tail()}")
            time.sleep(0.05)

    @property
    def ended(self) -> int | None:
        """The exit status of a process that ended by itself; None while it runs."""
        return None if self._process is None else self._process.poll()

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines of the server's own log."""
        return "\n".join(self.log.read_text("utf-8", errors="replace").splitlines()[-lines:])

    def stop(self, *, patience: float = 30) -> None:
        """End the process: close its input and SIGTERM; after ``patience`` seconds SIGKILL to it and its children."""
        process, self._process = self._process, None
        if process is not None:
            if process.stdin:
                process.stdin.close()
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(patience)
                except subprocess.TimeoutExpired:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()

    def clean(self) -> None:
        """Remove the work folder."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.work)


class ThrowawayServer:
    """Base of context managers around one process whose folder goes with it."""

    _process: ServerProcess | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.stop()
            process.clean()
