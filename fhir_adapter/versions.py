"""Which line holds the newest version of each resource of a file.

The index lies on disk and is judged bucket by bucket, so that memory does not grow with the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from fhir_adapter.times import utc_expression
from validation.reasons import Reason

RECORD = np.dtype(
    [("key", "<u8"), ("line", "<u4"), ("refused", "?"), ("version", "<i8"), ("updated", "<i8")], align=True
)
BUCKET_RECORDS = 500_000
ENTRIES = {
    "source_line": pl.UInt32,
    "id": pl.String,
    "version": pl.String,
    "updated": pl.String,
    "refused": pl.Boolean,
}
"""Columns that :meth:`VersionIndex.add` takes."""


class VersionIndex:
    """Ids and versions of the lines of one file.

    Parameters
    ----------
    path
        Scratch file; removed by :meth:`close`. It holds hashes of ids, not ids.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self._count = 0

    def add(self, entries: pl.DataFrame) -> None:
        """Add lines with the columns of :data:`ENTRIES`."""
        if entries.is_empty():
            return
        micros = utc_expression(pl.col("updated")).dt.epoch("us")
        ready = entries.select(
            pl.col("id").hash(seed=11).alias("key"),
            pl.col("source_line").alias("line"),
            "refused",
            pl.col("version").str.to_integer(strict=False, dtype=pl.Int64).fill_null(-1),
            micros.fill_null(-1).alias("updated"),
        )
        records = np.zeros(ready.height, dtype=RECORD)
        for name in ready.columns:
            records[name] = ready.get_column(name).to_numpy()
        records.tofile(self._file)
        self._count += ready.height

    def losers(self) -> Iterator[tuple[int, bool, Reason]]:
        """Yield line, whether it was refused already, and why it must go, for all but one line an id.

        The newest ``meta.lastUpdated``, then the highest numeric ``versionId``, wins; among equal
        versions the first line.
        """
        self._file.flush()
        if not self._count:
            return
        records = np.memmap(self._path, dtype=RECORD, mode="r")
        buckets = -(-self._count // BUCKET_RECORDS)
        for bucket in range(buckets):
            yield from _bucket_losers(np.array(records[records["key"] % np.uint64(buckets) == bucket]))

    def close(self) -> None:
        """Remove the scratch file."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def _bucket_losers(records: np.ndarray) -> Iterator[tuple[int, bool, Reason]]:
    order = np.lexsort((records["line"], -records["version"], -records["updated"], records["key"]))
    ordered = records[order]
    same = np.flatnonzero(ordered["key"][1:] == ordered["key"][:-1]) + 1
    winner = ordered[0] if len(ordered) else None
    for at in same:
        record = ordered[at]
        if winner is None or winner["key"] != record["key"]:
            winner = ordered[at - 1]
        equal = winner["version"] == record["version"] and winner["updated"] == record["updated"]
        reason = Reason.RESOURCE_DUPLICATE if equal else Reason.RESOURCE_SUPERSEDED
        yield int(record["line"]), bool(record["refused"]), reason
