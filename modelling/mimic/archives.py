"""Signals and pictures that lie beside MIMIC-IV as files: read one by one, judged, written by shard.

What decodes a file is passed in. ``deploy`` passes the adapter's own readers, so that an array is the same
whether a model is trained on the archive or served from the hospital's servers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from modelling.errors import ModellingError
from modelling.mapping.folder import Progress, TableFolder, shard_of
from validation.contracts import empty
from validation.judgement import Judgement
from validation.reasons import Reason

STAGE = "map"


class UnusableError(ModellingError):
    """One file of an archive cannot be used; ``reason`` is the code for the quarantine."""

    def __init__(self, reason: Reason, detail: str | None = None) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, kw_only=True)
class Signal:
    """An ECG: ``samples`` float32 ``[leads, samples]`` in mV, NaN where there is no value."""

    leads: tuple[str, ...]
    samples: NDArray[np.float32]
    sampling_rate: float


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A radiograph: ``pixels`` uint8 ``[rows, columns]``, air dark; ``pixel_spacing`` in mm or None."""

    pixels: NDArray[np.uint8]
    view: str | None
    pixel_spacing: float | None


ReadSignal = Callable[[Path, str], Signal]
"""Reads the WFDB record of a path below a root, given without suffix, or raises :class:`UnusableError`."""
ReadPicture = Callable[[Path, str], Picture]
"""Reads the JPEG or DICOM file of a path below a root, or raises :class:`UnusableError`."""


def enclosing_encounters(rows: pl.DataFrame, encounters: pl.DataFrame) -> pl.DataFrame:
    """Add ``encounter_id``: the ICU stay, or else the admission, in which ``time`` lies; null outside.

    ``rows`` has ``subject_id``, ``time`` and ``line``, which numbers the rows.
    """
    around = (
        rows.select("line", "subject_id", "time")
        .join(encounters.select("encounter_id", "subject_id", "kind", "start", "end"), on="subject_id")
        .filter(
            (pl.col("start") <= pl.col("time"))
            & (pl.col("end").is_null() | (pl.col("time") <= pl.col("end")))
        )
        .sort("line", pl.col("kind") != "icu", "start", "encounter_id")
        .unique("line", keep="first", maintain_order=True)
        .select("line", "encounter_id")
    )
    return rows.join(around, on="line", how="left", maintain_order="left")


def map_archive(
    folder: TableFolder,
    table: str,
    rows: pl.DataFrame,
    *,
    read: Callable[[dict[str, Any]], dict[str, Any]],
    judge: Callable[[pl.DataFrame, Path], Judgement],
    source_file: str,
    progress: Progress,
) -> None:
    """Read the files of every shard that is still missing, judge them, and write the shard's tables.

    Parameters
    ----------
    table
        ``recordings`` or ``images``.
    rows
        One row a file: ``line``, ``subject_id``, ``source_ref``, ``refused`` (a reason that the list itself
        gives, or null) and whatever ``read`` looks at.
    read
        Returns the contract's columns of a row (``source_file`` and ``source_line`` are added), or raises
        :class:`UnusableError`.
    judge
        The judge of the night.
    """
    todo = folder.missing(table)
    sharded = rows.with_columns(shard_of(pl.col("subject_id"), folder.n_shards).alias("shard"))
    total = sharded.filter(pl.col("shard").is_in(todo)).height
    done = 0
    for shard in todo:
        kept: list[dict[str, Any]] = []
        refused: list[dict[str, Any]] = []
        part = sharded.filter(pl.col("shard") == shard)
        for row in part.iter_rows(named=True):
            try:
                if row["refused"]:
                    raise UnusableError(Reason(row["refused"]))
                kept.append(read(row) | {"source_file": source_file, "source_line": row["line"]})
            except UnusableError as error:
                refused.append(
                    {
                        "stage": STAGE,
                        "reason": str(error.reason),
                        "source_file": source_file,
                        "source_line": row["line"],
                        "source_ref": row["source_ref"],
                        "detail": error.detail,
                        "whole": True,
                    }
                )
            done += 1
            progress(f"read {table}", done, total)
        judged = judge(pl.DataFrame(kept, schema=dict(empty(table).schema)), folder.root)
        unread = pl.DataFrame(refused, schema=dict(empty("quarantine").schema))
        folder.write_files_shard(
            table, shard, judged.accepted, pl.concat([unread, judged.quarantine]), listed=part.height
        )
