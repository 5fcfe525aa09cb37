"""The accounts of a run: every count the terminal, the report and the equations show, read from its tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from deploy.night.run import Run
from validation.contracts import write_json
from validation.equations import Counts, check_equations
from validation.quarantine import read_quarantine
from validation.reasons import Reason


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object, or an empty one where the step did not get so far."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def _sum(run: Run, pattern: str, field: str) -> int:
    return sum(int(read_json(path).get(field, 0)) for path in run.path.glob(pattern))


def count(run: Run) -> Counts:
    """Count resources, encounters and RiskAssessments of a run from what its steps left on disk."""
    census = read_json(run.path / "census.json")
    other = sum(
        rows
        for path in run.path.glob("validate/*.json")
        for rows in (read_json(path)["recordings"], read_json(path)["images"])
    )
    write = read_json(run.path / "write_back" / "summary.json")
    return Counts(
        pulled=census.get("pulled", 0) + _sum(run, "extract/*/summary.json", "pulled"),
        accepted=census.get("accepted", 0) + other + _sum(run, "map/*.json", "accepted"),
        quarantined=census.get("quarantined", 0)
        + _sum(run, "extract/*/summary.json", "quarantined")
        + _sum(run, "validate/*.json", "quarantined")
        + _sum(run, "map/*.json", "quarantined"),
        eligible=census.get("eligible", 0),
        scored=run.load_all("scores", "scores/*").height,
        skipped=run.load_all("skipped", "skipped/*").height,
        confirmed=write.get("confirmed", 0),
        dead_lettered=write.get("dead_lettered", 0),
    )


def skip_unscored(run: Run, reason: Reason) -> None:
    """Give every sample of a stopped night its reason, so that the second equation still tells the truth."""
    samples = run.load("samples")
    run.save(
        samples.select(
            "subject_id",
            "encounter_id",
            "prediction_time",
            "task",
            pl.lit(str(reason)).alias("reason"),
            pl.lit(None, dtype=pl.String).alias("detail"),
        ),
        "skipped",
        "skipped/stopped",
    )


def unmapped(run: Run) -> pl.DataFrame:
    """Return codings outside the catalogue with their frequency, most frequent first."""
    frames = [pl.read_parquet(path) for path in sorted(run.path.glob("events/*.unmapped.parquet"))]
    if not frames:
        return pl.DataFrame(schema={"coding": pl.String, "n": pl.UInt32})
    return (
        pl.concat(frames)
        .group_by("coding")
        .agg(pl.col("n").sum())
        .sort("n", "coding", descending=[True, False])
    )


def modality_counts(scores: pl.DataFrame) -> dict[str, int]:
    """Return how many scores used each modality, and each combination of them."""
    counts: dict[str, int] = {}
    for present in scores["modalities_present"].to_list():
        name = " + ".join(sorted(present)) or "none"
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def summarise(run: Run, **facts: Any) -> dict[str, Any]:
    """Write and return ``summary.json``: the accounts of the run, aggregates only."""
    counts = count(run)
    quarantine = read_quarantine(run.path, placed=False)
    skipped = run.load_all("skipped", "skipped/*")
    scores = run.load_all("scores", "scores/*")
    by_reason = quarantine.group_by("reason").len("n").sort("n", "reason", descending=[True, False])
    skips = skipped.group_by("reason").len("n").sort("n", "reason", descending=[True, False])
    summary = {
        "partition": run.partition,
        "prediction_time": run.prediction_time,
        "replay": run.replay,
        "counts": counts.to_dict(),
        "equations": [equation.to_dict() for equation in check_equations(counts)],
        "quarantined_rows_by_reason": dict(by_reason.iter_rows()),
        "skipped_by_reason": dict(skips.iter_rows()),
        "scores_by_modalities": modality_counts(scores),
        "gate": read_json(run.path / "gate" / "decision.json"),
        "write_back": read_json(run.path / "write_back" / "summary.json"),
        "report": str(run.path / "report" / "index.html"),
        **facts,
    }
    write_json(summary, run.path / "summary.json")
    return summary
