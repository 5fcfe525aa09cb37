"""Watermarks in SQL, made by the migrations and equal to the models."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import StatementError

from fhir_adapter.store import Base, Watermarks, upgrade

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = create_engine(f"sqlite:///{tmp_path}/store.sqlite")
    upgrade(made)
    yield made
    made.dispose()


def test_migrations_give_what_the_models_say(engine: Engine) -> None:
    upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": "nightingale_adapter_version"}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_a_mark_only_moves_by_complete_runs(engine: Engine) -> None:
    marks = Watermarks(engine, "https://ehr.example/fhir")
    assert marks.get("Patient") is None
    marks.complete("Patient", run="a", reached=NOW, resources=3, now=NOW)
    marks.complete("Patient", run="b", reached=NOW - timedelta(hours=1), resources=0, now=NOW)
    assert marks.get("Patient") == NOW
    assert marks.get("Observation") is None
    assert marks.was_pulled("Patient", run="b")
    assert not marks.was_pulled("Observation", run="b")
    assert Watermarks(engine, "other").get("Patient") is None


def test_types_pulled_together_start_at_the_oldest_mark(engine: Engine) -> None:
    marks = Watermarks(engine, "x")
    marks.complete("Patient", run="a", reached=NOW, resources=1, now=NOW)
    assert marks.oldest(["Patient", "Observation"]) is None
    marks.complete("Observation", run="a", reached=NOW - timedelta(days=1), resources=1, now=NOW)
    assert marks.oldest(["Patient", "Observation"]) == NOW - timedelta(days=1)


def test_the_same_run_again_replaces_its_row(engine: Engine) -> None:
    marks = Watermarks(engine, "x")
    zone = timezone(timedelta(hours=2))
    for _ in range(2):
        marks.complete("Patient", run="a", reached=NOW.astimezone(zone), resources=1, now=NOW)
    assert marks.get("Patient") == NOW
    assert marks.get("Patient").utcoffset() == timedelta(0)


def test_a_time_without_zone_is_refused(engine: Engine) -> None:
    with pytest.raises(StatementError):
        Watermarks(engine, "x").complete(
            "Patient",
            run="a",
            reached=datetime(2026, 1, 1),  # noqa: DTZ001
            resources=1,
            now=NOW,
        )
