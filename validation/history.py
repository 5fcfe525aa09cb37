"""The profiles of past nights, in SQL: one narrow table, so that a new metric needs no migration."""

from __future__ import annotations

from datetime import datetime

import polars as pl
from sqlalchemy import DateTime, Engine, Float, String, delete, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from validation.equations import Counts
from validation.profiles import Profiles

TREND_NIGHTS = 30

_KEYS = {"night": None, "features": "feature", "sources": "source", "wards": "ward"}


class _Base(DeclarativeBase):
    pass


class ProfileValue(_Base):
    """One number of one night's profile."""

    __tablename__ = "profile_history"

    site: Mapped[str] = mapped_column(String(64), primary_key=True)
    night: Mapped[str] = mapped_column(String(32), primary_key=True)
    subject: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(120), primary_key=True)
    metric: Mapped[str] = mapped_column(String(48), primary_key=True)
    value: Mapped[float] = mapped_column(Float)
    recorded_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class History:
    """Reads and writes the history.

    Parameters
    ----------
    engine
        Any SQLAlchemy engine; the table is made where it is missing.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        _Base.metadata.create_all(engine)

    def record(
        self,
        *,
        site: str,
        night: str,
        recorded_at: datetime,
        profiles: Profiles,
        counts: Counts | None = None,
        further: dict[str, float] | None = None,
    ) -> int:
        """Keep a night's profile; a night that is run again replaces what it left before.

        Parameters
        ----------
        counts
            Adds scored, confirmed and the like to the night's metrics.
        further
            Further metrics of the night, such as ``mean_probability``.

        Returns
        -------
        int
            Numbers kept.
        """
        rows = _numbers(profiles, counts, further or {})
        fixed = {"site": site, "night": night, "recorded_at": recorded_at}
        with self._engine.begin() as connection:
            connection.execute(
                delete(ProfileValue).where(ProfileValue.site == site, ProfileValue.night == night)
            )
            if rows:
                connection.execute(insert(ProfileValue), [row | fixed for row in rows])
        return len(rows)

    def trends(self, *, site: str, until: str, nights: int = TREND_NIGHTS) -> pl.DataFrame:
        """Return ``night``, ``metric``, ``value`` of the last nights up to ``until``, oldest first."""
        return self._read(site, until, nights, "night", "")

    def feature_trend(
        self, feature: str, *, site: str, until: str, nights: int = TREND_NIGHTS
    ) -> pl.DataFrame:
        """Return the same for one feature."""
        return self._read(site, until, nights, "features", feature)

    def _read(self, site: str, until: str, nights: int, subject: str, name: str) -> pl.DataFrame:
        recent = (
            select(ProfileValue.night)
            .where(ProfileValue.site == site, ProfileValue.night <= until, ProfileValue.subject == "night")
            .distinct()
            .order_by(ProfileValue.night.desc())
            .limit(nights)
        )
        query = (
            select(ProfileValue.night, ProfileValue.metric, ProfileValue.value)
            .where(
                ProfileValue.site == site,
                ProfileValue.subject == subject,
                ProfileValue.name == name,
                ProfileValue.night.in_(recent.scalar_subquery()),
            )
            .order_by(ProfileValue.night, ProfileValue.metric)
        )
        with self._engine.connect() as connection:
            rows = [tuple(row) for row in connection.execute(query)]
        return pl.DataFrame(
            rows, schema={"night": pl.String, "metric": pl.String, "value": pl.Float64}, orient="row"
        )


def _numbers(profiles: Profiles, counts: Counts | None, further: dict[str, float]) -> list[dict[str, object]]:
    drifted = profiles.drift["drifted"].sum() if profiles.drift.height else 0
    night = {**(counts.to_dict() if counts else {}), **further, "drifted_features": float(drifted or 0)}
    rows: list[dict[str, object]] = []
    tables = profiles.tables()
    for subject, key in _KEYS.items():
        for row in tables[subject].iter_rows(named=True):
            name = "" if key is None else str(row[key])[:120]
            found = dict(row) | (night if subject == "night" else {})
            rows += [
                {"subject": subject, "name": name, "metric": metric, "value": float(value)}
                for metric, value in found.items()
                if metric != key and value is not None
            ]
    return rows
