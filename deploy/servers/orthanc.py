"""A real Orthanc PACS with DICOMweb, started for a test or the demo."""

from __future__ import annotations

import json
import secrets
import shutil
from typing import Self

import httpx

from deploy.servers.prerequisites import ORTHANC_PLUGINS, orthanc, require
from deploy.servers.processes import ServerProcess, ThrowawayServer, free_port

START_TIMEOUT = 30.0
USER = "nightingale"


class Orthanc(ThrowawayServer):
    """Context manager around one Orthanc on a free loopback port, empty at start.

    Attributes
    ----------
    dicomweb_url
        DICOMweb base address while the server runs.
    user, password
        Credentials for HTTP Basic; the password is new at every start.
    """

    def __init__(self, *, timeout: float = START_TIMEOUT) -> None:
        self._timeout = timeout
        self.dicomweb_url = ""
        self.user, self.password = USER, secrets.token_urlsafe(18)

    def __enter__(self) -> Self:
        require(orthanc())
        process = self._process = ServerProcess("orthanc")
        port = free_port()
        settings = process.work / "orthanc.json"
        settings.touch(mode=0o600)
        settings.write_text(json.dumps(self._settings(process, port)), encoding="utf-8")
        program = (
            shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/bin:/usr/local/sbin") or "Orthanc"
        )
        base = f"http://127.0.0.1:{port}"

        def answers() -> bool:
            try:
                return httpx.get(f"{base}/system", auth=(self.user, self.password)).is_success
            except httpx.TransportError:
                return False

        try:
            process.start([program, str(settings)], ready=answers, timeout=self._timeout)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.dicomweb_url = f"{base}/dicom-web"
        return self

    def _settings(self, process: ServerProcess, port: int) -> dict[str, object]:
        storage = str(process.work / "storage")
        return {
            "Name": "NIGHTINGALE-TEST",
            "StorageDirectory": storage,
            "IndexDirectory": storage,
            # Orthanc 1.10 listens on every interface in spite of HttpBindAddresses; it refuses others.
            "RemoteAccessAllowed": False,
            "HttpBindAddresses": ["127.0.0.1"],
            "HttpPort": port,
            "DicomServerEnabled": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {self.user: self.password},
            "ExecuteLuaEnabled": False,
            "Plugins": [str(ORTHANC_PLUGINS)],
            "DicomWeb": {
                "Enable": True,
                "Root": "/dicom-web/",
                "StudiesMetadata": "Full",
                "SeriesMetadata": "Full",
            },
        }
