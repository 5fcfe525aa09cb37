"""One pass over a large table: rows of catalogue items by shard of subject, all other items counted.

Rows wait in memory up to a limit and are then written as a Parquet part, sorted by shard, so that memory does
not grow with the table and a shard is read without the others. A table of which parts were written leaves a
marker when it is through, and is not read again.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl

from modelling.mapping.folder import Progress, shard_of
from modelling.mimic.files import Schema, batches, scan_table, with_times
from validation.contracts import write_json

ROWS_IN_MEMORY = 1_000_000
ROWS_A_GROUP = 16_384
"""Rows of a part that are read together; about as many as a part holds of a shard, or more."""


class Staging:
    """The rows of one table, by shard, with their times as moments.

    Parameters
    ----------
    folder
        Where parts are written.
    n_shards
        Number of shards.
    rows_in_memory
        Rows that may wait before they are written.
    """

    def __init__(self, folder: Path, *, n_shards: int, rows_in_memory: int = ROWS_IN_MEMORY) -> None:
        self.folder = folder
        self.n_shards = n_shards
        self.rows_in_memory = rows_in_memory
        self._waiting: list[pl.DataFrame] = []
        self._n_waiting = 0
        self._parts = 0
        self._schema: dict[str, pl.DataType] = {}
        self.rows = 0
        self.other_items: dict[int, int] = {}

    @property
    def marker(self) -> Path:
        """Written when the table is through and its parts are on disk."""
        return self.folder / "done.json"

    def fill(self, path: Path, schema: Schema, *, items: list[int], progress: Progress, stage: str) -> None:
        """Read a table once; keep rows of ``items``, count the rest by item."""
        if self.marker.is_file():
            facts = json.loads(self.marker.read_text("utf-8"))
            self.rows = facts["rows"]
            self._parts = facts["parts"]
            self.other_items = {int(item): n for item, n in facts["other_items"].items()}
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        wanted = pl.Series(items, dtype=pl.Int32).implode()
        counts: list[pl.DataFrame] = []
        n = 0
        for batch in batches(scan_table(path, schema), path):
            n += batch.height
            known = batch["itemid"].is_in(wanted)
            counts.append(batch["itemid"].filter(~known).value_counts())
            self._wait(with_times(batch.filter(known).rechunk()))
            progress(stage, n, 0)
        self.rows = n
        if counts:
            total = pl.concat(counts).drop_nulls().group_by("itemid").agg(pl.col("count").sum())
            self.other_items = dict(total.sort("itemid").iter_rows())
        if self._parts:
            self._write()
            write_json(
                {"rows": self.rows, "parts": self._parts, "other_items": self.other_items}, self.marker
            )

    def _wait(self, rows: pl.DataFrame) -> None:
        self._schema = dict(rows.schema)
        self._waiting.append(rows)
        self._n_waiting += rows.height
        if self._n_waiting > self.rows_in_memory:
            self._write()

    def _write(self) -> None:
        if not self._n_waiting:
            return
        rows = (
            pl.concat(self._waiting)
            .with_columns(shard_of(pl.col("subject_id"), self.n_shards).cast(pl.UInt32).alias("shard"))
            .sort("shard", maintain_order=True)
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        rows.write_parquet(
            self.folder / f"{self._parts:06d}.parquet", compression="lz4", row_group_size=ROWS_A_GROUP
        )
        self._parts += 1
        self._waiting, self._n_waiting = [], 0

    def read(self, shard: int) -> pl.DataFrame:
        """Return one shard's rows, in the table's order."""
        if self._parts:
            parts = sorted(self.folder.glob("*.parquet"))
            return pl.scan_parquet(parts).filter(pl.col("shard") == shard).drop("shard").collect()
        if not self._waiting:
            return pl.DataFrame()
        waiting = pl.concat(self._waiting)
        self._waiting = [waiting]
        if self.n_shards == 1:
            return waiting
        return waiting.filter(shard_of(pl.col("subject_id"), self.n_shards) == shard)

    def clear(self) -> None:
        """Remove the parts."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._waiting, self._n_waiting = [], 0
