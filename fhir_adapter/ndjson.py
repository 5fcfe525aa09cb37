"""NDJSON files, plain or gzipped, in bounded pieces with exact line numbers.

A line longer than the limit is skipped while it is read, so that it never lies in memory; a broken gzip
stream fails the file, because a shorter table must not look like a complete one.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NoReturn, Self, cast

from fhir_adapter.errors import Refusal, SourceError
from validation.reasons import Reason

BLOCK_BYTES = 8_000_000
MAX_LINE_BYTES = 8_000_000
MAX_DEPTH = 512
FEW_BRACKETS = 512
"""A line with no more opening brackets than this needs no measuring: parsers take that depth."""


@dataclass(frozen=True)
class Block:
    """Consecutive lines of a file.

    Attributes
    ----------
    data
        The lines as they stand in the file, without those over the limit.
    first
        1-based number of the first line of ``data``.
    n_lines
        Lines in ``data``, blank ones included.
    too_long
        Numbers of the lines over the limit.
    """

    data: bytes
    first: int
    n_lines: int
    too_long: tuple[int, ...] = ()

    @cached_property
    def numbered(self) -> list[tuple[int, bytes]]:
        """Non-empty lines with their numbers."""
        pieces = self.data.split(b"\n")
        return [
            (number, line)
            for number, line in enumerate(pieces[: self.n_lines], start=self.first)
            if line and not line.isspace()
        ]

    @property
    def lines(self) -> list[bytes]:
        """Non-empty lines."""
        return [line for _, line in self.numbered]

    @property
    def numbers(self) -> list[int]:
        """Line numbers of :attr:`lines`."""
        return [number for number, _ in self.numbered]

    @classmethod
    def of(cls, lines: list[bytes], first: int = 1) -> Self:
        """Build a block from lines."""
        return cls(b"\n".join(lines), first, len(lines))


def open_binary(path: Path) -> IO[bytes]:
    """Open a file for reading, through gzip where its first bytes say so."""
    with path.open("rb") as file:
        magic = file.read(2)
    if magic == b"\x1f\x8b":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return path.open("rb")


def read_blocks(
    path: Path, *, block_bytes: int = BLOCK_BYTES, max_line_bytes: int = MAX_LINE_BYTES
) -> Iterator[Block]:
    """Yield the file's lines in blocks of about ``block_bytes``.

    Raises
    ------
    SourceError
        If the file cannot be read to its end.
    """
    rest = b""
    next_line = 1
    skipping = False
    try:
        with open_binary(path) as file:
            while data := file.read(block_bytes):
                too_long: tuple[int, ...] = ()
                if skipping:
                    end = data.find(b"\n")
                    if end < 0:
                        continue
                    data, skipping = data[end + 1 :], False
                    next_line += 1
                whole, end_of_line, tail = data.rpartition(b"\n")
                if not end_of_line:
                    rest += tail
                else:
                    ready, rest = rest + whole, tail
                    n_lines = ready.count(b"\n") + 1
                    ready, too_long = _without_long(ready, next_line, max_line_bytes)
                    yield Block(ready, next_line, n_lines, too_long)
                    next_line += n_lines
                if len(rest) > max_line_bytes:
                    yield Block(b"", next_line, 0, (next_line,))
                    rest, skipping = b"", True
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path.name} cannot be read to its end ({type(error).__name__})") from None
    if rest:
        yield Block(rest, next_line, 1)


def _without_long(data: bytes, first: int, limit: int) -> tuple[bytes, tuple[int, ...]]:
    """Blank the lines over the limit, so that the others keep their numbers."""
    if len(data) <= limit:
        return data, ()
    lines = data.split(b"\n")
    long = tuple(number for number, line in enumerate(lines, start=first) if len(line) > limit)
    if not long:
        return data, ()
    return b"\n".join(b"" if len(line) > limit else line for line in lines), long


def parse_line(line: bytes) -> dict[str, Any]:
    """Parse one line as a JSON object.

    Raises
    ------
    Refusal
        ``json.unreadable`` or ``json.too_deep``.
    """
    if has_many_brackets(line) and _depth(line) > MAX_DEPTH:
        raise Refusal(Reason.JSON_TOO_DEEP)
    try:
        value = json.loads(line, parse_constant=_no_constant)
    except RecursionError:
        raise Refusal(Reason.JSON_TOO_DEEP) from None
    except ValueError:
        raise Refusal(Reason.JSON_UNREADABLE) from None
    if not isinstance(value, dict):
        raise Refusal(Reason.JSON_UNREADABLE, "not an object")
    if b"\\u" in line:
        try:  # a lone surrogate is legal JSON escape but no text
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise Refusal(Reason.JSON_UNREADABLE, "lone surrogate") from None
    return value


def has_many_brackets(line: bytes) -> bool:
    """Tell whether a line could be nested too deep."""
    return len(line) > 2 * FEW_BRACKETS and line.count(b"{") + line.count(b"[") > FEW_BRACKETS


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _depth(line: bytes) -> int:
    """Return nesting depth of brackets outside strings, by one pass over them."""
    deepest = level = 0
    for match in re.finditer(rb'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]', line):
        token = match[0]
        if token in b"[{":
            level += 1
            deepest = max(deepest, level)
        elif token in b"]}":
            level -= 1
    return deepest
