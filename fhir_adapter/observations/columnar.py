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
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from fhir_adapter.errors import Refusal
from fhir_adapter.ndjson import Block, has_many_brackets
from fhir_adapter.observations import exact
from fhir_adapter.references import ID_PATTERN, reference_id
from fhir_adapter.times import utc_expression
from validation.contracts import empty

SMALL_PIECE = 32
"""Lines below which a refused block goes to the exact path as a whole."""

_QUANTITY = pl.Struct(
    {"value": pl.Float64, "comparator": pl.String, "unit": pl.String, "system": pl.String, "code": pl.String}
)
_COMPONENT = pl.Struct(
    {
        "code": pl.String,
        "valueQuantity": _QUANTITY,
        "valueCodeableConcept": pl.String,
        "valueString": pl.String,
        "valueBoolean": pl.String,
        "valueInteger": pl.String,
        "valueDateTime": pl.String,
        "valueTime": pl.String,
        "valueRange": pl.String,
        "valueRatio": pl.String,
        "valuePeriod": pl.String,
        "valueSampledData": pl.String,
        "dataAbsentReason": pl.String,
        "modifierExtension": pl.String,
    }
)
_REFERENCE = pl.Struct({"reference": pl.String})
SCHEMA: dict[str, Any] = {
    "resourceType": pl.String,
    "id": pl.String,
    "meta": pl.Struct({"versionId": pl.String, "lastUpdated": pl.String}),
    "status": pl.String,
    "code": pl.String,
    "subject": _REFERENCE,
    "encounter": _REFERENCE,
    "effectiveDateTime": pl.String,
    "issued": pl.String,
    "valueQuantity": _QUANTITY,
    "component": pl.List(_COMPONENT),
    "valueCodeableConcept": pl.String,
    "valueString": pl.String,
    "effectiveInstant": pl.String,
    "effectivePeriod": pl.String,
    "effectiveTiming": pl.String,
    "valueBoolean": pl.String,
    "valueInteger": pl.String,
    "valueDateTime": pl.String,
    "valueTime": pl.String,
    "valueRange": pl.String,
    "valueRatio": pl.String,
    "valuePeriod": pl.String,
    "valueSampledData": pl.String,
    "dataAbsentReason": pl.String,
    "modifierExtension": pl.String,
    "implicitRules": pl.String,
}
"""Elements that are looked at; anything else in a resource is passed over."""
TAKEN_VALUES = ("valueQuantity", "valueCodeableConcept", "valueString")
_SCHEMA: dict[str, Any] = dict(empty("observations").drop("source_file").schema)


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
    frame = frame.with_columns(
        pl.col("subject").struct.field("reference").alias("subject_reference"),
        pl.col("encounter").struct.field("reference").alias("encounter_reference"),
        utc_expression(pl.col("effectiveDateTime")).alias("time"),
        utc_expression(pl.col("issued")).alias("available_time"),
    )
    frame = _join_subjects(frame, subjects)
    frame = _join_encounters(frame)
    frame = _join_codes(frame)
    common = (
        (pl.col("resourceType") == "Observation")
        & pl.col("id").str.contains(f"^{ID_PATTERN}$")
        & pl.col("status").is_in(sorted(exact.ACCEPTED_STATUS))
        & pl.col("subject_id").is_not_null()
        & pl.col("time").is_not_null()
        & (pl.col("issued").is_null() | pl.col("available_time").is_not_null())
        & (pl.col("encounter").is_null() | pl.col("encounter_id").is_not_null())
        & pl.all_horizontal(
            pl.col(name).is_null()
            for name in (
                "effectiveInstant",
                "effectivePeriod",
                "effectiveTiming",
                "dataAbsentReason",
                "modifierExtension",
                "implicitRules",
                *(name for name in exact.VALUE_TYPES if name not in TAKEN_VALUES),
                *exact.REFUSED_TYPES,
            )
        )
    ).fill_null(value=False)
    single = (pl.sum_horizontal(pl.col(name).is_not_null() for name in TAKEN_VALUES) == 1) & pl.col(
        "component"
    ).is_null()
    panel = pl.all_horizontal(pl.col(name).is_null() for name in TAKEN_VALUES) & (
        pl.col("component").list.len() > 0
    )
    frame = frame.with_columns(
        (common & single).alias("single"), (common & panel.fill_null(value=False)).alias("panel")
    )

    rows: list[pl.DataFrame] = []
    values = _with_values(frame.filter("single").with_columns(quantity.field("value").alias("value")))
    rows.append(_finish(values.filter("good"), component=0))
    taken = [values.filter("good").get_column("source_line")]
    if frame.get_column("panel").any():
        panels = _panels(frame.filter("panel"))
        rows.append(panels)
        taken.append(panels.get_column("source_line").unique())
    done = pl.concat(taken)
    rest = frame.filter(~pl.col("source_line").is_in(done.implode()))
    left = rest.get_column("source_line").to_list()
    kept = frame.filter(pl.col("source_line").is_in(done.implode())) if left else frame
    index = kept.select(
        "source_line",
        "id",
        pl.col("meta").struct.field("versionId").alias("version"),
        pl.col("meta").struct.field("lastUpdated").alias("updated"),
    )
    return Columns(rows=pl.concat(rows).select(list(_SCHEMA)), index=index, left=left)


