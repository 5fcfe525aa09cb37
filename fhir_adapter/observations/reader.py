"""One block of Observation lines through both paths."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from fhir_adapter.errors import Refusal, unforeseen_refused
from fhir_adapter.ndjson import Block, parse_line
from fhir_adapter.observations.columnar import read_columns
from fhir_adapter.observations.exact import explain_refusal, read_observation, source_ref
from fhir_adapter.quarantine import QuarantineLog
from fhir_adapter.references import scalar_text
from fhir_adapter.versions import ENTRIES
from validation.contracts import empty


@dataclass
class BlockReading:
    """What a block of lines gave.

    Attributes
    ----------
    observations
        Rows of the contract.
    entries
        One row a line with a FHIR id, for :class:`fhir_adapter.versions.VersionIndex`.
    waveforms
        Lines that hold SampledData: ``(line number, resource)``.
    pulled
        Non-empty lines of the block.
    exact_lines
        How many lines took the exact path.
    """

    observations: pl.DataFrame
    entries: pl.DataFrame
    waveforms: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    pulled: int = 0
    exact_lines: int = 0


def version_entry(resource: dict[str, Any], line: int, *, refused: bool) -> dict[str, Any] | None:
    """Return a row for the version index, or None without an id."""
    key = scalar_text(resource.get("id"))
    if not key:
        return None
    found = resource.get("meta")
    meta = found if isinstance(found, dict) else {}
    return {
        "source_line": line,
        "id": key,
        "version": scalar_text(meta.get("versionId")),
        "updated": scalar_text(meta.get("lastUpdated")),
        "refused": refused,
    }


def has_sampled_data(resource: dict[str, Any]) -> bool:
    """Tell whether an Observation carries a waveform."""
    components = resource.get("component")
    return resource.get("valueSampledData") is not None or any(
        isinstance(part, dict) and part.get("valueSampledData") is not None
        for part in (components if isinstance(components, list) else [])
    )


def read_block(
    block: Block,
    *,
    file: str,
    subjects: dict[str, int],
    default_zone: ZoneInfo | None,
    quarantine: QuarantineLog,
    columnar: bool = True,
) -> BlockReading:
    """Read a block: ordinary lines by columns, the rest one by one, refusals into the quarantine log.

    Parameters
    ----------
    columnar
        False sends every line through the exact path (for the test that both agree).
    """
    schema = empty("observations").schema
    frames: list[pl.DataFrame] = []
    entry_frames: list[pl.DataFrame] = []
    if columnar:
        columns = read_columns(block, subjects=subjects)
        left = columns.left
        pulled = block.n_lines if columns.whole else len(block.numbered)
        frames.append(columns.rows.with_columns(pl.lit(file).alias("source_file")).select(list(schema)))
        entry_frames.append(columns.index.with_columns(pl.lit(False).alias("refused")).select(list(ENTRIES)))
    else:
        left = block.numbers
        pulled = len(left)
    reading = BlockReading(
        pl.DataFrame(), pl.DataFrame(), pulled=pulled + len(block.too_long), exact_lines=len(left)
    )
    rows: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []
    lines = dict(block.numbered) if left else {}
    for number in left:
        resource: dict[str, Any] = {}
        refused = False
        try:
            resource = parse_line(lines[number])
            if has_sampled_data(resource):
                reading.waveforms.append((number, resource))
                continue
            with unforeseen_refused():
                found = read_observation(resource, subjects=subjects, default_zone=default_zone)
            rows += [row | {"source_file": file, "source_line": number} for row in found.rows]
            for component, refusal in found.refused:
                quarantine.add(
                    refusal,
                    file=file,
                    line=number,
                    ref=source_ref(resource),
                    component=component,
                    whole=False,
                )
        except Refusal as refusal:
            refused = True
            told = explain_refusal(refusal, resource) if resource else refusal
            quarantine.add(told, file=file, line=number, ref=source_ref(resource))
        entry = version_entry(resource, number, refused=refused)
        if entry:
            entries.append(entry)
    frames.append(pl.DataFrame(rows, schema=schema))
    entry_frames.append(pl.DataFrame(entries, schema=ENTRIES))
    reading.observations = pl.concat(frames)
    reading.entries = pl.concat(entry_frames)
    return reading
