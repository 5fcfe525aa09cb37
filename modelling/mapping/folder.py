"""A folder of mapped tables for training: one shard after another, resumable, with its account.

::

    source.json                    what was mapped, with which catalogue and how many shards
    encounters.parquet outcomes.parquet diagnoses.parquet procedures.parquet
    events/0003.parquet quarantine/0003.parquet     the shard's tables, judged by validation.rules
    shards/0003.json               counts of the shard; written last, so that its presence means done
    recordings/0003.parquet images/0003.parquet     where the source has them, with arrays/ and
    quarantine/recordings-0003.parquet shards/recordings-0003.json                   their own account
    unmapped.csv                   codes outside the catalogue, most frequent first
    summary.json                   counts of all shards
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from modelling.catalogue import Catalogue
from modelling.errors import MappingError, SourceTableError
from modelling.mapping.mapping import map_observations
from validation.contracts import write_json, write_table
from validation.rules import judge_events

Progress = Callable[[str, int, int], None]
"""Called with a stage, steps done and steps in all."""

FILES = ("recordings", "images")
"""Tables whose rows point to arrays."""

DIAGNOSES = {
    "subject_id": pl.Int64,
    "encounter_id": pl.String,
    "icd_version": pl.Int8,
    "icd_code": pl.String,
    "position": pl.Int32,
}
"""Discharge diagnoses: labels only, since they are coded after discharge. ``position`` 1 is primary."""

PROCEDURES = {**DIAGNOSES, "date": pl.Date}
"""Coded procedures with their day; labels only, for the same reason."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Report nothing."""


def shard_of(subject: pl.Expr, n_shards: int) -> pl.Expr:
    """Return the shard of a subject: its identifier, as unsigned, modulo the number of shards."""
    return subject.cast(pl.Int64).reinterpret(signed=False) % n_shards


