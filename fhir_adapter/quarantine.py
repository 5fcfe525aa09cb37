"""Quarantine rows of the reading side: where a resource stands and why it was refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from fhir_adapter.errors import Refusal
from validation.contracts import empty


@dataclass(kw_only=True)
class QuarantineLog:
    """Collects refusals of one part.

    Attributes
    ----------
    stage
        Name of the stage for every row.
    rows
        One dict a row of the quarantine table.
    """

    stage: str
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self,
        refusal: Refusal,
        *,
        file: str,
        line: int | None,
        ref: str | None = None,
        component: int | None = None,
        whole: bool = True,
    ) -> None:
        """Add one refusal."""
        self.rows.append(
            {
                "stage": self.stage,
                "reason": str(refusal.reason),
                "source_file": file,
                "source_line": line,
                "source_ref": ref,
                "component": component,
                "feature": None,
                "detail": refusal.detail,
                "whole": whole,
            }
        )

    def extend(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add rows that are complete already."""
        self.rows.extend(rows)

    def frame(self) -> pl.DataFrame:
        """Return the quarantine table."""
        return pl.DataFrame(self.rows, schema=empty("quarantine").schema)
