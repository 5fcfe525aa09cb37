"""The columnar path: a block of Observation lines to rows with polars, the odd ones left to the exact path.

A row is taken here only if every element that the exact path would look at is of its common shape;
otherwise its line is handed on. So the two paths agree (tests/unit/fhir_adapter/test_paths_agree.py), and
only ordinary lines are fast. Three things keep the agreement simple:

* Lines with a backslash, or with many brackets, are handed on before polars sees them: escapes and nesting
  are where JSON readers differ.
* ``code`` and ``valueCodeableConcept`` repeat from line to line; their distinct texts are read by the exact
  path's own functions and joined back.
* polars refuses a whole block for one bad line; such a block is halved until the bad line stands alone.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import polars as pl

from fhir_adapter.errors import Refusal
from fhir_adapter.ndjson import Block, has_many_brackets
from fhir_adapter.observations import exact
from fhir_adapter.references import element_reference
from fhir_adapter.times import utc_expression
from validation.contracts import empty

SMALL_PIECE = 32
"""Lines below which a refused block goes to the exact path as a whole."""

_QUANTITY = pl.Struct(
    {"value": pl.Float64, "comparator": pl.String, "unit": pl.String, "system": pl.String, "code": pl.String}
)
TEXTS = (
    "resourceType",
    "id",
    "status",
    "code",
    "subject",
    "encounter",
    "effectiveDateTime",
    "issued",
    "component",
    "effectiveInstant",
    "effectivePeriod",
    "effectiveTiming",
    *exact.VALUE_TYPES[1:],
    *exact.REFUSED_TYPES,
    "dataAbsentReason",
    "modifierExtension",
    "implicitRules",
)
SCHEMA: dict[str, Any] = {
    **dict.fromkeys(TEXTS, pl.String),
    "meta": pl.Struct({"versionId": pl.String, "lastUpdated": pl.String}),
    "valueQuantity": _QUANTITY,
}
"""Elements that are looked at; anything else is passed over. polars gives objects as JSON text, which is
cheaper than structs where texts repeat."""
CACHED_TEXTS = 20_000
"""Distinct texts of references, codes and panels whose reading is remembered from block to block."""
TAKEN_VALUES = ("valueQuantity", "valueCodeableConcept", "valueString")
_SCHEMA: dict[str, Any] = dict(empty("observations").drop("source_file").schema)
_PART: dict[str, Any] = {
    "number": pl.UInt16,
    **{
        name: _SCHEMA[name]
        for name in ("codings", "value", "text_value", "comparator", "unit_system", "unit_code", "unit_text")
    },
}
_Part = tuple[int, tuple[str, ...], float | None, str | None, str | None, str | None, str | None, str | None]


@dataclass
class Columns:
    """What the columnar path took from a block, and what it left.

    Attributes
    ----------
    rows
        Observation rows without ``source_file``.
    index
        ``source_line, id, version, updated`` of the lines taken.
    left
        Numbers of the lines that the exact path must read.
    whole
        Whether polars read the block as it stood, and so saw a resource on every line.
    """

    rows: pl.DataFrame
    index: pl.DataFrame
    left: list[int] = field(default_factory=list)
    whole: bool = False


INDEX_SCHEMA: dict[str, Any] = {
    "source_line": pl.UInt32,
    "id": pl.String,
    "version": pl.String,
    "updated": pl.String,
}


def read_columns(block: Block, *, subjects: dict[str, int]) -> Columns:
    """Read the ordinary lines of a block.

    Parameters
    ----------
    subjects
        FHIR id of a patient to subject_id.
    """
    if b"\\" not in block.data:
        whole = _parse(block.data, block.n_lines, range(block.first, block.first + block.n_lines))
        if whole is not None:
            return replace(_take(whole, subjects), whole=True)
    numbered = block.numbered
    left = [number for number, line in numbered if b"\\" in line or has_many_brackets(line)]
    odd = set(left)
    ordinary = [item for item in numbered if item[0] not in odd] if left else numbered
    rows: list[pl.DataFrame] = []
    index: list[pl.DataFrame] = []
    pending = [ordinary] if ordinary else []
    while pending:
        piece = pending.pop()
        numbers = [number for number, _ in piece]
        frame = _parse(b"\n".join(line for _, line in piece), len(piece), numbers)
        if frame is None:
            if len(piece) <= SMALL_PIECE:
                left.extend(numbers)
            else:
                half = len(piece) // 2
                pending += [piece[half:], piece[:half]]
            continue
        taken = _take(frame, subjects)
        rows.append(taken.rows)
        index.append(taken.index)
        left.extend(taken.left)
    return Columns(
        rows=pl.concat(rows) if rows else pl.DataFrame(schema=_SCHEMA),
        index=pl.concat(index) if index else pl.DataFrame(schema=INDEX_SCHEMA),
        left=sorted(left),
    )


def _parse(data: bytes, n_lines: int, numbers: Sequence[int]) -> pl.DataFrame | None:
    """Return the lines' elements, or None if polars refuses the piece or sees other lines than we do."""
    try:
        frame = pl.read_ndjson(io.BytesIO(data), schema=SCHEMA)
    except pl.exceptions.PolarsError:
        return None
    if frame.height != n_lines:
        return None
    if isinstance(numbers, range):
        lines = pl.int_range(numbers.start, numbers.stop, dtype=pl.UInt32, eager=True)
    else:
        lines = pl.Series(numbers, dtype=pl.UInt32)
    return frame.with_columns(lines.alias("source_line"))


