"""The audit log: every try, who and what and how it ended, and nothing that names a patient."""

from __future__ import annotations

import base64
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B.auditevent import AuditEvent
from reading_server import Answer, Seen, VirtualClock, fhir, serving
from ward_scores import NIGHT, resources
from writing_server import Ward, ward_server

from fhir_adapter.audit import AuditLog, Identity, prune
from fhir_adapter.errors import AuditError, FatalError
from fhir_adapter.smart import BearerToken
from fhir_adapter.store import Ledger
from fhir_adapter.transport import Interaction, RetryPolicy, Transport
from fhir_adapter.write_back import FhirServer, deliver

IDENTITY = Identity(
    system="https://ward.example/fhir/identifier/device", value="n1", site="ward", host="night-1"
)
SECRETS = ("pat-4711", "Jane", "s3cr3t-token", "1944-05-06", "enc-99", "4711")


def lines(folder: Path) -> list[dict[str, Any]]:
    found = [
        json.loads(line)
        for path in sorted(folder.glob("*.jsonl"))
        for line in path.read_text("utf-8").splitlines()
    ]
    for event in found:
        AuditEvent.model_validate(event)
    return found


def subtype(event: dict[str, Any]) -> str:
    return str(event["subtype"][0]["code"])


def query(event: dict[str, Any]) -> str:
    (entity,) = [item for item in event["entity"] if "query" in item]
    return base64.b64decode(entity["query"]).decode()


def patients(event: dict[str, Any]) -> list[str]:
    return [item["what"]["reference"] for item in event["entity"] if item["type"]["code"] == "1"]


def read_everything(base: str, log: AuditLog) -> None:
    with Transport(
        base, audit=log, auth=BearerToken("s3cr3t-token"), clock=VirtualClock(), retry=RetryPolicy(jitter=0.0)
    ) as http:
        http.get_json("metadata")
        http.get_json("Patient/pat-4711")
        http.get_json(
            "Observation", params={"patient": "Patient/pat-4711", "_count": "50", "birthdate": "1944-05-06"}
        )
        http.get_json(base + "?_getpages=Jane&_count=50")
        http.request("GET", "Encounter/enc-99")
        http.request("PUT", "RiskAssessment/score-1", json={"resourceType": "RiskAssessment"})
        http.request("POST", "RiskAssessment", json={"resourceType": "RiskAssessment"}, idempotent=True)
        http.request("DELETE", "Encounter/enc-99")
        http.request("GET", "Patient/$export?_type=Patient")
        with pytest.raises(FatalError):
            http.request("GET", "Encounter/missing")


def ward(seen: Seen) -> Answer:
    if "missing" in seen.target:
        issue = {"severity": "error", "code": "not-found", "diagnostics": "Jane 4711"}
        return fhir({"resourceType": "OperationOutcome", "issue": [issue]}, 404)
    return fhir({"resourceType": "Patient", "name": [{"family": "Jane"}]})


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    return AuditLog(tmp_path / "audit", IDENTITY, key=b"k" * 32)


def test_every_interaction_is_there_and_no_secret(log: AuditLog) -> None:
    with serving(ward) as home:
        read_everything(home.base, log)
        sent = [request.headers["x-request-id"] for request in home.seen]
    events = lines(log.folder)
    assert [subtype(event) for event in events] == [
        "capabilities", "read", "search-type", "search-type", "read",
        "update", "create", "delete", "operation", "read",
    ]  # fmt: skip
    assert [event["action"] for event in events] == ["R", "R", "E", "E", "R", "U", "C", "D", "E", "R"]
    assert [event["entity"][0]["what"]["identifier"]["value"] for event in events] == sent
    assert [event["outcome"] for event in events] == ["0"] * 9 + ["4"]
    assert events[-1]["outcomeDesc"] == "status 404"
    for event in events:
        client, server = event["agent"]
        assert client["who"]["identifier"]["value"] == "n1"
        assert client["network"] == {"address": "night-1", "type": "1"}
        assert server["who"]["display"] == home.base.removesuffix("/fhir")
    text = "".join(path.read_text("utf-8") for path in log.folder.iterdir())
    queries = " ".join(query(event) for event in events if subtype(event) == "search-type")
    for secret in SECRETS:
        assert secret not in text
        assert secret not in queries
    assert "_count=50" in queries


def test_one_patient_is_one_digest(log: AuditLog) -> None:
    with serving(ward) as home:
        read_everything(home.base, log)
    events = lines(log.folder)
    assert patients(events[1]) == patients(events[2])
    assert patients(events[1])[0].startswith("Patient/hmac-")
    profiles = [event.get("meta", {}).get("profile", [""])[0].rpartition(".")[2] for event in events]
    assert profiles == [
        "",
        "PatientRead",
        "PatientQuery",
        "Query",
        "Read",
        "Update",
        "Create",
        "Delete",
        "",
        "",
    ]
    other = AuditLog(log.folder.parent / "other", IDENTITY)
    with serving(ward) as home:
        read_everything(home.base, other)
    assert patients(lines(other.folder)[1]) != patients(events[1])


