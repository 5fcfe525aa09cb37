"""What a night came to, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from validation.reasons import EXPLANATIONS, Reason

MOST_REASONS = 12


def _explain(code: str) -> str:
    try:
        return EXPLANATIONS[Reason(code)]
    except (ValueError, KeyError):
        return ""


def _counts(title: str, rows: Iterable[tuple[str, int, str]]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True, min_width=34)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    for name, n, note in rows:
        table.add_row(name, f"{n:,}", note)
    return table


def _by_reason(counts: dict[str, int]) -> list[tuple[str, int, str]]:
    rows = [(f"  {code}", n, _explain(code)) for code, n in list(counts.items())[:MOST_REASONS]]
    rest = list(counts.values())[MOST_REASONS:]
    return (
        [*rows, (f"  {len(rest)} other reasons", sum(rest), "`nightingale quarantine list`")]
        if rest
        else rows
    )


def night_tables(summary: dict[str, Any]) -> RenderableType:
    """Return a night's summary (:func:`deploy.night.accounts.summarise`) as tables: counts only."""
    counts, write = summary["counts"], summary["write_back"]
    encounters = [
        ("eligible", counts["eligible"], _eligible(summary["replay"])),
        ("scored", counts["scored"], ""),
        ("skipped", counts["skipped"], ""),
        *_by_reason(summary["skipped_by_reason"]),
    ]
    parts: list[RenderableType] = [_counts("Encounters", encounters)]
    if summary["scores_by_modalities"]:
        rows = [(name, n, "") for name, n in summary["scores_by_modalities"].items()]
        parts.append(_counts("Scores by modalities present", rows))
    written = [
        ("confirmed", counts["confirmed"], "at the destination, checked after writing"),
        ("  of these written now", write.get("written", 0), ""),
        ("  of these there already, unchanged", write.get("unchanged", 0), ""),
        ("dead-lettered", counts["dead_lettered"], ""),
    ]
    parts.append(_counts("RiskAssessments", written))
    refused = summary["quarantined_rows_by_reason"]
    total = [("rows refused", sum(refused.values()), "each with file, line and reason")]
    parts.append(_counts("Quarantine", [*total, *_by_reason(refused)]))
    parts.append(_equations(summary["equations"]))
    parts.append(Text(f"Gate: {summary['gate'].get('decision', 'not reached')}", style="bold"))
    return Group(*(item for part in parts for item in (part, Text(""))))


def _eligible(replay: str | None) -> str:
    return f"ICU stays, asked at {replay}" if replay else "ICU stays open at the prediction time"


def _equations(equations: list[dict[str, Any]]) -> Table:
    table = Table(title="Equations", title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for item in equations:
        mark = Text("holds", style="green") if item["holds"] else Text("BROKEN", style="bold red")
        table.add_row(mark, item["text"])
    return table