class TableFolder:
    """Writes the tables of one source, shard by shard.

    Parameters
    ----------
    root
        Output folder.
    catalogue
        The catalogue to map with.
    source
        What is mapped, JSON-ready; a folder begun for another source is refused.
    n_shards
        Number of shards.

    Raises
    ------
    SourceTableError
        If the folder holds shards of another source, catalogue or shard number.
    """

    def __init__(self, root: Path, *, catalogue: Catalogue, source: dict[str, Any], n_shards: int) -> None:
        self.root = root
        self.catalogue = catalogue
        self.n_shards = n_shards
        begun = {"source": source, "catalogue": catalogue.digest, "shards": n_shards}
        path = root / "source.json"
        if path.is_file() and json.loads(path.read_text("utf-8")) != begun:
            raise SourceTableError(
                f"{root} holds tables of another source, catalogue or number of shards; "
                "give an empty folder, or remove this one"
            )
        write_json(begun, path)

    def missing(self, table: str = "events") -> list[int]:
        """Return the shards of a table that are still to be written."""
        return [shard for shard in range(self.n_shards) if not self._account(shard, table).is_file()]

    def begin(self, table: str, source: dict[str, Any]) -> None:
        """Note what a table of files is made from.

        Raises
        ------
        SourceTableError
            If shards of the table were written from something else.
        """
        path = self.root / f"{table}.json"
        if path.is_file() and json.loads(path.read_text("utf-8")) != source:
            raise SourceTableError(f"{self.root} holds {table} of another source; give an empty folder")
        write_json(source, path)

    def write_files_shard(
        self, table: str, shard: int, accepted: pl.DataFrame, quarantine: pl.DataFrame, *, listed: int
    ) -> None:
        """Write one shard of ``recordings`` or ``images``, judged; ``listed`` is the source's number of rows."""
        name = f"{shard:04d}"
        write_table(accepted, table, self.root / table / f"{name}.parquet", shard=shard)
        write_table(
            quarantine, "quarantine", self.root / "quarantine" / f"{table}-{name}.parquet", shard=shard
        )
        if listed != accepted.height + quarantine.height:
            raise MappingError(f"{table} were lost or made: {listed} listed")
        reasons = quarantine.group_by("reason").len().sort("reason")
        counts = {"listed": listed, "kept": accepted.height, "refused": quarantine.height}
        write_json({"counts": counts, "reasons": dict(reasons.iter_rows())}, self._account(shard, table))

    def write_shard(self, shard: int, observations: pl.DataFrame, **facts: int) -> dict[str, int]:
        """Map and judge one shard's observations and write its tables; return its counts."""
        mapping = map_observations(observations, self.catalogue)
        judged = judge_events(mapping.events, self.catalogue.limits())
        quarantine = pl.concat([mapping.quarantine, judged.quarantine], how="diagonal_relaxed")
        name = f"{shard:04d}"
        write_table(judged.accepted, "events", self.root / "events" / f"{name}.parquet", shard=shard)
        write_table(quarantine, "quarantine", self.root / "quarantine" / f"{name}.parquet", shard=shard)
        reasons = quarantine.group_by("reason").len().sort("reason")
        counts = {
            **facts,
            **mapping.counts,
            "refused_by_rules": judged.quarantine.height,
            "events_kept": judged.accepted.height,
        }
        write_json(
            {
                "counts": counts,
                "reasons": dict(reasons.iter_rows()),
                "unmapped": dict(mapping.unmapped.iter_rows()),
            },
            self._account(shard),
        )
        return counts

    def write_stays(
        self,
        encounters: pl.DataFrame,
        outcomes: pl.DataFrame,
        diagnoses: pl.DataFrame | None = None,
        procedures: pl.DataFrame | None = None,
    ) -> None:
        """Write the tables that are not sharded; a source without diagnoses or procedures has none coded."""
        write_table(encounters, "encounters", self.root / "encounters.parquet")
        write_table(outcomes, "outcomes", self.root / "outcomes.parquet")
        for name, frame, schema in (
            ("diagnoses", diagnoses, DIAGNOSES),
            ("procedures", procedures, PROCEDURES),
        ):
            coded = pl.DataFrame(schema=schema) if frame is None else frame
            coded.select(pl.col(column).cast(dtype) for column, dtype in schema.items()).write_parquet(
                self.root / f"{name}.parquet"
            )

    def note_unmapped(self, counts: dict[str, int]) -> None:
        """Keep the codes that a reader left out before mapping, with their numbers of rows."""
        write_json(counts, self.root / "not_read.json")

    def finish(self) -> dict[str, Any]:
        """Add up the shards' accounts; write ``summary.json`` and ``unmapped.csv`` and return the summary."""
        totals: dict[str, dict[str, int]] = {"counts": {}, "reasons": {}, "unmapped": {}}
        for shard in range(self.n_shards):
            account = json.loads(self._account(shard).read_text("utf-8"))
            for part, total in totals.items():
                for key, n in account[part].items():
                    total[key] = total.get(key, 0) + int(n)
        skipped = self.root / "not_read.json"
        if skipped.is_file():
            left_out = {str(code): int(n) for code, n in json.loads(skipped.read_text("utf-8")).items()}
            totals["counts"]["not_read"] = sum(left_out.values())
            for code, n in left_out.items():
                totals["unmapped"][code] = totals["unmapped"].get(code, 0) + n
        unmapped = sorted(totals.pop("unmapped").items(), key=lambda item: (-item[1], item[0]))
        pl.DataFrame(unmapped, schema={"coding": pl.String, "n": pl.Int64}, orient="row").write_csv(
            self.root / "unmapped.csv"
        )
        summary = {**totals, "unmapped_codes": len(unmapped), "shards": self.n_shards}
        summary |= {table: self._files_account(table) for table in FILES if not self.missing(table)}
        write_json(summary, self.root / "summary.json")
        return summary

    def _files_account(self, table: str) -> dict[str, int]:
        """Add up a table of files: listed, kept, and refused by reason."""
        total: dict[str, int] = {}
        for shard in range(self.n_shards):
            account = json.loads(self._account(shard, table).read_text("utf-8"))
            for key, n in (account["counts"] | account["reasons"]).items():
                total[key] = total.get(key, 0) + int(n)
        return total

    def _account(self, shard: int, table: str = "events") -> Path:
        name = f"{shard:04d}" if table == "events" else f"{table}-{shard:04d}"
        return self.root / "shards" / f"{name}.json"


def read_events(root: Path) -> pl.LazyFrame:
    """Return a folder's events of all shards, lazily."""
    return pl.scan_parquet(root / "events" / "*.parquet")
