"""The list of scores by encounter: patient data, made only where a site asks for it, and kept apart."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from validation.report.facts import DISCLAIMER, with_explanations
from validation.report.page import templates

PAGE = "patients.html"


def render_patients(
    scores: pl.DataFrame,
    skipped: pl.DataFrame,
    *,
    site: str,
    partition: str,
    data_notes: Sequence[str] = (),
) -> str:
    """Return the scores of a night as one HTML document, highest first, and who was not scored and why.

    One encounter a line, so that a forgotten patient's lines can be taken out.

    Parameters
    ----------
    scores, skipped
        Tables of those contracts.
    """
    scored = scores.select(
        "encounter_id",
        "risk_level",
        "lower",
        "upper",
        pl.coalesce("probability", "value").alias("score"),
        pl.col("modalities_present").list.sort().list.join(" + ").alias("present"),
        pl.col("modalities_missing").list.sort().list.join(", ").alias("missing"),
    ).sort("score", "encounter_id", descending=[True, False], nulls_last=True)
    return (
        templates()
        .get_template("patients.html.j2")
        .render(
            scored=scored.to_dicts(),
            skipped=with_explanations(
                skipped.select("encounter_id", "reason").sort("encounter_id")
            ).to_dicts(),
            site=site,
            partition=partition,
            data_notes=data_notes,
            disclaimer=DISCLAIMER,
        )
    )


def write_patients(run_folder: Path, page: str | None) -> Path | None:
    """Write ``report/patients.html``, readable by its owner alone; without a page, remove an earlier one.

    Returns
    -------
    Path or None
        The page, if there is one.
    """
    target = run_folder / "report" / PAGE
    if page is None:
        target.unlink(missing_ok=True)
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{PAGE}.{os.getpid()}.tmp")
    temporary.touch(mode=0o600)
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(target)
    return target
