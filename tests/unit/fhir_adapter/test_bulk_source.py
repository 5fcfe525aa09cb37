"""Bulk export as a source, against a scripted server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import polars as pl
import pytest
from reading_server import Answer, Seen, VirtualClock, fhir, serving

from fhir_adapter.errors import ContentError, ExportError, TemporaryError
from fhir_adapter.extract import extract_part
from fhir_adapter.smart import BearerToken
from fhir_adapter.sources import BulkSource, PollPolicy
from fhir_adapter.transport import RetryPolicy, Transport


class ExportServer:
    """A bulk server with switches for what goes wrong."""

    def __init__(self) -> None:
        self.polls = [Answer(202, headers={"Retry-After": "120"}), Answer(202)]
        self.files: dict[str, bytes] = {"Patient": b'{"resourceType":"Patient","id":"a"}\n'}
        self.counts: dict[str, int] = {}
        self.errors: list[bytes] = []
        self.deleted: list[bytes] = []
        self.token_needed = True
        self.gone: set[str] = set()
        self.jobs = 0

    def __call__(self, request: Seen) -> Answer:
        path = urlsplit(request.target).path
        base = f"http://{request.headers['host']}/fhir"
        if path.endswith("$export"):
            self.jobs += 1
            return Answer(202, headers={"Content-Location": f"{base}/job/{self.jobs}"})
        if "/job/" in path:
            if request.method == "DELETE":
                return Answer(202)
            if path in self.gone:
                return Answer(404)
            return self.polls.pop(0) if self.polls else self.manifest(base)
        kind = path.rsplit("/", 1)[-1]
        lists = {"errors": self.errors, "deleted": self.deleted}
        if kind.split("-")[0] in lists:
            body = lists[kind.split("-")[0]][int(kind.split("-")[1])]
        else:
            body = self.files[kind]
        return Answer(200, body, {"Content-Type": "application/fhir+ndjson"})

    def manifest(self, base: str) -> Answer:
        output = []
        for kind in self.files:
            item: dict[str, Any] = {"type": kind, "url": f"{base}/files/{kind}"}
            if kind in self.counts:
                item["count"] = self.counts[kind]
            output.append(item)
        return fhir(
            {
                "transactionTime": "2026-01-01T00:00:00Z",
                "request": "x",
                "requiresAccessToken": self.token_needed,
                "output": output,
                "error": [
                    {"type": "OperationOutcome", "url": f"{base}/files/errors-{n}"}
                    for n in range(len(self.errors))
                ],
                "deleted": [
                    {"type": "Bundle", "url": f"{base}/files/deleted-{n}"} for n in range(len(self.deleted))
                ],
            }
        )


def source(base: str, folder: Path, clock: VirtualClock, **options: Any) -> BulkSource:
    transport = Transport(base, clock=clock, auth=BearerToken("t"), retry=RetryPolicy(attempts=2))
    return BulkSource(transport, folder=folder, resource_types=["Patient", "Observation"], **options)


def test_the_whole_exchange_of_a_bulk_client(tmp_path: Path) -> None:
    clock, script = VirtualClock(), ExportServer()
    with serving(script) as server:
        bulk = source(server.base, tmp_path, clock, group="icu")
        (part,) = bulk.plan(["Patient"])
        assert bulk.materialise(part, tmp_path).read_bytes() == script.files["Patient"]
        kick_off, *rest = server.seen
    assert urlsplit(kick_off.target).path == "/fhir/Group/icu/$export"
    assert kick_off.headers["prefer"] == "respond-async"
    assert kick_off.headers["accept"] == "application/fhir+json"
    assert parse_qs(urlsplit(kick_off.target).query)["_type"] == ["Patient,Observation"]
    assert clock.slept == [120.0, 10.0]
    assert [seen.method for seen in rest] == ["GET", "GET", "GET", "GET", "DELETE"]
    assert bulk.transaction_time == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize("needed", [True, False])
def test_the_token_goes_to_files_only_where_the_manifest_says(needed: bool, tmp_path: Path) -> None:
    script = ExportServer()
    script.token_needed = needed
    with serving(script) as server:
        source(server.base, tmp_path, VirtualClock()).plan(["Patient"])
        (file,) = [seen for seen in server.seen if "/files/" in seen.target]
    assert ("authorization" in file.headers) is needed


def test_a_killed_run_takes_up_the_same_job(tmp_path: Path) -> None:
    script = ExportServer()
    script.polls = [Answer(202)] * 50
    with serving(script) as server:
        first = source(server.base, tmp_path, VirtualClock(), poll=PollPolicy(longest=30))
        with pytest.raises(TemporaryError, match="not ready"):
            first.plan(["Patient"])
        script.polls = []
        assert len(source(server.base, tmp_path, VirtualClock()).plan(["Patient"])) == 1
        assert script.jobs == 1
        polls = len(server.seen)
        source(server.base, tmp_path, VirtualClock()).plan(["Patient"])
        assert len(server.seen) == polls


def test_a_job_that_the_server_forgot_is_started_anew(tmp_path: Path) -> None:
    script = ExportServer()
    script.polls = []
    script.gone = {"/fhir/job/1"}
    with serving(script) as server:
        assert len(source(server.base, tmp_path, VirtualClock()).plan(["Patient"])) == 1
    assert script.jobs == 2


def test_a_failed_export_is_an_error_with_its_code(tmp_path: Path) -> None:
    script = ExportServer()
    script.polls = [
        fhir({"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "exception"}]}, 500)
    ] * 5
    with serving(script) as server, pytest.raises(ExportError, match="exception"):
        source(server.base, tmp_path, VirtualClock()).plan(["Patient"])


def test_a_file_with_fewer_lines_than_the_manifest_counts_is_refused(tmp_path: Path) -> None:
    script = ExportServer()
    script.counts = {"Patient": 2}
    with serving(script) as server:
        with pytest.raises(ExportError, match="does not hold"):
            source(server.base, tmp_path, VirtualClock()).plan(["Patient"])
        assert sum("/files/" in seen.target for seen in server.seen) == 2


def test_a_file_that_is_a_web_page_is_refused(tmp_path: Path) -> None:
    script = ExportServer()
    script.files = {"Patient": b"<html>login</html>"}
    with serving(script) as server, pytest.raises(ContentError):
        source(server.base, tmp_path, VirtualClock()).plan(["Patient"])


def test_error_files_are_read_counted_and_quarantined(tmp_path: Path) -> None:
    script = ExportServer()
    line = json.dumps(
        {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "x"}]}
    ).encode()
    script.errors = [line + b"\n" + line + b"\n"]
    with serving(script) as server:
        bulk = source(server.base, tmp_path / "export", VirtualClock())
        parts = bulk.plan(["Observation"])
    assert [part.resource_type for part in parts] == ["OperationOutcome"]
    summary = extract_part(
        parts[0],
        bulk.materialise(parts[0], tmp_path),
        census_subjects=pl.DataFrame(schema={"patient_id": pl.String, "subject_id": pl.Int64}),
        run_folder=tmp_path / "run",
        n_shards=2,
    )
    assert (summary.pulled, summary.accepted, summary.quarantined) == (2, 0, 2)


def test_deleted_resources_leave_the_output(tmp_path: Path) -> None:
    script = ExportServer()
    script.files = {"Patient": b'{"resourceType":"Patient","id":"a"}\n{"resourceType":"Patient","id":"b"}\n'}
    bundle = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [{"request": {"method": "DELETE", "url": "Patient/a"}}],
    }
    script.deleted = [json.dumps(bundle).encode()]
    with serving(script) as server:
        bulk = source(server.base, tmp_path, VirtualClock())
        (part,) = bulk.plan(["Patient"])
    assert bulk.materialise(part, tmp_path).read_bytes() == b'{"resourceType":"Patient","id":"b"}\n'
    state = json.loads((tmp_path / "export.json").read_text())
    assert [item.get("deleted") for item in state["files"]] == [1, None]


def test_another_request_does_not_reuse_the_folder(tmp_path: Path) -> None:
    with serving(ExportServer()) as server:
        source(server.base, tmp_path, VirtualClock()).plan(["Patient"])
        with pytest.raises(ExportError, match="other parameters"):
            source(server.base, tmp_path, VirtualClock(), group="other").plan(["Patient"])
