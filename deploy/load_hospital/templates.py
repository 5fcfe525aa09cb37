"""From a FHIR resource with marks in it to one NDJSON line a row of a frame, without a loop over rows."""

from __future__ import annotations

import re

import polars as pl

from deploy.demo_hospital.faults import dump
from deploy.demo_hospital.resources import Resource

_MARK = re.compile(r'"«(\w+)!»"|«(\w+)»')


def mark(column: str) -> str:
    """Return the mark of a text column, which may stand inside a longer string."""
    return f"«{column}»"


def raw(column: str) -> str:
    """Return the mark of a column whose text is JSON already: a number, an object, a list."""
    return f"«{column}!»"


def lines(frame: pl.DataFrame, resource: Resource) -> pl.Series:
    """Write one line a row: marks are replaced by the row's text.

    Parameters
    ----------
    frame
        String columns by the names of the marks; their text needs no escaping in JSON.
    resource
        The resource, as the demo hospital builds it.

    Examples
    --------
    >>> frame = pl.DataFrame({"who": ["a", "b"], "value": ["1", "2.5"]})
    >>> lines(frame, {"id": f"x-{mark('who')}", "value": raw("value")}).to_list()
    ['{"id":"x-a","value":1}', '{"id":"x-b","value":2.5}']
    """
    pieces: list[pl.Expr] = []
    text, end = dump(resource), 0
    for found in _MARK.finditer(text):
        pieces += [pl.lit(text[end : found.start()]), pl.col(found[1] or found[2])]
        end = found.end()
    return frame.select(pl.concat_str([*pieces, pl.lit(text[end:])]).alias("line"))["line"]
