"""Looking into a run's quarantine, and taking the refused lines out for another try after a fix.

Listings hold places (file, line, resource id) and reasons, never values. :func:`collect_lines` copies
the original lines, which are patient data, into the run folder only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from validation.contracts import empty
from validation.errors import ValidationError
from validation.reasons import EXPLANATIONS, Reason

PATTERNS = ("quarantine/*.parquet", "extract/*/quarantine.parquet")
PLACED = ("observations", "recordings", "images")


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Refused lines copied for another try.

    Attributes
    ----------
    files
        One NDJSON file a source file, by the source file's name.
    lines
        Lines copied.
    lost
        Rows whose line is not known or whose source file is gone.
    """

    files: dict[str, Path]
    lines: int
    lost: int


def read_quarantine(run_folder: Path, *, placed: bool = True) -> pl.DataFrame:
    """Return every refused row of a run, of all stages.

    Parameters
    ----------
    placed
        Give rows that know only their resource the file and line of the tables that the resource came in;
        without it, those tables need not be read.

    Raises
    ------
    ValidationError
        If the folder is no run folder.
    """
    if not run_folder.is_dir():
        raise ValidationError(f"no run folder {run_folder}; run the night first")
    paths = [path for pattern in PATTERNS for path in sorted(run_folder.glob(pattern))]
    frame = pl.concat(
        [empty("quarantine"), *(pl.read_parquet(path) for path in paths)], how="diagonal_relaxed"
    )
    schema = empty("quarantine").schema
    frame = frame.select(pl.col(name).cast(kind) for name, kind in schema.items())
    return _with_places(frame, run_folder) if placed else frame


def _with_places(frame: pl.DataFrame, run_folder: Path) -> pl.DataFrame:
    if not frame["source_line"].is_null().any():
        return frame
    columns = ["source_ref", "source_file", "source_line"]
    tables = [
        pl.read_parquet(path, columns=columns)
        for table in PLACED
        for path in sorted(run_folder.glob(f"extract/*/{table}*.parquet"))
    ]
    if not tables:
        return frame
    places = pl.concat(tables).unique("source_ref", keep="first")
    return (
        frame.join(places, on="source_ref", how="left", suffix="_known", maintain_order="left")
        .with_columns(
            pl.coalesce("source_file", "source_file_known").alias("source_file"),
            pl.coalesce("source_line", pl.col("source_line_known").cast(pl.UInt32)).alias("source_line"),
        )
        .select(frame.columns)
    )


def list_refusals(quarantine: pl.DataFrame) -> pl.DataFrame:
    """Return counts by ``stage``, ``reason``, ``feature`` with an ``explanation``, most frequent first."""
    known = {str(reason): sentence for reason, sentence in EXPLANATIONS.items()}
    return (
        quarantine.group_by("stage", "reason", "feature")
        .agg(pl.len().alias("rows"), pl.col("whole").sum().alias("resources"))
        .sort("rows", "stage", "reason", "feature", descending=[True, False, False, False], nulls_last=True)
        .with_columns(pl.col("reason").replace_strict(known, default="").alias("explanation"))
    )


def choose_refusals(
    quarantine: pl.DataFrame,
    *,
    reason: str | None = None,
    stage: str | None = None,
    feature: str | None = None,
    source_ref: str | None = None,
) -> pl.DataFrame:
    """Return the refused rows that fit every given filter.

    Raises
    ------
    ValidationError
        If ``reason`` is not a reason code.
    """
    if reason is not None and reason not in {str(code) for code in Reason}:
        raise ValidationError(
            f"{reason!r} is no reason code; `nightingale quarantine list` shows those in use"
        )
    wanted = {"reason": reason, "stage": stage, "feature": feature, "source_ref": source_ref}
    for column, value in wanted.items():
        if value is not None:
            quarantine = quarantine.filter(pl.col(column) == value)
    return quarantine


def collect_lines(
    quarantine: pl.DataFrame,
    *,
    locate: Callable[[str], Path | None],
    target: Path,
    read_lines: Callable[[Path, set[int]], dict[int, bytes]],
) -> Replay:
    """Copy the source lines of refused rows into new NDJSON files.

    Parameters
    ----------
    quarantine
        Rows of :func:`read_quarantine`.
    locate
        Returns the local file of a source file's name, or None where it is gone.
    target
        Folder for the copies; must be new.
    read_lines
        Returns the wanted 1-based lines of a file; how a file is read is the adapter's knowledge.
    """
    wanted: dict[str, set[int]] = defaultdict(set)
    placed = quarantine.drop_nulls(["source_file", "source_line"])
    for name, line in placed.select("source_file", "source_line").iter_rows():
        wanted[name].add(line)
    lost = quarantine.height - placed.height
    files: dict[str, Path] = {}
    copied = 0
    target.mkdir(parents=True)
    for number, (name, lines) in enumerate(sorted(wanted.items())):
        path = locate(name)
        found = read_lines(path, lines) if path is not None else {}
        lost += len(lines - found.keys())
        if found:
            files[name] = target / f"{number:04d}.ndjson"
            files[name].write_bytes(b"".join(found[line].rstrip(b"\n") + b"\n" for line in sorted(found)))
            copied += len(found)
    return Replay(files=files, lines=copied, lost=lost)
