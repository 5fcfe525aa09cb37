"""The outbox in a real PostgreSQL: a night twice, a killed night, a withdrawal, two writers at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "fhir_adapter"))

from ward_scores import NIGHT, resources
from writing_server import Ward, ward_server

from deploy.servers.postgresql import PostgreSQL
from deploy.servers.prerequisites import postgresql
from fhir_adapter.store import Ledger, State
from fhir_adapter.transport import Transport
from fhir_adapter.write_back import FhirServer, deliver, withdraw

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not postgresql().found, reason="no PostgreSQL on this machine"),
]
EHR = "https://ehr.example/fhir"
NOW = datetime(2026, 1, 19, 5, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture(scope="module")
def ledger() -> Iterator[Ledger]:
    with PostgreSQL() as server:
        opened = Ledger.open(server.url)
        yield opened
        opened.close()


@pytest.mark.parametrize("puts", [True, False])
def test_a_night_twice_then_withdrawn(ledger: Ledger, puts: bool) -> None:
    ward = Ward(puts=puts)
    with ward_server(ward) as loopback, Transport(loopback.base) as http:
        counts = [
            deliver(
                resources(30), ledger=ledger, destination=FhirServer(http), partition=NIGHT, now=lambda: NOW
            )
            for _ in range(2)
        ]
        assert [(item.written, item.unchanged, item.complete) for item in counts] == [
            (30, 0, True),
            (0, 30, True),
        ]
        rows = ledger.find(loopback.base, resource_type="RiskAssessment", run=NIGHT)
        assert {row.state for row in rows} == {State.CONFIRMED}
        assert (
            withdraw(ledger=ledger, destination=FhirServer(http), run=NIGHT, now=lambda: NOW).withdrawn == 30
        )
        assert {row.withdrawn for row in ledger.find(loopback.base, withdrawn=True)} == {NOW}
    assert {item["status"] for item in ward.holds("RiskAssessment")} == {"entered-in-error"}


def test_writers_at_once_lose_no_attempt(ledger: Ledger) -> None:
    keys = [("RiskAssessment", f"k{n}") for n in range(300)]
    ledger.enqueue(EHR, [(key, "h", None) for key in keys], partition=NIGHT, run=NIGHT, now=NOW)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: ledger.mark_sent(EHR, keys, now=NOW), range(8)))
    assert {entry.attempts for entry in ledger.entries(EHR, keys).values()} == {8}
