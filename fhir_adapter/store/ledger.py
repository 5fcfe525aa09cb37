"""The outbox ledger: what was to be written where, how far it came, and what the server holds.

One row a destination and resource. The row is written before anything is sent and settled after the
answer, each in its own transaction, so that a process killed at any point leaves a state from which the
next one goes on: ``sent`` means that it is unknown whether the server acted. Payloads and patients are
not stored, only digests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from typing import Any, Self

from sqlalchemy import (
    Engine,
    Index,
    Integer,
    String,
    func,
    select,
    tuple_,
    update,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from fhir_adapter.store.base import Base, UtcTime, open_engine, upgrade

CHUNK = 200


class State(StrEnum):
    """How far one resource came."""

    PENDING = "pending"
    SENT = "sent"
    CONFIRMED = "confirmed"
    DEAD_LETTER = "dead_letter"


class LedgerRow(Base):
    """One resource for one destination."""

    __tablename__ = "ledger"
    __table_args__ = (
        Index("ix_ledger_destination_partition", "destination", "partition"),
        Index("ix_ledger_destination_run", "destination", "run"),
        Index("ix_ledger_destination_model_digest", "destination", "model_digest"),
    )

    destination: Mapped[str] = mapped_column(String(300), primary_key=True)
    resource_type: Mapped[str] = mapped_column(String(64), primary_key=True)
    resource_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    payload_hash: Mapped[str] = mapped_column(String(64))
    attempts: Mapped[int] = mapped_column(Integer())
    server_type: Mapped[str | None] = mapped_column(String(64))
    server_id: Mapped[str | None] = mapped_column(String(64))
    server_version: Mapped[str | None] = mapped_column(String(64))
    error_class: Mapped[str | None] = mapped_column(String(64))
    error_codes: Mapped[str | None] = mapped_column(String(200))
    partition: Mapped[str] = mapped_column(String(200))
    run: Mapped[str] = mapped_column(String(200))
    model_digest: Mapped[str | None] = mapped_column(String(64))
    withdrawn: Mapped[datetime | None] = mapped_column(UtcTime())
    updated: Mapped[datetime] = mapped_column(UtcTime())


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row of the ledger, detached from the database. Fields as in :class:`LedgerRow`."""

    resource_type: str
    resource_id: str
    state: State
    payload_hash: str
    attempts: int = 0
    server_type: str | None = None
    server_id: str | None = None
    server_version: str | None = None
    error_class: str | None = None
    error_codes: str | None = None
    partition: str = ""
    run: str = ""
    model_digest: str | None = None
    withdrawn: datetime | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Resource type and id as Nightingale names them."""
        return self.resource_type, self.resource_id


@dataclass(frozen=True, kw_only=True)
class Settled:
    """The end of one attempt."""

    key: tuple[str, str]
    state: State
    server_type: str | None = None
    server_id: str | None = None
    server_version: str | None = None
    error_class: str | None = None
    error_codes: tuple[str, ...] = ()


class Ledger:
    """The outbox of all destinations in one database.

    Parameters
    ----------
    engine
        Database brought up to date by :func:`fhir_adapter.store.base.upgrade`; :meth:`open` does both.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str) -> Self:
        """Connect to a database URL, make a SQLite file's folder, and apply migrations."""
        engine = open_engine(url)
        upgrade(engine)
        return cls(engine)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def entries(self, destination: str, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Entry]:
        """Return the rows of these resources, by type and id."""
        found: dict[tuple[str, str], Entry] = {}
        with Session(self._engine) as session:
            for part in _chunks(keys):
                query = select(LedgerRow).where(
                    LedgerRow.destination == destination,
                    tuple_(LedgerRow.resource_type, LedgerRow.resource_id).in_(part),
                )
                found |= {(row.resource_type, row.resource_id): _entry(row) for row in session.scalars(query)}
        return found

    def find(
        self,
        destination: str,
        *,
        partition: str | None = None,
        run: str | None = None,
        model_digest: str | None = None,
        resource_type: str | None = None,
        state: State | None = None,
        withdrawn: bool | None = None,
    ) -> list[Entry]:
        """Return rows by any of these fields, in order of type and id."""
        query = select(LedgerRow).where(LedgerRow.destination == destination)
        wanted = {
            "partition": partition,
            "run": run,
            "model_digest": model_digest,
            "resource_type": resource_type,
            "state": None if state is None else str(state),
        }
        for name, value in wanted.items():
            if value is not None:
                query = query.where(getattr(LedgerRow, name) == value)
        if withdrawn is not None:
            query = query.where(
                LedgerRow.withdrawn.is_not(None) if withdrawn else LedgerRow.withdrawn.is_(None)
            )
        query = query.order_by(LedgerRow.resource_type, LedgerRow.resource_id)
        with Session(self._engine) as session:
            return [_entry(row) for row in session.scalars(query)]

    def destinations(self) -> list[str]:
        """Return every destination that something was ever meant for."""
        with Session(self._engine) as session:
            return sorted(session.scalars(select(LedgerRow.destination).distinct()))

    def models(self, destination: str) -> list[str]:
        """Return the weights digests of everything meant for a destination."""
        query = select(LedgerRow.model_digest).where(LedgerRow.destination == destination).distinct()
        with Session(self._engine) as session:
            return sorted(digest for digest in session.scalars(query) if digest is not None)

    def runs(self, destination: str) -> list[str]:
        """Return the runs that wrote to a destination, the latest last."""
        query = (
            select(LedgerRow.run)
            .where(LedgerRow.destination == destination)
            .group_by(LedgerRow.run)
            .order_by(func.max(LedgerRow.updated))
        )
        with Session(self._engine) as session:
            return list(session.scalars(query))

    def enqueue(
        self,
        destination: str,
        items: Sequence[tuple[tuple[str, str], str, str | None]],
        *,
        partition: str,
        run: str,
        now: datetime,
    ) -> None:
        """Write ``(key, payload hash, model digest)`` as pending; what is known of the server stays."""
        known = self.entries(destination, [key for key, _, _ in items])
        with Session(self._engine) as session, session.begin():
            for (kind, name), digest, model in items:
                fields: dict[str, Any] = {
                    "state": str(State.PENDING),
                    "payload_hash": digest,
                    "attempts": 0,
                    "error_class": None,
                    "error_codes": None,
                    "partition": partition,
                    "run": run,
                    "model_digest": model,
                    "withdrawn": None,
                    "updated": now,
                }
                if (kind, name) in known:
                    if known[kind, name].state is State.SENT:
                        fields["state"] = str(State.SENT)  # still unknown whether the server acted
                    session.execute(_row(destination, (kind, name)).values(**fields))
                else:
                    session.add(
                        LedgerRow(destination=destination, resource_type=kind, resource_id=name, **fields)
                    )

    def mark_sent(self, destination: str, keys: Iterable[tuple[str, str]], *, now: datetime) -> None:
        """Note, before the request leaves, that from now on the server may have acted."""
        with Session(self._engine) as session, session.begin():
            for key in keys:
                session.execute(
                    _row(destination, key).values(
                        state=str(State.SENT), attempts=LedgerRow.attempts + 1, updated=now
                    )
                )

    def settle(self, destination: str, results: Iterable[Settled], *, now: datetime) -> None:
        """Write how attempts ended."""
        with Session(self._engine) as session, session.begin():
            for item in results:
                fields: dict[str, Any] = {
                    "state": str(item.state),
                    "error_class": item.error_class,
                    "error_codes": ",".join(item.error_codes)[:200] or None,
                    "updated": now,
                }
                if item.state is State.CONFIRMED:
                    fields |= {
                        "server_type": item.server_type,
                        "server_id": item.server_id,
                        "server_version": item.server_version,
                    }
                session.execute(_row(destination, item.key).values(**fields))

    def forget_place(self, destination: str, keys: Iterable[tuple[str, str]], *, now: datetime) -> None:
        """Take back that resources were ever confirmed: the destination does not know them any more."""
        with Session(self._engine) as session, session.begin():
            for key in keys:
                session.execute(
                    _row(destination, key).values(
                        state=str(State.PENDING),
                        server_type=None,
                        server_id=None,
                        server_version=None,
                        updated=now,
                    )
                )

    def known_ids(self, destination: str, server_type: str, ids: Iterable[str]) -> set[str]:
        """Return those of a server's ids that belong to something of ours."""
        found: set[str] = set()
        source = iter(ids)
        with Session(self._engine) as session:
            while part := list(islice(source, CHUNK)):
                query = select(LedgerRow.server_id).where(
                    LedgerRow.destination == destination,
                    LedgerRow.server_type == server_type,
                    LedgerRow.server_id.in_(part),
                )
                found |= {name for name in session.scalars(query) if name is not None}
        return found

    def mark_withdrawn(
        self, destination: str, results: Iterable[tuple[tuple[str, str], str | None]], *, now: datetime
    ) -> None:
        """Write that resources are marked entered-in-error, with the server's new version."""
        with Session(self._engine) as session, session.begin():
            for key, version in results:
                session.execute(
                    _row(destination, key).values(withdrawn=now, server_version=version, updated=now)
                )


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def _row(destination: str, key: tuple[str, str]) -> Any:
    return update(LedgerRow).where(
        LedgerRow.destination == destination,
        LedgerRow.resource_type == key[0],
        LedgerRow.resource_id == key[1],
    )


def _entry(row: LedgerRow) -> Entry:
    return Entry(
        resource_type=row.resource_type,
        resource_id=row.resource_id,
        state=State(row.state),
        payload_hash=row.payload_hash,
        attempts=row.attempts,
        server_type=row.server_type,
        server_id=row.server_id,
        server_version=row.server_version,
        error_class=row.error_class,
        error_codes=row.error_codes,
        partition=row.partition,
        run=row.run,
        model_digest=row.model_digest,
        withdrawn=row.withdrawn,
    )


def _chunks(keys: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    source = iter(keys)
    while part := list(islice(source, CHUNK)):
        yield part