def test_a_site_may_keep_plain_references(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, IDENTITY, patients="plain")
    with serving(ward) as home:
        read_everything(home.base, log)
    events = lines(tmp_path)
    assert patients(events[1]) == ["Patient/pat-4711"]
    assert "patient=Patient%2Fpat-4711" in query(events[2])
    assert "s3cr3t-token" not in "".join(path.read_text("utf-8") for path in tmp_path.iterdir())


def test_tries_that_fail_are_events_too(log: AuditLog) -> None:
    left = [fhir({}, 503), Answer(200, b"{}", {"Content-Type": "application/json"}, cut=1)]
    with (
        serving(lambda seen: left.pop(0) if left else ward(seen)) as home,
        Transport(home.base, audit=log, clock=VirtualClock()) as http,
    ):
        http.get_json("Patient/pat-4711")
    assert [event["outcome"] for event in lines(log.folder)] == ["8", "8", "0"]
    assert lines(log.folder)[1]["outcomeDesc"] == "ConnectionLostError"


def test_a_batch_names_the_scores_it_wrote_and_no_patient(log: AuditLog) -> None:
    server = Ward()
    ledger = Ledger.open("sqlite://")
    with ward_server(server) as home, Transport(home.base, audit=log) as http:
        deliver(resources(), ledger=ledger, destination=FhirServer(http), partition=NIGHT)
    ledger.close()
    batches = [event for event in lines(log.folder) if subtype(event) == "batch"]
    written = {item["what"]["reference"] for event in batches for item in event["entity"][1:]}
    assert {f"RiskAssessment/{item['id']}" for item in server.holds("RiskAssessment")} <= written
    text = "".join(path.read_text("utf-8") for path in log.folder.iterdir())
    assert not any(f"Patient/p{n}" in text or f"Encounter/e{n}" in text for n in range(3))


def test_only_appended_one_file_a_day_for_the_owner_only(log: AuditLog) -> None:
    def tell(moment: datetime) -> None:
        log(
            Interaction(
                request_id="r", method="GET", path="/fhir/metadata", query="", status=200, error=None,
                started=moment, seconds=0.1, attempt=0, bytes_received=1, resource_type="metadata",
            )
        )  # fmt: skip

    tell(datetime(2026, 1, 19, 23, 59, tzinfo=UTC))
    first = (log.folder / "audit-2026-01-19.jsonl").read_bytes()
    tell(datetime(2026, 1, 19, 23, 59, 59, tzinfo=UTC))
    tell(datetime(2026, 1, 20, tzinfo=UTC))
    path = log.folder / "audit-2026-01-19.jsonl"
    assert path.read_bytes().startswith(first)
    assert len(path.read_bytes().splitlines()) == 2
    assert len((log.folder / "audit-2026-01-20.jsonl").read_bytes().splitlines()) == 1
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_recorded_does_not_go_on(tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("a file in the way")
    log = AuditLog(tmp_path / "audit", IDENTITY)
    with serving(ward) as home, Transport(home.base, audit=log) as http, pytest.raises(AuditError):
        http.get_json("metadata")


def test_an_event_cut_off_by_a_full_disk_costs_itself_only(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, IDENTITY)
    with serving(ward) as home, Transport(home.base, audit=log) as http:
        http.get_json("metadata")
        (path,) = tmp_path.iterdir()
        path.write_bytes(path.read_bytes() + b'{"resourceType":"Audit')
        http.get_json("metadata")
    first, torn, last = path.read_text("utf-8").splitlines()
    assert torn == '{"resourceType":"Audit'
    assert json.loads(first)["resourceType"] == json.loads(last)["resourceType"] == "AuditEvent"


def test_old_days_are_pruned_and_nothing_else(tmp_path: Path) -> None:
    for name in (
        "audit-2019-12-31.jsonl",
        "audit-2026-01-10.jsonl",
        "audit-2026-01-19.jsonl",
        "audit-notes.jsonl",
        "other.txt",
    ):
        (tmp_path / name).touch()
    assert prune(tmp_path, today=date(2026, 1, 19)) == 1
    assert prune(tmp_path, keep=timedelta(days=9), today=date(2026, 1, 19)) == 0
    assert prune(tmp_path, keep=timedelta(days=8), today=date(2026, 1, 19)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "audit-2026-01-19.jsonl",
        "audit-notes.jsonl",
        "other.txt",
    ]


def test_the_key_does_not_show(log: AuditLog) -> None:
    assert "kkkk" not in repr(log)
