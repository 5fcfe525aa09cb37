"""A real HAPI FHIR JPA R4 server, started for a test or the demo."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from deploy.servers.java_tools import QUICK_START, Say, build_java_tools
from deploy.servers.processes import ServerProcess

START_TIMEOUT = 240.0


class HapiServer:
    """Context manager around one HAPI server on a free loopback port.

    Parameters
    ----------
    database_url
        JDBC URL; unset, H2 in memory, so nothing stays.
    heap
        Java heap.
    say
        Told about slow first steps.

    Attributes
    ----------
    base_url
        FHIR base address while the server runs.
    """

    def __init__(
        self,
        *,
        database_url: str | None = None,
        database_user: str = "sa",
        database_password: str = "",
        heap: str = "1500m",
        timeout: float = START_TIMEOUT,
        say: Say | None = None,
    ) -> None:
        self._environment = {"FHIR_DB_USER": database_user, "FHIR_DB_PASSWORD": database_password}
        if database_url:
            self._environment["FHIR_DB_URL"] = database_url
        self._heap, self._timeout, self._say = heap, timeout, say
        self._process: ServerProcess | None = None
        self._archive: tuple[Path, Path] | None = None
        self.base_url = ""

    def __enter__(self) -> Self:
        tools = build_java_tools(say=self._say)
        process = self._process = ServerProcess("hapi")
        ready = process.work / "ready"
        archive = tools.archive("fhir-server")
        options = [f"-Xmx{self._heap}", *QUICK_START]
        if archive.is_file():
            options.append(f"-XX:SharedArchiveFile={archive}")
        else:  # recorded when this first server ends; halves the start of the next
            draft = archive.with_name(f".{process.work.name}.jsa")
            self._archive = (draft, archive)
            options.append(f"-XX:ArchiveClassesAtExit={draft}")
        try:
            process.start(
                ["java", *options, "-cp", tools.classpath, "FhirServer"],
                ready=ready.is_file,
                timeout=self._timeout,
                environment=self._environment | {"FHIR_PORT": "0", "FHIR_READY_FILE": str(ready)},
            )
            self.base_url = ready.read_text("ascii").strip()
            # The CapabilityStatement is built on first use, in seconds; no later request should wait.
            httpx.get(f"{self.base_url}/metadata", timeout=120).raise_for_status()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.stop(patience=90 if self._archive else 30)
        if self._archive and self._archive[0].is_file():
            self._archive[0].replace(self._archive[1])
        process.clean()

    def empty(self) -> None:
        """Remove every resource with all versions: a fresh server between tests in half a second."""
        flag = {"name": "expungeEverything", "valueBoolean": True}
        body = {"resourceType": "Parameters", "parameter": [flag]}
        headers = {"Content-Type": "application/fhir+json"}
        httpx.post(f"{self.base_url}/$expunge", json=body, headers=headers, timeout=120).raise_for_status()
