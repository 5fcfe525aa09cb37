"""Watermarks and their migration in a real PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from deploy.servers.postgresql import PostgreSQL
from deploy.servers.prerequisites import postgresql
from fhir_adapter.store import Base, Watermarks, upgrade


@pytest.mark.slow
def test_watermarks_live_in_postgresql() -> None:
    if not postgresql().found:
        pytest.skip("no PostgreSQL on this machine")
    now = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    with PostgreSQL() as server:
        engine = create_engine(server.url)
        upgrade(engine)
        upgrade(engine)
        with engine.connect() as connection:
            context = MigrationContext.configure(
                connection, opts={"version_table": "nightingale_adapter_version"}
            )
            assert compare_metadata(context, Base.metadata) == []
        marks = Watermarks(engine, "x")
        marks.complete("Patient", run="a", reached=now, resources=1, now=now)
        marks.complete("Patient", run="b", reached=now - timedelta(hours=1), resources=1, now=now)
        assert marks.get("Patient") == now
        engine.dispose()
