"""The demo's real servers: HAPI FHIR JPA and Orthanc, started empty and filled with tonight's hospital."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.servers.hapi import HapiServer
from deploy.servers.loading import load_hospital
from deploy.servers.orthanc import Orthanc
from deploy.servers.prerequisites import java, maven, orthanc, require

PASSWORD_VARIABLE = "NIGHTINGALE_DEMO_PACS_PASSWORD"  # noqa: S105 - the name of a variable
Watcher = Callable[[str, int, int | None], None]


@dataclass(frozen=True, kw_only=True)
class DemoServers:
    """Running servers and the settings that lead to them."""

    fhir_base: str
    sections: dict[str, dict[str, Any]]
    refused: int


def require_servers() -> None:
    """Check that the programs of the real servers are there.

    Raises
    ------
    PrerequisiteError
        Naming each program that is missing and how to get it.
    """
    require(java(), maven(), orthanc())


@contextmanager
def demo_servers(hospital: Path, *, watch: Watcher, say: Callable[[str], None]) -> Iterator[DemoServers]:
    """Start HAPI and Orthanc, load the hospital into them, and stop them at the end."""
    with HapiServer(say=say) as fhir, Orthanc() as pacs:
        loaded = load_hospital(
            hospital,
            fhir_base=fhir.base_url,
            dicomweb_base=pacs.dicomweb_url,
            dicomweb_auth=(pacs.user, pacs.password),
            progress=lambda stage, done, total: watch(f"load {stage}", done, total),
        )
        os.environ[PASSWORD_VARIABLE] = pacs.password
        try:
            yield DemoServers(
                fhir_base=fhir.base_url,
                sections={
                    "source": {"kind": "search", "base_url": fhir.base_url, "folder": None},
                    "images": {
                        "kind": "dicomweb",
                        "base_url": pacs.dicomweb_url,
                        "folder": None,
                        "auth": {"kind": "basic", "user": pacs.user, "password_env": PASSWORD_VARIABLE},
                    },
                    "destination": {"kind": "fhir"},
                },
                refused=len(loaded.rejected) + loaded.instances_rejected,
            )
        finally:
            del os.environ[PASSWORD_VARIABLE]
