"""Bulk Data Access as a source (https://hl7.org/fhir/uv/bulkdata/): ``$export`` without a lost file.

The job's state lies in a file after every step, so that a killed run takes up the same job again: kick-off,
polling, downloads, deletion of the job. Files whose line count differs from the manifest are fetched again
and then refused. ``error`` files become parts of type OperationOutcome, whose lines are counted and
quarantined; resources in ``deleted`` files are taken out of the output and counted.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fhir_adapter.errors import ContentError, ExportError, FatalError, TemporaryError
from fhir_adapter.ndjson import parse_line, read_blocks
from fhir_adapter.references import is_id
from fhir_adapter.sources.part import Part, slug
from fhir_adapter.transport import Reply, Transport, retry_after_seconds, server_time
from validation.contracts import write_json

log = logging.getLogger(__name__)
NDJSON = "application/fhir+ndjson"


@dataclass(frozen=True, kw_only=True)
class PollPolicy:
    """How long to wait for an export.

    Attributes
    ----------
    first, cap
        Seconds between polls without Retry-After: doubled from ``first`` up to ``cap``.
    longest
        Seconds after which the night gives up; the job's address stays on disk for the next try.
    """

    first: float = 5.0
    cap: float = 300.0
    longest: float = 4 * 3600.0


class BulkSource:
    """Exports resources once and hands out the files.

    Parameters
    ----------
    transport
        Client of the FHIR server.
    folder
        Where state and files lie; one folder an export.
    resource_types
        Types to export, all that any later :meth:`plan` may ask for.
    group
        Group id; None exports at system level.
    since
        ``_since``: a ``transactionTime`` of an earlier export.
    parameters
        Further kick-off parameters, ``_typeFilter`` for example.
    downloads
        Files fetched at a time.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        folder: Path,
        resource_types: list[str],
        group: str | None = None,
        since: datetime | None = None,
        parameters: Mapping[str, Any] | None = None,
        poll: PollPolicy | None = None,
        downloads: int = 4,
    ) -> None:
        if group is not None and not is_id(group):
            raise ValueError("group is not a FHIR id")
        self._transport = transport
        self._folder = folder
        self._types = resource_types
        self._group = group
        self._since = since
        self._parameters = dict(parameters or {})
        self._poll = poll or PollPolicy()
        self._downloads = downloads
        self._state_file = folder / "export.json"

    def plan(self, resource_types: list[str]) -> list[Part]:
        """Run or take up the export, and return its files of these types; errors come with clinical types.

        Raises
        ------
        ExportError
            If the server ends the export, or a file is not what the manifest says.
        """
        state = self._run()
        parts = [
            Part(item["name"], item["type"], {"file": item["file"]})
            for item in state["files"]
            if item["type"] in resource_types
        ]
        if "Observation" in resource_types:
            parts += [
                Part(item["name"], "OperationOutcome", {"file": item["file"]})
                for item in state["files"]
                if item["role"] == "error"
            ]
        order = {kind: number for number, kind in enumerate([*resource_types, "OperationOutcome"])}
        return sorted(parts, key=lambda part: (order[part.resource_type], part.name))

    def materialise(self, part: Part, folder: Path) -> Path:
        """Return the downloaded file."""
        del folder
        path = self._folder / part.locator["file"]
        if not path.is_file():
            raise ExportError(
                f"file {part.name} of the export is gone; remove {self._state_file.name} to export anew"
            )
        return path

    @property
    def transaction_time(self) -> str | None:
        """The export's ``transactionTime``: the only safe next ``_since``."""
        found = self._load().get("manifest", {}).get("transactionTime")
        return found if isinstance(found, str) else None

    # Steps

    def _run(self) -> dict[str, Any]:
        state = self._load()
        request = self._request()
        if state and state.get("request") != request:
            raise ExportError("the folder holds an export of other parameters; use another folder")
        if not state:
            state = self._save({"request": request, "poll_url": self._kick_off()})
        if "manifest" not in state:
            try:
                manifest = self._wait(state["poll_url"])
            except _JobGoneError:
                log.warning("export: the job of an earlier run is gone; starting a new one")
                state = self._save({"request": request, "poll_url": self._kick_off()})
                manifest = self._wait(state["poll_url"])
            state = self._save(state | {"manifest": manifest})
        if "files" not in state:
            try:
                files = self._download_all(state["manifest"])
            except _JobGoneError:
                log.warning("export: the files of an earlier run are gone; starting a new one")
                state = self._save({"request": request, "poll_url": self._kick_off()})
                state = self._save(state | {"manifest": self._wait(state["poll_url"])})
                files = self._download_all(state["manifest"])
            except FatalError:
                # the next run asks for the manifest again: this one may have been spoilt on its way
                self._save({key: value for key, value in state.items() if key != "manifest"})
                raise
            state = self._save(state | {"files": files})
        if not state.get("job_deleted"):
            self._delete(state["poll_url"])
            state = self._save(state | {"job_deleted": True})
        return state

    def _request(self) -> dict[str, Any]:
        """Return kick-off parameters, least first: only the types that are needed."""
        request: dict[str, Any] = {
            "_type": ",".join(self._types),
            "_outputFormat": NDJSON,
            **self._parameters,
        }
        if self._since is not None:
            request["_since"] = self._since.isoformat()
        return {"path": f"Group/{self._group}/$export" if self._group else "$export", "params": request}

    def _kick_off(self) -> str:
        request = self._request()
        reply = self._transport.request(
            "GET", request["path"], params=request["params"], headers={"Prefer": "respond-async"}
        )
        location = reply.headers.get("content-location")
        if reply.status != 202 or not location:
            raise ExportError("the server did not accept the export", status=reply.status)
        return self._transport.url(location)

    def _wait(self, poll_url: str) -> dict[str, Any]:
        clock = self._transport.clock
        start = clock.monotonic()
        pause = self._poll.first
        while True:
            reply = self._status(poll_url)
            if reply.status == 200:
                return _manifest(reply)
            asked = retry_after_seconds(reply.headers.get("retry-after"), server_time(reply, clock))
            wait = min(pause if asked is None else max(asked, 0.1), self._poll.cap)
            if clock.monotonic() - start + wait > self._poll.longest:
                raise TemporaryError("export: not ready in time; the next run goes on waiting", status=202)
            clock.sleep(wait)
            pause = min(pause * 2, self._poll.cap)

    def _status(self, poll_url: str) -> Reply:
        try:
            return self._transport.request(
                "GET", poll_url, headers={"Accept": "application/json"}, accept_status={429}
            )
        except FatalError as error:
            if error.status in {404, 410}:
                raise _JobGoneError("export: the job is gone", status=error.status) from None
            raise ExportError(f"export failed: {error}", status=error.status, codes=error.codes) from None
        except TemporaryError as error:
            if error.status is not None and error.status >= 500 and error.codes:
                raise ExportError(f"export failed: {error}", status=error.status, codes=error.codes) from None
            raise

    def _download_all(self, manifest: dict[str, Any]) -> list[dict[str, Any]]:
        """Fetch every file, several at a time; return name, type, role, file and lines of each."""
        wanted = []
        for role in ("output", "error", "deleted"):
            for number, item in enumerate(manifest.get(role) or []):
                if not isinstance(item, dict) or not isinstance(item.get("url"), str):
                    raise ExportError("the manifest names a file without an address")
                kind = str(item.get("type") or "OperationOutcome")
                name = slug(f"{kind}.{number:04d}" if role == "output" else f"{role}.{number:04d}")
                wanted.append((role, kind, name, item))
        token = manifest.get("requiresAccessToken") is not False
        with ThreadPoolExecutor(max_workers=self._downloads) as pool:
            files = list(pool.map(lambda entry: self._download(*entry, token=token), wanted))
        self._apply_deleted(files)
        return files

    def _download(
        self, role: str, kind: str, name: str, item: dict[str, Any], *, token: bool
    ) -> dict[str, Any]:
        file = f"{name}.ndjson"
        path = self._folder / file
        count = item.get("count")
        for attempt in range(2):
            try:
                self._transport.download(item["url"], path, headers={"Accept": NDJSON}, authenticate=token)
            except FatalError as error:
                if error.status in {404, 410}:
                    raise _JobGoneError(f"export file {name} is gone", status=error.status) from None
                raise
            with path.open("rb") as opened:
                if opened.read(64).lstrip()[:1] not in (b"{", b"", b"\x1f"):
                    raise ContentError(f"export file {name} is not NDJSON")
            lines = sum(len(block.numbered) + len(block.too_long) for block in read_blocks(path))
            if count is None or count == lines:
                break
            log.warning("export: %s holds %d of %d lines (try %d)", name, lines, count, attempt + 1)
        else:
            raise ExportError(f"export file {name} does not hold the lines that the manifest counts")
        return {"role": role, "type": kind, "name": name, "file": file, "lines": lines}

    def _apply_deleted(self, files: list[dict[str, Any]]) -> None:
        """Take resources out of the output that the server lists as deleted, and count them."""
        gone: set[str] = set()
        for item in files:
            if item["role"] != "deleted":
                continue
            for block in read_blocks(self._folder / item["file"]):
                for _, line in block.numbered:
                    for entry in parse_line(line).get("entry") or []:
                        request = entry.get("request") or {}
                        if request.get("method") == "DELETE":
                            gone.add(str(request.get("url")))
        for item in files:
            if gone and item["role"] == "output":
                item["deleted"] = _remove(self._folder / item["file"], item["type"], gone)

    def _delete(self, poll_url: str) -> None:
        try:
            self._transport.request("DELETE", poll_url, accept_status={404, 405, 410, 501})
        except (FatalError, TemporaryError) as error:
            # the files are here; a job that stays behind must not cost the night
            log.warning("export: the job could not be deleted (%s)", type(error).__name__)

    # State

    def _load(self) -> dict[str, Any]:
        if not self._state_file.is_file():
            return {}
        state: dict[str, Any] = json.loads(self._state_file.read_text("utf-8"))
        return state

    def _save(self, state: dict[str, Any]) -> dict[str, Any]:
        write_json(state, self._state_file)
        return state


class _JobGoneError(FatalError):
    """The export job's address, or that of a file of its, is no longer known to the server."""


def _manifest(reply: Reply) -> dict[str, Any]:
    value = reply.json()
    if not isinstance(value, dict) or not isinstance(value.get("output"), list):
        raise ExportError("the export's manifest cannot be read")
    if not isinstance(value.get("transactionTime"), str):
        raise ExportError("the export's manifest has no transactionTime")
    return value


def _remove(path: Path, kind: str, gone: set[str]) -> int:
    """Rewrite a file without deleted resources; return how many there were."""
    kept: list[bytes] = []
    removed = 0
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        for block in read_blocks(path):
            kept = []
            for _, line in block.numbered:
                try:
                    key = json.loads(line).get("id")
                except (ValueError, AttributeError, RecursionError):
                    key = None  # not readable: quarantined later, with its reason
                if key is not None and f"{kind}/{key}" in gone:
                    removed += 1
                else:
                    kept.append(line + b"\n")
            file.writelines(kept)
    temporary.replace(path)
    return removed
