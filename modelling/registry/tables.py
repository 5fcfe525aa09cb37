"""The registry's tables: models by digest, and every change of their state."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import JSON, DateTime, Dialect, Engine, ForeignKey, Index, MetaData, String, Text, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

MIGRATIONS = Path(__file__).parent / "migrations"
ONE_CHAMPION = text("state = 'champion'")


class Base(DeclarativeBase):
    """Base of the registry's tables; constraints have names, so that migrations can change them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class UtcTime(TypeDecorator[datetime]):
    """A moment with a zone, also in SQLite, which stores none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Refuse a time without a zone; store UTC."""
        del dialect
        if value is not None and value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Return the moment in UTC."""
        del dialect
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class ModelRow(Base):
    """One model. Its weights lie in a folder of the digest's name."""

    __tablename__ = "model"
    __table_args__ = (
        # The database itself holds that a task has one champion, whoever writes.
        Index(
            "ix_model_champion",
            "task",
            unique=True,
            sqlite_where=ONE_CHAMPION,
            postgresql_where=ONE_CHAMPION,
        ),
        Index("ix_model_task_state", "task", "state"),
    )

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    task: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(120))
    version: Mapped[str] = mapped_column(String(40))
    kind: Mapped[str] = mapped_column(String(40))
    state: Mapped[str] = mapped_column(String(16))
    registered: Mapped[datetime] = mapped_column(UtcTime())
    files: Mapped[dict[str, str]] = mapped_column(JSON())
    config: Mapped[dict[str, Any]] = mapped_column(JSON())
    code_version: Mapped[str] = mapped_column(String(40))
    catalogue_digest: Mapped[str] = mapped_column(String(64))
    data_version: Mapped[str] = mapped_column(String(200))
    data_fingerprint: Mapped[str] = mapped_column(String(64))
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON())
    calibration: Mapped[dict[str, Any]] = mapped_column(JSON())
    subgroups: Mapped[list[dict[str, Any]]] = mapped_column(JSON())
    evidence: Mapped[dict[str, Any]] = mapped_column(JSON())


class TransitionRow(Base):
    """One change of a model's state: who, when, why, and what the rules found."""

    __tablename__ = "model_transition"
    __table_args__ = (Index("ix_model_transition_digest", "digest"),)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    digest: Mapped[str] = mapped_column(String(64), ForeignKey("model.digest"))
    kind: Mapped[str] = mapped_column(String(16))
    before: Mapped[str | None] = mapped_column(String(16))
    after: Mapped[str] = mapped_column(String(16))
    replaced: Mapped[str | None] = mapped_column(String(64))
    moment: Mapped[datetime] = mapped_column(UtcTime())
    who: Mapped[str] = mapped_column(String(200))
    why: Mapped[str] = mapped_column(Text())
    findings: Mapped[list[dict[str, Any]]] = mapped_column(JSON())


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Bring a database to a revision of the registry; safe to call at every start.

    Parameters
    ----------
    engine
        SQLite or PostgreSQL; the adapter's tables may lie in the same database.
    """
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