def _take(frame: pl.DataFrame, subjects: dict[str, int]) -> Columns:
    quantity = pl.col("valueQuantity").struct
    lazy = frame.lazy()
    for name, target, kind, read in (
        ("subject", "subject_id", pl.Int64, lambda text: _subject(text, subjects)),
        ("encounter", "encounter_id", pl.String, _encounter),
        ("code", "codings", pl.List(pl.String), _codings),
        ("valueCodeableConcept", "concept", pl.String, _concept),
    ):
        table = _by_text(frame.get_column(name), target, kind, read)
        if table is None:
            lazy = lazy.with_columns(pl.lit(None, dtype=kind).alias(target))
        else:
            lazy = lazy.join(table.lazy(), on=name, how="left", maintain_order="left")
    never = [
        "effectiveInstant",
        "effectivePeriod",
        "effectiveTiming",
        "dataAbsentReason",
        "modifierExtension",
        "implicitRules",
        *(name for name in exact.VALUE_TYPES if name not in TAKEN_VALUES),
        *exact.REFUSED_TYPES,
    ]
    absent = [name for name in never if frame.get_column(name).null_count() == frame.height]
    common = pl.all_horizontal(
        pl.col("resourceType") == "Observation",
        pl.col("id").str.len_bytes().is_between(1, 64),
        ~pl.col("id").str.contains(r"[^A-Za-z0-9\-.]"),
        pl.col("status").is_in(sorted(exact.ACCEPTED_STATUS)),
        pl.col("subject_id").is_not_null(),
        pl.col("time").is_not_null(),
        pl.col("issued").is_null() | pl.col("available_time").is_not_null(),
        *(pl.col(name).is_null() for name in never if name not in absent),
    )
    given = pl.sum_horizontal(pl.col(name).is_not_null() for name in TAKEN_VALUES)
    plain_text = pl.col("valueString").str.contains(r"^[^\[{]*[^\s\[{]")
    good_value = (
        pl.when(pl.col("valueQuantity").is_not_null())
        .then(
            quantity.field("value").is_finite()
            & (
                quantity.field("comparator").is_null()
                | quantity.field("comparator").is_in(sorted(exact.COMPARATORS))
            )
        )
        .otherwise(pl.col("concept").is_not_null() | plain_text)
    )
    done = (
        lazy.with_columns(
            _utc(frame, "effectiveDateTime").alias("time"),
            _utc(frame, "issued").alias("available_time"),
        )
        .select(
            "source_line",
            "subject_id",
            "encounter_id",
            "time",
            "available_time",
            "codings",
            quantity.field("value").alias("value"),
            pl.coalesce("concept", pl.col("valueString").str.slice(0, exact.MAX_TEXT)).alias("text_value"),
            quantity.field("comparator").alias("comparator"),
            *(
                pl.when(quantity.field(name) != "").then(quantity.field(name)).alias(target)
                for name, target in (("system", "unit_system"), ("code", "unit_code"), ("unit", "unit_text"))
            ),
            "status",
            "id",
            "meta",
            "component",
            common.fill_null(value=False).alias("common"),
            (
                pl.col("codings").is_not_null()
                & (given == 1)
                & pl.col("component").is_null()
                & _plain_units(frame)
                & good_value
            )
            .fill_null(value=False)
            .alias("single"),
            ((given == 0) & pl.col("component").is_not_null()).alias("panel"),
        )
        .collect()
    )
    singles = done.filter(pl.col("common") & pl.col("single"))
    rows = [_finish(singles, component=pl.lit(0, dtype=pl.UInt16))]
    taken = singles
    if done.get_column("panel").any():
        panels = _panels(done.filter(pl.col("common") & pl.col("panel")))
        rows.append(_finish(panels, component=pl.col("number")))
        whole = done.filter(pl.col("source_line").is_in(panels.get_column("source_line").unique().implode()))
        taken = pl.concat([singles, whole])
    left: list[int] = []
    if taken.height < done.height:
        missing = ~pl.col("source_line").is_in(taken.get_column("source_line").implode())
        left = done.filter(missing).get_column("source_line").to_list()
    index = taken.select(
        "source_line",
        "id",
        pl.col("meta").struct.field("versionId").alias("version"),
        pl.col("meta").struct.field("lastUpdated").alias("updated"),
    )
    return Columns(rows=pl.concat(rows), index=index, left=left)


