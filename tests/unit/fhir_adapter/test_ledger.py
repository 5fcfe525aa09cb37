"""The outbox: rows by state, found by run and model, never forgetting what the server holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from fhir_adapter.store import Base, Ledger, Settled, State, open_engine, upgrade

NOW = datetime(2026, 1, 19, 5, tzinfo=UTC)
EHR = "https://ehr.example/fhir"
A, B = ("RiskAssessment", "a"), ("RiskAssessment", "b")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.open(f"sqlite:///{tmp_path / 'deep' / 'ledger.sqlite'}")


def enqueue(
    ledger: Ledger, *keys: tuple[str, str], digest: str = "h1", run: str = "n1", model: str = "m1"
) -> None:
    ledger.enqueue(EHR, [(key, digest, model) for key in keys], partition="2026-01-19", run=run, now=NOW)


def confirm(ledger: Ledger, key: tuple[str, str], version: str = "1") -> None:
    settled = Settled(
        key=key, state=State.CONFIRMED, server_type=key[0], server_id=key[1], server_version=version
    )
    ledger.settle(EHR, [settled], now=NOW)


def test_the_way_of_one_row(ledger: Ledger) -> None:
    enqueue(ledger, A)
    assert ledger.entries(EHR, [A, B]).keys() == {A}
    row = ledger.entries(EHR, [A])[A]
    assert (row.key, row.state, row.attempts, row.server_id) == (A, State.PENDING, 0, None)
    for attempt in (1, 2):
        ledger.mark_sent(EHR, [A], now=NOW)
        row = ledger.entries(EHR, [A])[A]
        assert (row.state, row.attempts) == (State.SENT, attempt)
    confirm(ledger, A)
    row = ledger.entries(EHR, [A])[A]
    assert (row.state, row.server_id, row.server_version) == (State.CONFIRMED, "a", "1")


def test_a_new_payload_keeps_what_is_known_of_the_server(ledger: Ledger) -> None:
    enqueue(ledger, A)
    confirm(ledger, A, "4")
    enqueue(ledger, A, digest="h2", run="n2")
    row = ledger.entries(EHR, [A])[A]
    assert (row.state, row.payload_hash, row.server_version, row.run) == (State.PENDING, "h2", "4", "n2")
    dead = Settled(key=A, state=State.DEAD_LETTER, error_class="invalid", error_codes=("required", "value"))
    ledger.settle(EHR, [dead], now=NOW)
    row = ledger.entries(EHR, [A])[A]
    assert (row.error_class, row.error_codes, row.server_version) == ("invalid", "required,value", "4")
    enqueue(ledger, A)
    row = ledger.entries(EHR, [A])[A]
    assert (row.state, row.error_class, row.error_codes) == (State.PENDING, None, None)


def test_what_may_have_arrived_stays_so_until_someone_looked(ledger: Ledger) -> None:
    enqueue(ledger, A)
    ledger.mark_sent(EHR, [A], now=NOW)
    enqueue(ledger, A, digest="h2")
    assert ledger.entries(EHR, [A])[A].state is State.SENT


def test_found_by_run_model_state_and_destination(ledger: Ledger) -> None:
    enqueue(ledger, A)
    enqueue(ledger, B, run="n2", model="m2")
    ledger.enqueue("ndjson:/x", [(A, "h", None)], partition="p", run="n1", now=NOW + timedelta(hours=1))
    confirm(ledger, B)
    assert [row.key for row in ledger.find(EHR)] == [A, B]
    assert [row.key for row in ledger.find(EHR, run="n2")] == [B]
    assert [row.key for row in ledger.find(EHR, model_digest="m1")] == [A]
    assert [row.key for row in ledger.find(EHR, run="n2", model_digest="m1")] == []
    assert [row.key for row in ledger.find(EHR, state=State.CONFIRMED, resource_type="RiskAssessment")] == [B]
    assert ledger.find(EHR, resource_type="Device") == []
    assert [row.key for row in ledger.find(EHR, partition="2026-01-19")] == [A, B]
    assert ledger.destinations() == [EHR, "ndjson:/x"]
    assert ledger.models(EHR) == ["m1", "m2"]
    assert ledger.runs(EHR) == ["n1", "n2"]
    assert ledger.known_ids(EHR, "RiskAssessment", ["b", "z"]) == {"b"}


def test_withdrawn_until_written_again(ledger: Ledger) -> None:
    enqueue(ledger, A, B)
    confirm(ledger, A)
    ledger.mark_withdrawn(EHR, [(A, "2")], now=NOW)
    row = ledger.entries(EHR, [A])[A]
    assert (row.withdrawn, row.server_version, row.state) == (NOW, "2", State.CONFIRMED)
    assert [row.key for row in ledger.find(EHR, withdrawn=True)] == [A]
    assert [row.key for row in ledger.find(EHR, withdrawn=False)] == [B]
    enqueue(ledger, A, digest="h2")
    assert ledger.entries(EHR, [A])[A].withdrawn is None


def test_a_place_can_be_forgotten(ledger: Ledger) -> None:
    enqueue(ledger, A)
    confirm(ledger, A)
    ledger.forget_place(EHR, [A], now=NOW)
    row = ledger.entries(EHR, [A])[A]
    assert (row.state, row.server_type, row.server_id, row.server_version) == (
        State.PENDING,
        None,
        None,
        None,
    )


def test_more_rows_than_one_statement_takes(ledger: Ledger) -> None:
    keys = [("RiskAssessment", f"k{n}") for n in range(1_001)]
    enqueue(ledger, *keys)
    assert len(ledger.entries(EHR, keys)) == 1_001


def test_it_survives_the_process_and_the_migration_is_the_model(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    first = Ledger.open(url)
    enqueue(first, A)
    first.close()
    second = Ledger.open(url)
    assert second.entries(EHR, [A]).keys() == {A}
    second.close()
    engine = open_engine(url)
    upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": "nightingale_adapter_version"}
        )
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_no_payload_and_no_patient_is_kept() -> None:
    names = {column.name for column in Base.metadata.tables["ledger"].columns}
    assert not names & {"payload", "resource", "subject", "patient", "encounter"}
