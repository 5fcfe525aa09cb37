"""Load a demo hospital into a FHIR server and a PACS.

FHIR resources go in transactions of PUTs in referential order; a transaction that the server refuses is
sent again as a batch, so that each entry is judged alone. What the server refuses is returned, never lost.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, Literal, TypeVar

import httpx

from deploy.errors import ServerError

Item = TypeVar("Item")
Resource = dict[str, Any]
Attachments = Literal["binary", "inline", "archive"]
Progress = Callable[[str, int, int], None]

ORDER = ("Organization", "Endpoint", "Location", "Patient", "Encounter")
"""Types that others refer to, in the order in which they must arrive; all others follow."""

BUNDLE_SIZE = 200
INSTANCES_PER_REQUEST = 16
FHIR_JSON = {"Content-Type": "application/fhir+json", "Accept": "application/fhir+json"}
TIMEOUT = httpx.Timeout(300.0)
CONNECTIONS = 2


@dataclass
class LoadSummary:
    """What arrived.

    Attributes
    ----------
    resources
        Accepted resources by type.
    rejected
        ``(file:line, HTTP status)`` of each line that is no JSON (status 0) or that the server refused.
    instances, instances_rejected
        DICOM files that the PACS took, and those that it refused.
    """

    resources: Counter[str] = field(default_factory=Counter)
    rejected: list[tuple[str, int]] = field(default_factory=list)
    instances: int = 0
    instances_rejected: int = 0


@dataclass(frozen=True)
class _Line:
    place: str
    resource: Resource


def load_hospital(
    folder: Path,
    *,
    fhir_base: str,
    dicomweb_base: str | None = None,
    dicomweb_auth: tuple[str, str] | None = None,
    attachments: Attachments = "binary",
    progress: Progress | None = None,
) -> LoadSummary:
    """Load what :func:`deploy.demo_hospital.build_hospital` wrote.

    Parameters
    ----------
    folder
        The hospital.
    fhir_base
        Base address of a FHIR R4 server that takes update as create.
    dicomweb_base, dicomweb_auth
        The PACS and its HTTP Basic credentials; unset, images are not loaded.
    attachments
        Where the ECG files go: ``binary`` makes each a Binary and the attachment's url ``Binary/<id>``,
        ``inline`` puts them into the DocumentReference as base64, ``archive`` leaves paths relative to the
        hospital's ``wfdb`` folder. Where a file is missing or outside of it, the path stays.
    progress
        Called with a stage, what is done, and how much there is.

    Raises
    ------
    ServerError
        If a server cannot be reached or answers with an error that is not about one resource.
    """
    summary = LoadSummary()
    with httpx.Client(base_url=fhir_base.rstrip("/") + "/", headers=FHIR_JSON, timeout=TIMEOUT) as client:
        loader = _Loader(client, summary, progress)
        loader.load(folder, endpoint=dicomweb_base, attachments=attachments)
    if dicomweb_base:
        store_instances(
            folder / "dicom", dicomweb_base, auth=dicomweb_auth, summary=summary, progress=progress
        )
    return summary


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of at most ``size`` items (``itertools.batched`` came with Python 3.12)."""
    rest = iter(items)
    while group := list(islice(rest, size)):
        yield group


