"""Airflow as a hospital runs it: four processes on PostgreSQL, started, watched and ended by the project.

``airflow standalone`` does not do for that: SIGTERM leaves its children running as orphans.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from deploy.airflow.home import prepare
from deploy.errors import ServerError
from deploy.servers.processes import ServerProcess, free_port

PARTS = ("api-server", "scheduler", "dag-processor", "triggerer")
WATCHED = ("metadatabase", "scheduler", "dag_processor", "triggerer")
START_TIMEOUT = 300.0
PATIENCE = 20.0
"""Seconds from SIGTERM to SIGKILL; a part that ends by itself needs two to five."""
USER = "nightingale"


class SplitAirflow:
    """Context manager around api-server, scheduler, dag-processor and triggerer.

    Parameters
    ----------
    home
        Folder of logs and of the password file.
    database
        SQLAlchemy URL of the metadata database, such as ``postgresql+psycopg://…``.
    port
        Of the api-server, on loopback; unset, a free one.
    overrides
        Further environment, such as ``NIGHTINGALE_CONFIG``.
    timeout
        Seconds until all four must be healthy.

    Attributes
    ----------
    base_url, user, password
        Address of UI and REST API, and who may use them.
    variables
        The environment of the four parts, for ``airflow`` commands beside them.
    """

    def __init__(
        self,
        home: Path,
        *,
        database: str,
        port: int | None = None,
        overrides: Mapping[str, str] | None = None,
        timeout: float = START_TIMEOUT,
    ) -> None:
        self._home = home
        self._database = database
        self._port = port or free_port()
        self._overrides = dict(overrides or {})
        self._timeout = timeout
        self._parts: dict[str, ServerProcess] = {}
        self.base_url = f"http://127.0.0.1:{self._port}"
        self.user, self.password = USER, secrets.token_urlsafe(18)
        self.variables: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._home.mkdir(parents=True, exist_ok=True)
        self._write_password()
        self.variables = prepare(self._home, {**self._settings(), **self._overrides})
        try:
            for name in PARTS:
                part = self._parts[name] = ServerProcess(f"airflow-{name}", folder=self._logs())
                part.start(
                    [sys.executable, "-m", "airflow", name],
                    ready=lambda: True,
                    timeout=self._timeout,
                    environment=self.variables,
                )
            self._wait()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in reversed(PARTS):
            part = self._parts.pop(name, None)
            if part is not None:
                part.stop(patience=PATIENCE)

    def health(self) -> dict[str, str]:
        """Return the state of each part as Airflow itself reports it."""
        try:
            found = httpx.get(f"{self.base_url}/api/v2/monitor/health", timeout=5).json()
        except (httpx.HTTPError, ValueError):
            return {}
        return {name: str((found.get(name) or {}).get("status")) for name in WATCHED}

    def _wait(self) -> None:
        end = time.monotonic() + self._timeout
        while any(self.health().get(name) != "healthy" for name in WATCHED):
            for name, part in self._parts.items():
                if part.ended is not None:
                    raise ServerError(
                        f"Airflow's {name} ended with status {part.ended}:\n{part.log_tail(30)}"
                    )
            if time.monotonic() > end:
                raise ServerError(f"Airflow was not healthy after {self._timeout:.0f} s: {self.health()}")
            time.sleep(0.3)

    def _logs(self) -> Path:
        folder = self._home / "parts"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _write_password(self) -> None:
        path = self._home / "passwords.json"
        path.touch(mode=0o600)
        path.chmod(0o600)
        path.write_text(json.dumps({self.user: self.password}), encoding="utf-8")

    def _settings(self) -> dict[str, str]:
        """Return what the four parts share; keys are made at every start and live in their environment only."""
        return {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self._database,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": self._database.replace(
                "+psycopg:", "+psycopg_async:"
            ),
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": str(min(4, os.cpu_count() or 1)),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.base_url}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{self.user}:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self._home / "passwords.json"),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self._port),
            "AIRFLOW__API__BASE_URL": self.base_url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": secrets.token_urlsafe(32),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        }
