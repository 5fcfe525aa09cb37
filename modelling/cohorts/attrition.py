"""What is left of a cohort after each rule."""

from __future__ import annotations

import polars as pl


class Attrition:
    """Counts stays, patients and samples after each rule."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, int, int, int]] = []

    def note(self, step: str, frame: pl.DataFrame) -> pl.DataFrame:
        """Record a step; ``frame`` has one row a stay or, later, one row a sample. Return the frame."""
        stays, patients = frame["encounter_id"].n_unique(), frame["subject_id"].n_unique()
        self._rows.append((step, stays, patients, frame.height))
        return frame

    def frame(self) -> pl.DataFrame:
        """Return ``step``, ``stays``, ``patients``, ``samples``."""
        schema = {"step": pl.String, "stays": pl.Int64, "patients": pl.Int64, "samples": pl.Int64}
        return pl.DataFrame(self._rows, schema=schema, orient="row")
