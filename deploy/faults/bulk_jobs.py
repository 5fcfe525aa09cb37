"""The server's half of Bulk Data Access 2.0: kick-off, status, files, deletion of the job."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from deploy.faults.clock import VirtualClock
from deploy.faults.loopback import Answer, Request, json_answer
from deploy.faults.store import Refused, Resource, ResourceStore

NDJSON = "application/fhir+ndjson"
LINES_PER_FILE = 200


@dataclass
class Job:
    """One export as it was asked for.

    Attributes
    ----------
    files
        Lines by file name; made at kick-off, so that later changes do not enter.
    polls
        How often the status was asked.
    """

    request: str
    transaction_time: str
    files: dict[str, list[Resource]] = field(default_factory=dict)
    polls: int = 0
    deleted: bool = False


class BulkJobs:
    """Exports of one server.

    Attributes
    ----------
    busy_polls
        How often a job answers 202 before it is ready.
    retry_after
        Seconds asked for with each 202; the Inferno client suite gives 120.
    requires_token
        ``requiresAccessToken`` of the manifest.
    errors, deleted
        Lines of the ``error`` and ``deleted`` files of every manifest.
    early
        Polls that came before the time asked for had passed.
    """

    def __init__(self, store: ResourceStore, clock: VirtualClock) -> None:
        self._store = store
        self._clock = clock
        self.busy_polls = 2
        self.retry_after = 120
        self.requires_token = True
        self.errors: list[Resource] = []
        self.deleted: list[Resource] = []
        self.jobs: list[Job] = []
        self.early = 0
        self._next_poll = 0.0

    def handle(self, request: Request, path: str) -> Answer:
        """Answer a request of the export."""
        if path.endswith("$export"):
            return self._kick_off(request)
        match = re.fullmatch(r"(jobs|files)/(\d+)(?:/([A-Za-z0-9.-]+))?", path)
        if match is None or int(match[2]) >= len(self.jobs) or self.jobs[int(match[2])].deleted:
            raise Refused(404, "not-found")
        job = self.jobs[int(match[2])]
        if match[1] == "files":
            return self._file(job, match[3])
        if request.method == "DELETE":
            job.deleted = True
            return Answer(status=202)
        return self._status(request, job, int(match[2]))

    def _kick_off(self, request: Request) -> Answer:
        if request.headers.get("prefer") != "respond-async":
            raise Refused(400, "invalid")
        job = Job(f"{request.base}{request.target}", self._clock.now().isoformat())
        since = [f"ge{value}" for value in request.query.get("_since", [])]
        for kind in (request.query.get("_type") or [""])[0].split(","):
            found = self._store.search(kind, {"_lastUpdated": since} if since else {})
            for number, start in enumerate(range(0, len(found), LINES_PER_FILE)):
                job.files[f"{kind}-{number}.ndjson"] = found[start : start + LINES_PER_FILE]
        if self.errors:
            job.files["error-0.ndjson"] = self.errors
        if self.deleted:
            job.files["deleted-0.ndjson"] = self.deleted
        self.jobs.append(job)
        self._next_poll = 0.0
        return Answer(
            status=202, headers={"Content-Location": f"{request.base}/fhir/jobs/{len(self.jobs) - 1}"}
        )

    def _status(self, request: Request, job: Job, number: int) -> Answer:
        if self._clock.monotonic() < self._next_poll:
            self.early += 1
        job.polls += 1
        if job.polls <= self.busy_polls:
            self._next_poll = self._clock.monotonic() + self.retry_after
            return Answer(status=202, headers={"Retry-After": str(self.retry_after), "X-Progress": "working"})
        manifest: dict[str, Any] = {
            "transactionTime": job.transaction_time,
            "request": job.request,
            "requiresAccessToken": self.requires_token,
            "output": [],
            "error": [],
            "deleted": [],
        }
        for name, lines in job.files.items():
            role = name.split("-")[0]
            item = {"url": f"{request.base}/fhir/files/{number}/{name}", "count": len(lines)}
            if role in {"error", "deleted"}:
                item["type"] = "OperationOutcome" if role == "error" else "Bundle"
                manifest[role].append(item)
            else:
                manifest["output"].append({"type": role} | item)
        return json_answer(manifest, Content_Type="application/json")

    def _file(self, job: Job, name: str) -> Answer:
        if name not in job.files:
            raise Refused(404, "not-found")
        lines = [json.dumps(item, ensure_ascii=False, separators=(",", ":")) for item in job.files[name]]
        return Answer(body="".join(f"{line}\n" for line in lines).encode(), headers={"Content-Type": NDJSON})
