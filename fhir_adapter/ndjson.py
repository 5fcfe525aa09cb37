"""NDJSON files, plain or gzipped, in bounded pieces with exact line numbers.

A line longer than the limit is skipped while it is read, so that it never lies in memory; a broken gzip
stream fails the file, because a shorter table must not look like a complete one.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from fhir_adapter.errors import Refusal, SourceError
from validation.reasons import Reason

BLOCK_BYTES = 8_000_000
MAX_LINE_BYTES = 8_000_000
MAX_DEPTH = 64
FEW_BRACKETS = 200
"""A line with no more opening brackets than this needs no measuring: parsers take that depth."""


@dataclass(frozen=True)
class Block:
    """Consecutive lines of a file.

    Attributes
    ----------
    lines
        Non-empty lines, without line ends.
    numbers
        1-based line number of each.
    too_long
        Line numbers of lines over the limit, which are not in ``lines``.
    """

    lines: list[bytes]
    numbers: list[int]
    too_long: list[int]


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
                too_long: list[int] = []
                if skipping:
                    end = data.find(b"\n")
                    if end < 0:
                        continue
                    data, skipping = data[end + 1 :], False
                    next_line += 1
                pieces = (rest + data).split(b"\n")
                rest = pieces.pop()
                if len(rest) > max_line_bytes:
                    too_long.append(next_line + len(pieces))
                    rest, skipping = b"", True
                block = _block(pieces, next_line, too_long, max_line_bytes)
                next_line += len(pieces)
                yield block
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path.name} cannot be read to its end ({type(error).__name__})") from None
    if rest:
        yield _block([rest], next_line, [], max_line_bytes)


def _block(pieces: list[bytes], first: int, too_long: list[int], limit: int) -> Block:
    lines: list[bytes] = []
    numbers: list[int] = []
    for number, line in enumerate(pieces, start=first):
        if len(line) > limit:
            too_long.append(number)
        elif line and not line.isspace():
            lines.append(line)
            numbers.append(number)
    return Block(lines, numbers, sorted(too_long))


def parse_line(line: bytes) -> dict[str, Any]:
    """Parse one line as a JSON object.

    Raises
    ------
    Refusal
        ``json.unreadable`` or ``json.too_deep``.
    """
    try:
        value = json.loads(line, parse_constant=_no_constant)
    except RecursionError:
        raise Refusal(Reason.JSON_TOO_DEEP) from None
    except ValueError:
        raise Refusal(Reason.JSON_UNREADABLE) from None
    if not isinstance(value, dict):
        raise Refusal(Reason.JSON_UNREADABLE, "not an object")
    if has_many_brackets(line) and _depth(value) > MAX_DEPTH:
        raise Refusal(Reason.JSON_TOO_DEEP)
    if b"\\u" in line:
        try:  # a lone surrogate is legal JSON escape but no text
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise Refusal(Reason.JSON_UNREADABLE, "lone surrogate") from None
    return value


def has_many_brackets(line: bytes) -> bool:
    """Tell whether a line could be nested too deep."""
    return line.count(b"{") + line.count(b"[") > FEW_BRACKETS


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _depth(value: object) -> int:
    """Return nesting depth without recursion."""
    deepest = 0
    stack = [(value, 1)]
    while stack:
        item, level = stack.pop()
        deepest = max(deepest, level)
        if isinstance(item, dict):
            stack.extend((child, level + 1) for child in item.values() if isinstance(child, (dict, list)))
        elif isinstance(item, list):
            stack.extend((child, level + 1) for child in item if isinstance(child, (dict, list)))
    return deepest