def _finish(frame: pl.DataFrame, *, component: pl.Expr) -> pl.DataFrame:
    return frame.select(
        pl.concat_str(pl.lit("Observation/"), "id").alias(name)
        if name == "source_ref"
        else component.alias(name)
        if name == "component"
        else pl.col(name)
        for name in _SCHEMA
    )


def _panels(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of panels whose every component is of common shape, read as the exact path does."""
    lines: list[int] = []
    parts: list[_Part] = []
    for line, text in frame.select("source_line", "component").iter_rows():
        found = _components(text)
        if found:
            lines += [line] * len(found)
            parts += found
    columns = list(zip(*parts, strict=True)) if parts else [()] * len(_PART)
    known = list(dict.fromkeys(columns[1]))  # few codes, many rows: lists are made once
    place = {key: at for at, key in enumerate(known)}
    codings = pl.Series("codings", [list(key) for key in known], dtype=_PART["codings"])
    made = pl.DataFrame(
        [
            codings.gather([place[key] for key in columns[1]])
            if name == "codings"
            else pl.Series(name, column, dtype=kind)
            for (name, kind), column in zip(_PART.items(), columns, strict=True)
        ]
    )
    shared = frame.drop([name for name in _PART if name in frame.columns])
    return made.with_columns(pl.Series("source_line", lines, dtype=pl.UInt32)).join(
        shared, on="source_line", how="left", maintain_order="left"
    )


@lru_cache(maxsize=CACHED_TEXTS)
def _components(text: str) -> list[_Part] | None:
    """Return what every component says, or None if one of them needs the exact path."""
    items = _object(text)
    if not isinstance(items, list):
        return None
    parts: list[_Part] = []
    for number, item in enumerate(items, start=1):
        try:
            codings, value = exact.read_component(item)
        except Refusal:
            return None
        parts.append(
            (
                number,
                tuple(codings),
                *value,
            )
        )
    return parts


def _plain_units(frame: pl.DataFrame) -> pl.Expr:
    """Tell which rows' units were strings: polars shows objects and arrays as JSON text."""
    plain = pl.lit(True)
    for name in ("system", "code", "unit"):
        column = pl.col("valueQuantity").struct.field(name)
        distinct = frame.select(column.unique()).to_series().drop_nulls().to_list()
        odd = [text for text in distinct if text[:1] in "[{" and isinstance(_object(text), (dict, list))]
        if odd:
            plain = plain & ~column.is_in(odd).fill_null(value=False)
    return plain


def _utc(frame: pl.DataFrame, name: str) -> pl.Expr:
    """Return the moment of a time column; one without any time costs nothing."""
    if frame.get_column(name).null_count() == frame.height:
        return pl.lit(None, dtype=pl.Datetime("us", "UTC"))
    return utc_expression(pl.col(name), zulu=bool(frame.get_column(name).str.ends_with("Z").any()))


def _by_text(column: pl.Series, target: str, kind: Any, read: Callable[[str], Any]) -> pl.DataFrame | None:
    """Read the distinct texts of a column; return a table to join, or None where there is no text."""
    distinct = column.unique().drop_nulls().to_list()
    if not distinct:
        return None
    return pl.DataFrame(
        {column.name: distinct, target: [read(text) for text in distinct]},
        schema={column.name: pl.String, target: kind},
    )


@lru_cache(maxsize=CACHED_TEXTS)
def _codings(text: str) -> list[str] | None:
    return exact.codings(_object(text)) or None


@lru_cache(maxsize=CACHED_TEXTS)
def _patient(text: str) -> str:
    return element_reference(_object(text), "Patient") or ""


def _subject(text: str, subjects: dict[str, int]) -> int | None:
    return subjects.get(_patient(text))


@lru_cache(maxsize=CACHED_TEXTS)
def _encounter(text: str) -> str | None:
    return element_reference(_object(text), "Encounter")


def _concept(text: str) -> str | None:
    try:
        return exact.read_concept(_object(text)).text
    except Refusal:  # refused with its reason by the exact path
        return None


def _object(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
