"""A real PostgreSQL server with an empty database, started for a test."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Self

from deploy.errors import ServerError
from deploy.servers.prerequisites import POSTGRESQL_ROOT, postgresql, require
from deploy.servers.processes import ServerProcess, ThrowawayServer, free_port

START_TIMEOUT = 30.0


class PostgreSQL(ThrowawayServer):
    """Context manager around one PostgreSQL cluster on a free loopback port; nothing stays.

    Durability is switched off: it is for tests.

    Attributes
    ----------
    url
        SQLAlchemy URL (psycopg) with the password made at this start.
    jdbc_url, password
        The same for Java; the user is ``postgres``.
    """

    def __init__(self, *, timeout: float = START_TIMEOUT) -> None:
        self._timeout = timeout
        self.url = self.jdbc_url = ""
        self.password = secrets.token_urlsafe(18)

    def __enter__(self) -> Self:
        require(postgresql())
        programs = max(POSTGRESQL_ROOT.glob("*/bin"), key=lambda path: float(path.parts[-2]))
        process = self._process = ServerProcess("postgresql")
        port = free_port()
        try:
            data = self._make_cluster(process, programs)
            process.start(
                [*_as_postgres(), str(programs / "postgres"), "-D", str(data), "-p", str(port), *_options()],
                ready=lambda: _answers(programs, port),
                timeout=self._timeout,
            )
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.url = f"postgresql+psycopg://postgres:{self.password}@127.0.0.1:{port}/postgres"
        self.jdbc_url = f"jdbc:postgresql://127.0.0.1:{port}/postgres"
        return self

    def _make_cluster(self, process: ServerProcess, programs: Path) -> Path:
        data, secret = process.work / "data", process.work / "password"
        secret.touch(mode=0o600)
        secret.write_text(self.password, encoding="ascii")
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            for path in (process.work, secret):
                shutil.chown(path, "postgres")
        command = [*_as_postgres(), str(programs / "initdb"), "-D", str(data), "-U", "postgres", "-E", "UTF8"]
        command += ["--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise ServerError(f"initdb failed with status {done.returncode}:\n{done.stderr[-2000:]}")
        return data


def _as_postgres() -> list[str]:
    # setpriv replaces itself by the command, so that the process to stop is PostgreSQL and not a wrapper.
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]


def _options() -> list[str]:
    settings = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "max_connections": "100",
    }
    return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]


def _answers(programs: Path, port: int) -> bool:
    command = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    return subprocess.run(command, check=False).returncode == 0
