"""Least rights in a real PostgreSQL: what each role of roles.sql may and may not do."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import ProgrammingError

import deploy.database
from deploy.database.tables import upgrade_all
from deploy.servers import PostgreSQL
from deploy.servers.postgresql import POSTGRESQL_ROOT
from deploy.servers.prerequisites import postgresql
from fhir_adapter.store import Ledger
from validation.history import History

ROLES = Path(deploy.database.__file__).with_name("roles.sql")
SECRETS = {"owner": "o'wn;er", "night": "night", "reader": "reader", "eraser": "eraser"}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    if not postgresql().found:
        pytest.skip("no PostgreSQL server on this machine")
    with PostgreSQL() as running:
        psql = max(POSTGRESQL_ROOT.glob("*/bin/psql"))
        url = running.url.replace("+psycopg", "")
        values = [part for name, value in SECRETS.items() for part in ("-v", f"{name}={value}")]
        for _ in range(2):  # it may be run again
            done = subprocess.run(
                [psql, url, "-q", "-f", ROLES, *values], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
        owner = engine_of(running, "owner")
        tables = upgrade_all(owner)
        assert {"ledger", "watermarks", "profile_history", "model"} <= set(tables)
        owner.dispose()
        yield running


def engine_of(server: PostgreSQL, role: str) -> Engine:
    url = make_url(server.url).set(username=f"nightingale_{role}", password=SECRETS[role])
    return create_engine(url)


def run(server: PostgreSQL, role: str, statement: str) -> None:
    engine = engine_of(server, role)
    try:
        with engine.begin() as connection:
            connection.execute(text(statement))
    finally:
        engine.dispose()


def test_the_night_works_with_its_own_role(server: PostgreSQL) -> None:
    engine = engine_of(server, "night")
    Ledger(engine)
    upgrade_all(engine)  # finds nothing to do, so it needs no right to do it
    History(engine)
    engine.dispose()
    run(server, "night", "update ledger set attempts = 1")
    run(server, "night", "delete from profile_history")


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("night", "delete from ledger"),
        ("night", "drop table ledger"),
        ("night", "alter table ledger add column x int"),
        ("night", "create table mine (x int)"),
        ("night", "truncate ledger"),
        ("reader", "update ledger set attempts = 1"),
        ("reader", "delete from ledger"),
        ("eraser", "insert into watermarks select * from watermarks"),
        ("eraser", "drop table ledger"),
    ],
)
def test_more_than_its_task_is_refused(server: PostgreSQL, role: str, statement: str) -> None:
    with pytest.raises(ProgrammingError, match=r"permission denied|must be owner"):
        run(server, role, statement)


def test_readers_read_and_the_eraser_erases(server: PostgreSQL) -> None:
    run(server, "reader", "select count(*) from ledger")
    run(server, "eraser", "delete from ledger where resource_id = 'x'")