def _with_values(frame: pl.DataFrame) -> pl.DataFrame:
    """Add value, text, comparator and unit columns, and whether they are of common shape."""
    quantity = pl.col("valueQuantity").struct
    frame = _join_concepts(frame)
    given = pl.col("valueQuantity").is_not_null()
    text = pl.col("valueString").str.slice(0, exact.MAX_TEXT)
    return frame.with_columns(
        quantity.field("value").alias("value"),
        pl.coalesce(pl.col("concept"), text).alias("text_value"),
        quantity.field("comparator").alias("comparator"),
        *(
            pl.when(quantity.field(name) != "").then(quantity.field(name)).alias(target)
            for name, target in (("system", "unit_system"), ("code", "unit_code"), ("unit", "unit_text"))
        ),
    ).with_columns(
        (
            pl.col("own").is_not_null()
            & _plain_units(frame)
            & (
                pl.when(given)
                .then(
                    pl.col("value").is_finite()
                    & (pl.col("comparator").is_null() | pl.col("comparator").is_in(sorted(exact.COMPARATORS)))
                )
                .otherwise(
                    pl.col("concept").is_not_null() | pl.col("valueString").str.contains(r"^[^\[{]*[^\s\[{]")
                )
            )
        )
        .fill_null(value=False)
        .alias("good")
    )


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


def _panels(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the component rows of panels whose every component is of common shape."""
    shared = [
        "source_line",
        "subject_id",
        "encounter_id",
        "time",
        "available_time",
        "status",
        "id",
    ]
    parts = (
        frame.select(
            *shared,
            "component",
            pl.int_ranges(1, pl.col("component").list.len() + 1, dtype=pl.UInt16).alias("number"),
        )
        .explode("component", "number")
        .unnest("component")
    )
    parts = _join_codes(parts)
    taken_types = pl.sum_horizontal(pl.col(name).is_not_null() for name in TAKEN_VALUES)
    others = [name for name in _COMPONENT.to_schema() if name not in {"code", *TAKEN_VALUES}]
    parts = _with_values(parts)
    good = pl.col("good") & (taken_types == 1) & pl.all_horizontal(pl.col(name).is_null() for name in others)
    parts = parts.filter(good.all().over("source_line"))
    return _finish(parts, component=None)


def _finish(frame: pl.DataFrame, *, component: int | None) -> pl.DataFrame:
    number = pl.col("number") if component is None else pl.lit(component, dtype=pl.UInt16)
    return frame.select(
        "subject_id",
        "encounter_id",
        "time",
        "available_time",
        pl.col("own").alias("codings"),
        "value",
        "text_value",
        "comparator",
        "unit_system",
        "unit_code",
        "unit_text",
        "status",
        pl.concat_str(pl.lit("Observation/"), "id").alias("source_ref"),
        "source_line",
        number.alias("component"),
    )


def _join_subjects(frame: pl.DataFrame, subjects: dict[str, int]) -> pl.DataFrame:
    distinct = frame.get_column("subject_reference").unique().drop_nulls().to_list()
    ids = [subjects.get(reference_id(text, "Patient") or "") for text in distinct]
    table = pl.DataFrame(
        {"subject_reference": distinct, "subject_id": ids},
        schema={"subject_reference": pl.String, "subject_id": pl.Int64},
    )
    return frame.join(table, on="subject_reference", how="left", maintain_order="left")


def _join_encounters(frame: pl.DataFrame) -> pl.DataFrame:
    distinct = frame.get_column("encounter_reference").unique().drop_nulls().to_list()
    table = pl.DataFrame(
        {
            "encounter_reference": distinct,
            "encounter_id": [reference_id(text, "Encounter") for text in distinct],
        },
        schema={"encounter_reference": pl.String, "encounter_id": pl.String},
    )
    return frame.join(table, on="encounter_reference", how="left", maintain_order="left")


def _join_codes(frame: pl.DataFrame) -> pl.DataFrame:
    """Add ``own``: the list of ``system|code``, null where there is none."""
    distinct = frame.get_column("code").unique().drop_nulls().to_list()
    own = [exact.codings(_object(text)) or None for text in distinct]
    table = pl.DataFrame(
        {"code": distinct, "own": own}, schema={"code": pl.String, "own": pl.List(pl.String)}
    )
    return frame.join(table, on="code", how="left", maintain_order="left")


def _join_concepts(frame: pl.DataFrame) -> pl.DataFrame:
    """Add ``concept``: what a valueCodeableConcept says, null where the exact path must look."""
    distinct = frame.get_column("valueCodeableConcept").unique().drop_nulls().to_list()
    texts: list[str | None] = []
    for text in distinct:
        try:
            texts.append(exact.read_concept(_object(text)).text)
        except Refusal:
            texts.append(None)
    table = pl.DataFrame(
        {"valueCodeableConcept": distinct, "concept": texts},
        schema={"valueCodeableConcept": pl.String, "concept": pl.String},
    )
    return frame.join(table, on="valueCodeableConcept", how="left", maintain_order="left")


def _object(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
