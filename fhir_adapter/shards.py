"""Contract tables written row group by row group, so that memory is bounded by a group, not by the file."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from validation.contracts import Manifest, empty, file_digest, write_table
from validation.contracts.store import check_table

GROUP_ROWS = 50_000


class TableStream:
    """One Parquet file of a contract table, growing by checked row groups, renamed into place at the end."""

    def __init__(self, table: str, path: Path, *, shard: int | None = None) -> None:
        self.table = table
        self.path = path
        self.shard = shard
        self.rows = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._writer: pq.ParquetWriter | None = None

    def append(self, frame: pl.DataFrame) -> None:
        """Check and write one row group.

        Raises
        ------
        ContractError
            If the frame breaks the table's contract.
        """
        if frame.is_empty() and self._writer is not None:
            return
        self.append_checked(check_table(frame, self.table))

    def append_checked(self, frame: pl.DataFrame) -> None:
        """Write one row group that :func:`check_table` returned, or some of its rows."""
        group = frame.to_arrow()
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._temporary, group.schema, compression="zstd")
        self._writer.write_table(group)
        self.rows += frame.height

    def finish(self, *, relative_to: Path, without_lines: Collection[int] = ()) -> Manifest:
        """Close the file, leave out the rows of some source lines, and rename it into place."""
        if self._writer is None:
            self.append(empty(self.table))
        assert self._writer is not None  # noqa: S101 - append made it
        self._writer.close()
        if without_lines:
            self._rewrite(without_lines)
        with self._temporary.open("rb") as file:
            os.fsync(file.fileno())
        digest = file_digest(self._temporary)
        self._temporary.replace(self.path)
        return Manifest(
            table=self.table,
            path=str(self.path.relative_to(relative_to)),
            rows=self.rows,
            sha256=digest,
            shard=self.shard,
        )

    def discard(self) -> None:
        """Remove an unfinished file."""
        if self._writer is not None:
            self._writer.close()
        self._temporary.unlink(missing_ok=True)

    def _rewrite(self, without_lines: Collection[int]) -> None:
        second = self._temporary.with_suffix(".second")
        lines = pl.Series(sorted(without_lines), dtype=pl.UInt32)
        self.rows = 0
        with (
            pq.ParquetFile(self._temporary) as old,
            pq.ParquetWriter(second, old.schema_arrow, compression="zstd") as new,
        ):
            for group in range(old.num_row_groups):
                frame = pl.from_arrow(old.read_row_group(group))
                assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table, not a column
                kept = frame.filter(~pl.col("source_line").is_in(lines.implode()))
                new.write_table(kept.to_arrow().cast(old.schema_arrow))
                self.rows += kept.height
        second.replace(self._temporary)


class ShardWriter:
    """A table split by ``subject_id mod n_shards`` (as unsigned), one file a shard that has rows."""

    def __init__(self, table: str, folder: Path, *, n_shards: int, group_rows: int = GROUP_ROWS) -> None:
        self.table = table
        self._folder = folder
        self._n_shards = n_shards
        self._group_rows = group_rows
        self._waiting: list[pl.DataFrame] = []
        self._waiting_rows = 0
        self._streams: dict[int, TableStream] = {}

    def append(self, frame: pl.DataFrame) -> None:
        """Take rows; they are written once enough have come."""
        if frame.is_empty():
            return
        self._waiting.append(frame)
        self._waiting_rows += frame.height
        if self._waiting_rows >= self._group_rows:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        # Checked once: a check of each shard's rows would cost more than all else where shards are many.
        frame = check_table(pl.concat(self._waiting), self.table)
        self._waiting, self._waiting_rows = [], 0
        shard = (pl.col("subject_id").reinterpret(signed=False) % self._n_shards).alias("_shard")
        for (number,), rows in frame.with_columns(shard).partition_by("_shard", as_dict=True).items():
            stream = self._streams.get(number)
            if stream is None:
                path = self._folder / f"{self.table}-{number:04d}.parquet"
                stream = self._streams[number] = TableStream(self.table, path, shard=number)
            stream.append_checked(rows.drop("_shard"))

    def finish(self, *, relative_to: Path, without_lines: Collection[int] = ()) -> list[Manifest]:
        """Write what waits and close all shards; shards without a row leave no file."""
        self._flush()
        return [
            self._streams[number].finish(relative_to=relative_to, without_lines=without_lines)
            for number in sorted(self._streams)
        ]

    def discard(self) -> None:
        """Remove unfinished files."""
        for stream in self._streams.values():
            stream.discard()


class SmallShardWriter:
    """As :class:`ShardWriter` for tables of few, short rows, whose keys are checked over the whole shard.

    A primary key holds only once superseded lines are gone, so rows wait in memory until then.
    """

    def __init__(self, table: str, folder: Path, *, n_shards: int) -> None:
        self.table = table
        self._folder = folder
        self._n_shards = n_shards
        self._waiting: list[pl.DataFrame] = []

    def append(self, frame: pl.DataFrame) -> None:
        """Take rows."""
        if frame.height:
            self._waiting.append(frame)

    def finish(self, *, relative_to: Path, without_lines: Collection[int] = ()) -> list[Manifest]:
        """Write one file a shard that has rows."""
        if not self._waiting:
            return []
        lines = pl.Series(sorted(without_lines), dtype=pl.UInt32)
        frame = pl.concat(self._waiting).filter(~pl.col("source_line").is_in(lines.implode()))
        shard = (pl.col("subject_id").reinterpret(signed=False) % self._n_shards).alias("_shard")
        parts = frame.with_columns(shard).partition_by("_shard", as_dict=True)
        return [
            write_table(
                rows.drop("_shard"),
                self.table,
                self._folder / f"{self.table}-{number:04d}.parquet",
                shard=number,
                relative_to=relative_to,
            )
            for (number,), rows in sorted(parts.items())
        ]

    def discard(self) -> None:
        """Nothing is on disk before :meth:`finish`."""