class _Loader:
    def __init__(self, client: httpx.Client, summary: LoadSummary, progress: Progress | None) -> None:
        self.client, self.summary, self.progress = client, summary, progress
        self.done, self.total = 0, 0
        self.lock = Lock()

    def load(self, folder: Path, *, endpoint: str | None, attachments: Attachments) -> None:
        """Send every line: first what others refer to, then the rest, at last second versions."""
        files = sorted((folder / "fhir").glob("*.ndjson"))
        self.total = sum(path.read_bytes().count(b"\n") for path in files)
        for kind in ORDER:
            own = [path for path in files if path.name.split(".")[0] == kind]
            self._send_all(
                self._lines(own, folder, endpoint=endpoint, attachments=attachments), parallel=False
            )
        rest = [path for path in files if path.name.split(".")[0] not in ORDER]
        seen: set[str] = set()
        again: list[_Line] = []
        fresh = _first_only(
            self._lines(rest, folder, endpoint=endpoint, attachments=attachments), seen, again
        )
        self._send_all(fresh, parallel=True)
        for line in again:
            self._send([line])

    def _lines(
        self, files: Iterable[Path], folder: Path, *, endpoint: str | None, attachments: Attachments
    ) -> Iterator[_Line]:
        for path in files:
            with path.open(encoding="utf-8") as file:
                for number, text in enumerate(file, start=1):
                    place = f"{path.name}:{number}"
                    try:
                        resource = json.loads(text)
                    except json.JSONDecodeError:
                        self.summary.rejected.append((place, 0))
                        continue
                    if resource["resourceType"] == "Endpoint" and endpoint:
                        resource["address"] = endpoint
                    if resource["resourceType"] == "DocumentReference" and attachments != "archive":
                        binaries = _carry_attachments(
                            resource, folder / "wfdb", inline=attachments == "inline"
                        )
                        yield from (_Line(place, binary) for binary in binaries)
                    yield _Line(place, resource)

    def _send_all(self, lines: Iterable[_Line], *, parallel: bool) -> None:
        bundles = _batched(lines, BUNDLE_SIZE)
        if not parallel:
            for bundle in bundles:
                self._send(bundle)
            return
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            for group in _batched(bundles, CONNECTIONS):
                for future in [pool.submit(self._send, bundle) for bundle in group]:
                    future.result()

    def _send(self, lines: list[_Line]) -> None:
        statuses = [200] * len(lines) if self._post(lines, "transaction").is_success else self._batch(lines)
        with self.lock:
            for line, status in zip(lines, statuses, strict=True):
                if status < 300:
                    self.summary.resources[line.resource["resourceType"]] += 1
                else:
                    self.summary.rejected.append((line.place, status))
            self.done += len(lines)
            if self.progress:
                self.progress("load FHIR", min(self.done, self.total), self.total)

    def _batch(self, lines: list[_Line]) -> list[int]:
        """Send lines to be judged one by one; return their statuses."""
        response = self._post(lines, "batch")
        if not response.is_success:
            raise ServerError(f"the FHIR server answered a batch with status {response.status_code}")
        return [int(entry["response"]["status"].split()[0]) for entry in response.json()["entry"]]

    def _post(self, lines: list[_Line], kind: str) -> httpx.Response:
        entries = [
            {
                "resource": line.resource,
                "request": {"method": "PUT", "url": f"{line.resource['resourceType']}/{line.resource['id']}"},
            }
            for line in lines
        ]
        body = {"resourceType": "Bundle", "type": kind, "entry": entries}
        try:
            return self.client.post("", json=body)
        except httpx.TransportError as error:
            raise ServerError(f"the FHIR server went away while loading ({type(error).__name__})") from None


def _first_only(lines: Iterable[_Line], seen: set[str], again: list[_Line]) -> Iterator[_Line]:
    """Yield lines whose id is new; later versions go to ``again``: one transaction may name an id once."""
    for line in lines:
        key = f"{line.resource['resourceType']}/{line.resource['id']}"
        if key in seen:
            again.append(line)
        else:
            seen.add(key)
            yield line


def _carry_attachments(document: Resource, archive: Path, *, inline: bool) -> list[Resource]:
    """Put a document's files into it, or return them as Binaries that it then points to."""
    binaries = []
    for number, content in enumerate(document["content"], start=1):
        item = content["attachment"]
        path = (archive / item["url"]).resolve()
        if not path.is_relative_to(archive.resolve()) or not path.is_file():
            continue
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        if inline:
            item["data"] = data
            del item["url"]
        else:
            key = f"{document['id']}-{number}"
            item["url"] = f"Binary/{key}"
            binaries.append(
                {"resourceType": "Binary", "id": key, "contentType": item["contentType"], "data": data}
            )
    return binaries


def store_instances(
    archive: Path,
    dicomweb_base: str,
    *,
    auth: tuple[str, str] | None,
    summary: LoadSummary,
    progress: Progress | None = None,
) -> None:
    """Store every ``.dcm`` below ``archive`` by STOW-RS (DICOM PS3.18 section 10.5).

    A request that the PACS refuses is repeated file by file, so that one broken file costs one file.

    Raises
    ------
    ServerError
        If the PACS cannot be reached or refuses the credentials.
    """
    paths = sorted(archive.rglob("*.dcm"))
    with httpx.Client(auth=auth, timeout=TIMEOUT) as client:
        url = f"{dicomweb_base.rstrip('/')}/studies"
        for group in _batched(paths, INSTANCES_PER_REQUEST):
            stored = _stow(client, url, group)
            if stored < len(group):
                stored = sum(_stow(client, url, [path]) for path in group)
            summary.instances += stored
            summary.instances_rejected += len(group) - stored
            if progress:
                progress("load DICOM", summary.instances + summary.instances_rejected, len(paths))


def _stow(client: httpx.Client, url: str, paths: list[Path]) -> int:
    """Send one request; return how many instances the PACS says that it stored."""
    boundary = uuid.uuid4().hex
    parts = [
        b"--%s\r\nContent-Type: application/dicom\r\n\r\n%s\r\n" % (boundary.encode(), path.read_bytes())
        for path in paths
    ]
    body = b"".join(parts) + b"--%s--\r\n" % boundary.encode()
    headers = {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "Accept": "application/dicom+json",
    }
    try:
        response = client.post(url, content=body, headers=headers)
    except httpx.TransportError as error:
        raise ServerError(f"the PACS went away while loading ({type(error).__name__})") from None
    if response.status_code in (401, 403):
        raise ServerError(f"the PACS refused the credentials (status {response.status_code})")
    if not response.is_success:
        return 0
    return len(response.json().get("00081199", {}).get("Value", []))
