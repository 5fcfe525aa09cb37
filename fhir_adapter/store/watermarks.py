"""How far each resource type was pulled, and that it was: "none" must differ from "not yet asked".

One row a source, type and run, written when the pull is complete. The next pull starts at the highest
mark of complete runs: the export's ``transactionTime``, or for searches the server's time at the start of
the pull, never the newest resource seen.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Engine, Index, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from fhir_adapter.store.base import Base, UtcTime


class Watermark(Base):
    """One complete pull of one resource type."""

    __tablename__ = "watermarks"
    __table_args__ = (
        Index("ix_watermarks_source_resource_type_reached", "source", "resource_type", "reached"),
    )

    source: Mapped[str] = mapped_column(String(200), primary_key=True)
    resource_type: Mapped[str] = mapped_column(String(64), primary_key=True)
    run: Mapped[str] = mapped_column(String(200), primary_key=True)
    reached: Mapped[datetime] = mapped_column(UtcTime())
    resources: Mapped[int] = mapped_column(BigInteger())
    completed: Mapped[datetime] = mapped_column(UtcTime())


class Watermarks:
    """Watermarks of one source.

    Parameters
    ----------
    engine
        Database brought up to date by :func:`fhir_adapter.store.base.upgrade`.
    source
        The source's address or folder.
    """

    def __init__(self, engine: Engine, source: str) -> None:
        self._engine = engine
        self._source = source

    def get(self, resource_type: str) -> datetime | None:
        """Return how far complete pulls of a type reached, or None if there was none."""
        query = (
            select(Watermark.reached)
            .where(Watermark.source == self._source, Watermark.resource_type == resource_type)
            .order_by(Watermark.reached.desc())
            .limit(1)
        )
        with Session(self._engine) as session:
            return session.scalars(query).first()

    def oldest(self, resource_types: list[str]) -> datetime | None:
        """Return the mark from which all types can be pulled together, or None if one was never pulled."""
        marks = [self.get(kind) for kind in resource_types]
        known = [mark for mark in marks if mark is not None]
        return min(known) if known and len(known) == len(marks) else None

    def complete(
        self, resource_type: str, *, run: str, reached: datetime, resources: int, now: datetime
    ) -> None:
        """Record a complete pull; the same run again replaces its own row."""
        with Session(self._engine) as session, session.begin():
            session.merge(
                Watermark(
                    source=self._source,
                    resource_type=resource_type,
                    run=run,
                    reached=reached,
                    resources=resources,
                    completed=now,
                )
            )

    def was_pulled(self, resource_type: str, *, run: str) -> bool:
        """Tell whether a run pulled a type to its end."""
        with Session(self._engine) as session:
            return session.get(Watermark, (self._source, resource_type, run)) is not None
