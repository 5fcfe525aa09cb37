"""Scale-out: Celery workers beside a split Airflow, with Redis as their broker.

Each worker takes shards as mapped tasks; on several machines they share the run folder's file system. The
Celery provider of Airflow has a lock of its own (``deploy/airflow/celery.lock``), beside the runtime's.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.servers.prerequisites import Prerequisite, require
from deploy.servers.processes import ServerProcess, ThrowawayServer, free_port

START_TIMEOUT = 60.0
HEARTBEAT_TIMEOUT = 300
"""Seconds without a sign of life after which the scheduler gives a task to another worker; Airflow's own."""


def redis() -> Prerequisite:
    """Return the Redis server."""
    program = shutil.which("redis-server")
    return Prerequisite(
        "Redis server", program, "Airflow on several workers", "apt-get install -y redis-server"
    )


def celery_provider() -> Prerequisite:
    """Return Airflow's Celery provider."""
    try:
        found = find_spec("airflow.providers.celery") is not None
    except ModuleNotFoundError:
        found = False
    return Prerequisite(
        "apache-airflow-providers-celery",
        "installed" if found else None,
        "Airflow on several workers",
        "pip install --no-deps --require-hashes -r deploy/airflow/celery.lock",
    )


class Redis(ThrowawayServer):
    """Context manager around a Redis server on a free loopback port, with a password of this start.

    Attributes
    ----------
    url
        ``redis://`` URL with the password.
    """

    def __init__(self, *, timeout: float = START_TIMEOUT) -> None:
        self._timeout = timeout
        self.url = ""

    def __enter__(self) -> Self:
        require(redis())
        password, port = secrets.token_urlsafe(18), free_port()
        process = self._process = ServerProcess("redis")
        settings = process.work / "redis.conf"
        settings.touch(mode=0o600)  # the password must not stand in the list of processes
        settings.write_text(
            f'port {port}\nbind 127.0.0.1\nrequirepass {password}\nsave ""\ndir {process.work}\n', "ascii"
        )
        environment = {"REDISCLI_AUTH": password}

        def answers() -> bool:
            command = ["redis-cli", "-h", "127.0.0.1", "-p", str(port), "ping"]
            done = subprocess.run(  # noqa: S603 - fixed arguments
                command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
            )
            return done.stdout.strip() == "PONG"

        try:
            process.start(["redis-server", str(settings)], ready=answers, timeout=self._timeout)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.url = f"redis://:{password}@127.0.0.1:{port}/0"
        return self


def celery_settings(
    *, broker: str, database: str, heartbeat_timeout: int = HEARTBEAT_TIMEOUT
) -> dict[str, str]:
    """Return what scheduler, api-server and workers must agree on, as overrides of a split Airflow.

    Parameters
    ----------
    broker
        URL of Redis.
    database
        SQLAlchemy URL of Airflow's metadata database, which keeps the results, too.
    heartbeat_timeout
        Seconds without a sign of life after which a task counts as lost, and is tried again.
    """
    return {
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CELERY__BROKER_URL": broker,
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{database}",
        "AIRFLOW__CELERY__WORKER_CONCURRENCY": "1",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(heartbeat_timeout),
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": str(
            max(1.0, heartbeat_timeout / 10)
        ),
    }


class CeleryWorker:
    """Context manager around one worker of a split Airflow.

    Parameters
    ----------
    name
        Shown in Celery's own lists.
    variables
        The environment of the other parts (:attr:`deploy.airflow.split.SplitAirflow.variables`).
    folder
        Where its log lies.
    """

    def __init__(self, name: str, *, variables: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self._variables = dict(variables)
        self._folder = folder
        self._process: ServerProcess | None = None
        self._group: int | None = None

    def __enter__(self) -> Self:
        require(celery_provider())
        self._folder.mkdir(parents=True, exist_ok=True)
        process = self._process = ServerProcess(f"worker-{self.name}", folder=self._folder)
        mark = process.work / "group"
        # The group is read from the worker itself, so that kill() ends it and its task's process, nothing else.
        start = (
            f"import os, runpy, sys; open({str(mark)!r}, 'w').write(str(os.getpgid(0))); "
            f"sys.argv = ['airflow', 'celery', 'worker', '--skip-serve-logs', '--pid', {str(process.work / 'pid')!r}, "
            f"'--celery-hostname', '{self.name}@%h']; runpy.run_module('airflow', run_name='__main__')"
        )
        process.start(
            [sys.executable, "-c", start],
            ready=lambda: mark.is_file() and bool(mark.read_text()),
            timeout=START_TIMEOUT,
            environment=self._variables,
        )
        self._group = int(mark.read_text())
        return self

    def kill(self) -> None:
        """End the worker and what it is doing at once, as a power cut would."""
        if self._group is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._group, signal.SIGKILL)

    @property
    def log(self) -> str:
        """The end of the worker's log."""
        return self._process.log_tail(40) if self._process else ""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.stop()
