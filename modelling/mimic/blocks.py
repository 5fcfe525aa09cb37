"""Large tables in blocks, which threads parse and look through beside one another.

A gzipped CSV file is unpacked by ISA-L (several times faster than ``gzip -dc``) and cut into blocks of whole
lines; a thread parses a block and reduces it to what is wanted of it. So memory is that of a few blocks, whatever
the size of the file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

import polars as pl
from isal import igzip
from isal.igzip_lib import IsalError

from modelling.mimic.files import Schema, check_columns, described, header, scan_table, unreadable

PIECE_BYTES = 1 << 20
PIECES = 8
"""Pieces of text that make a block: buffers of a megabyte are used again, larger ones are asked of the system anew."""
LONGEST_LINE = 32 << 20
"""More is a quotation mark too many, which would take the rest of the file for one text."""
ROWS_A_BLOCK = 100_000
"""Rows of a Parquet file that are looked at together, about as many as a block of text has."""
DAMAGED = cast("tuple[type[Exception], ...]", (EOFError, IsalError))
"""What ISA-L raises of a compressed file that is cut or damaged (its type stubs call the class an exception)."""
Seen = TypeVar("Seen")


def look_through(
    path: Path, schema: Schema, look: Callable[[pl.DataFrame], Seen], *, dataset: str = "MIMIC-IV 2.x and 3.x"
) -> Iterator[tuple[int, int, Seen]]:
    """Yield what ``look`` makes of every block of a table, in the table's order.

    Parameters
    ----------
    path
        A ``.csv.gz``, ``.csv`` or ``.parquet`` file.
    look
        Called in a thread with a block: ``line`` (0 is the block's first row) and the columns of ``schema``.

    Yields
    ------
    tuple
        Rows before the block, rows of the block, and what was made of it.

    Raises
    ------
    SourceTableError
        If a column is missing, the file is truncated, or a value does not fit its column.
    """
    columns = header(path)
    check_columns(path, schema, columns, dataset)

    def work(block: list[bytes] | pl.DataFrame) -> tuple[int, Seen]:
        frame = _parse(block, schema, columns) if isinstance(block, list) else block
        return frame.height, look(frame)

    blocks: Iterator[list[bytes]] | Iterator[pl.DataFrame]
    if path.suffix == ".parquet":
        blocks = _parquet_blocks(path, schema, dataset)
    else:
        blocks = _text_blocks(path)
    before = 0
    try:
        for rows, seen in _side_by_side(work, blocks):
            yield before, rows, seen
            before += rows
    except (pl.exceptions.PolarsError, OSError) as error:
        raise described(path, error) from None
    except DAMAGED:
        raise unreadable(path) from None


def _side_by_side(
    work: Callable[[list[bytes] | pl.DataFrame], tuple[int, Seen]],
    blocks: Iterator[list[bytes]] | Iterator[pl.DataFrame],
) -> Iterator[tuple[int, Seen]]:
    """Yield results in order, of as many blocks at a time as there are threads and one that waits."""
    n = pl.thread_pool_size()
    waiting: deque[Future[tuple[int, Seen]]] = deque()
    with ThreadPoolExecutor(n) as threads:
        for block in blocks:
            waiting.append(threads.submit(work, block))
            if len(waiting) > n:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _text_blocks(path: Path) -> Iterator[list[bytes]]:
    pieces = _pieces(path)
    while block := list(islice(pieces, PIECES)):
        yield block


def _pieces(path: Path) -> Iterator[bytes]:
    """Yield a CSV file's lines but for the header, a megabyte at a time; no line is cut."""
    opened = igzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
    with cast(BinaryIO, opened) as file:
        file.readline()
        rest = b""
        while piece := file.read(PIECE_BYTES):
            piece = rest + piece
            end = _end_of_lines(piece)
            if end:
                yield piece[:end]
            rest = piece[end:]
        if rest:
            yield rest


def _end_of_lines(piece: bytes) -> int:
    """Return where the last whole line ends; a line break between quotes ends none."""
    end = piece.rfind(b"\n") + 1
    if b'"' in piece:
        quotes = piece.count(b'"', 0, end)
        while end and quotes % 2:
            line = piece.rfind(b"\n", 0, end - 1) + 1
            quotes -= piece.count(b'"', line, end)
            end = line
    if not end and len(piece) > LONGEST_LINE:
        raise OSError("a quoted text does not end")
    return end


def _parse(block: list[bytes], schema: Schema, columns: list[str]) -> pl.DataFrame:
    types = {name: schema.get(name, pl.String) for name in columns}
    wanted = [number for number, name in enumerate(columns) if name in schema]
    frame = pl.read_csv(block, has_header=False, schema=types, columns=wanted, row_index_name="line")
    return frame.select("line", *schema)


def _parquet_blocks(path: Path, schema: Schema, dataset: str) -> Iterator[pl.DataFrame]:
    rows = scan_table(path, schema, dataset=dataset).drop("line")
    for frame in rows.collect_batches(chunk_size=ROWS_A_BLOCK):
        yield frame.with_row_index("line")
