"""The profile tables, and the two rules that keep single patients out of them.

Location and spread of a feature are given only where at least :data:`SMALLEST_GROUP` subjects stand behind
them, and rounded to three significant digits; wards with fewer than :data:`SMALLEST_WARD` samples are shown
together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import polars as pl

SMALLEST_GROUP = 10
"""Subjects needed before a quantile is shown."""

SMALLEST_WARD = 5
"""Samples needed before a ward gets a row of its own."""


@dataclass(frozen=True, kw_only=True)
class Profiles:
    """The profile tables of one night.

    Attributes
    ----------
    night
        One row: counts and shares of the whole night (:data:`NIGHT_COLUMNS`).
    features
        One row a feature: ``feature``, ``n_events``, ``n_subjects``, ``coverage`` (share of samples
        with a value in their look-back), ``missing_rate`` (share of expected intervals without a value;
        null where nothing is expected), ``unknown_unit_rate``, ``out_of_range_rate``,
        ``contradicted_rate``, ``repeated_rate``, ``refused_rate`` (of all rows of the feature that
        came), ``stale_hours`` (median age of the last value), ``mean``, ``std``, ``q05`` ... ``q95``.
    sources
        ``source`` (resource type or table), ``accepted``, ``quarantined``, ``quarantined_share`` (null where
        the source is not known).
    wards
        ``ward``, ``samples``, ``with_events``, ``with_ecg``, ``with_image`` and their ``_share``.
    quarantine
        ``stage``, ``reason``, ``n``, most frequent first.
    """

    night: pl.DataFrame
    features: pl.DataFrame
    sources: pl.DataFrame
    wards: pl.DataFrame
    quarantine: pl.DataFrame
    drift: pl.DataFrame = field(default_factory=lambda: empty_drift())

    def tables(self) -> dict[str, pl.DataFrame]:
        """Return the frames by name, in a fixed order."""
        return {
            "night": self.night,
            "features": self.features,
            "sources": self.sources,
            "wards": self.wards,
            "quarantine": self.quarantine,
            "drift": self.drift,
        }

    def save(self, folder: Path) -> None:
        """Write one Parquet file a table."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in self.tables().items():
            table.write_parquet(folder / f"{name}.parquet")

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Return what :meth:`save` wrote, or None where a table is missing."""
        files = {name: folder / f"{name}.parquet" for name in cls.__dataclass_fields__}
        if not all(path.is_file() for path in files.values()):
            return None
        return cls(**{name: pl.read_parquet(path) for name, path in files.items()})


def empty_drift() -> pl.DataFrame:
    """Return a drift table without rows, for a night that has no reference."""
    return pl.DataFrame(
        schema={
            "kind": pl.String,
            "name": pl.String,
            "n": pl.Int64,
            "psi": pl.Float64,
            "distance": pl.Float64,
            "p_value": pl.Float64,
            "q_value": pl.Float64,
            "drifted": pl.Boolean,
        }
    )


def describe_comparison() -> pl.Expr:
    """Return the words for a row of a drift table: ``missing rate of lactate``, ``scores of mortality``."""
    words = {"input": "values of {}", "missing": "missing rate of {}", "score": "scores of {}"}
    name = pl.col("name")
    told = [pl.when(pl.col("kind") == kind).then(pl.format(text, name)) for kind, text in words.items()]
    return pl.coalesce(*told, pl.format("embeddings, {}", name))
