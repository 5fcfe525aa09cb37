"""Look through everything that Nightingale keeps for a patient's names; counts and places, never the names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from deploy.forget.tables import rows_of
from deploy.forget.texts import named, open_lines
from deploy.forget.trace import Trace

BINARY = frozenset({".npy", ".safetensors", ".png", ".svg", ".lock", ".sqlite", ".dcm", ".dat"})


@dataclass(frozen=True)
class Search:
    """What was looked through.

    Attributes
    ----------
    files, rows
        Files, and rows or lines in them.
    found
        Files that still name the patient.
    """

    files: int
    rows: int
    found: tuple[str, ...]


def search(roots: Iterable[Path], trace: Trace) -> Search:
    """Read every table by all its columns and every other file by its words."""
    files = rows = 0
    found: list[str] = []
    for root in roots:
        for path in sorted(root.rglob("*")):
            if not path.is_file() or path.suffix in BINARY:
                continue
            files += 1
            read, hit = _search_table(path, trace) if path.suffix == ".parquet" else _search_text(path, trace)
            rows += read
            if hit or trace.named_in(path.name):
                found.append(str(path))
    return Search(files, rows, tuple(found))


def _search_table(path: Path, trace: Trace) -> tuple[int, bool]:
    frame = pl.read_parquet(path)
    if frame.select(rows_of(trace, dict(frame.schema)).any()).item():
        return frame.height, True
    for name, kind in frame.schema.items():
        if kind.is_numeric() or kind.is_temporal() or kind == pl.Boolean or frame.is_empty():
            continue
        column = frame[name]
        if isinstance(kind, pl.List | pl.Struct | pl.Array):
            texts = set(frame.select(pl.col(name)).unique().write_ndjson().splitlines())
        else:
            texts = set(column.cast(pl.String).drop_nulls().unique().to_list())
        if any(trace.named_in(text) for text in texts):
            return frame.height, True
    return frame.height, False


def _search_text(path: Path, trace: Trace) -> tuple[int, bool]:
    lines = open_lines(path)
    return len(lines), any(named(line, trace) for line in lines)
