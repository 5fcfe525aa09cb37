"""Performance of each model over time and over groups; aggregates only, small groups by size alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from modelling.evaluation.calibration import reliability
from modelling.evaluation.evaluate import SMALLEST_GROUP
from modelling.evaluation.metrics import classification_metrics
from modelling.evaluation.subgroups import group_rows
from validation.drift import population_stability

METRICS = (
    "auroc",
    "auprc_average_precision",
    "brier",
    "calibration_slope",
    "calibration_in_the_large",
    "expected_calibration_error",
)
HIGH = "high"
FEWEST_FOR_STABILITY = 20


@dataclass(frozen=True, kw_only=True)
class Window:
    """One model in one window of prediction times.

    Attributes
    ----------
    role, digest, name
        ``champion`` or ``shadow``; which model.
    start, end
        ISO instants; the window holds ``start <= prediction time < end``.
    scored, known, events
        Scores, those whose outcome is known, and those with the event; ``events`` is None where so few are
        known that it could point to a person.
    alert_rate
        Share of scores with level high.
    mean_probability
        Over all scores.
    stability
        Population stability index of the probabilities against the model's first window; None in the first.
    metrics
        Name to interval; None where one class is missing or too few outcomes are known.
    subgroups
        ``subgroup``, ``level``, ``known``, ``events``, ``auroc``.
    reliability
        ``predicted``, ``observed``, ``count`` of bins of similar predictions.
    """

    role: str
    digest: str
    name: str
    start: str
    end: str
    scored: int
    known: int
    events: int | None
    alert_rate: float
    mean_probability: float
    stability: float | None
    metrics: dict[str, Any] | None
    subgroups: list[dict[str, Any]] = field(default_factory=list)
    reliability: dict[str, list[float]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)


def measure_windows(
    labelled: pl.DataFrame, *, length: timedelta, resamples: int = 500, seed: int = 0
) -> list[Window]:
    """Measure every model in every window.

    Parameters
    ----------
    labelled
        From :func:`modelling.monitoring.outcomes.label_scores`.
    length
        Of a window; windows are counted from the Unix epoch, so that they stay where they are as scores come.

    Returns
    -------
    list of Window
        By role, model and time.
    """
    windows: list[Window] = []
    for (role, digest), rows in labelled.group_by("role", "model_digest", maintain_order=True):
        first: np.ndarray[Any, Any] | None = None
        for start, part in _cut(rows, length):
            values = part["probability"].drop_nulls().to_numpy()
            stability = None
            if first is not None and min(values.size, first.size) >= FEWEST_FOR_STABILITY:
                stability = round(population_stability(values, first), 4)
            first = values if first is None else first
            windows.append(
                _window(str(role), str(digest), part, start, start + length, stability, resamples, seed)
            )
    return sorted(windows, key=lambda item: (item.role, item.digest, item.start))


def _cut(rows: pl.DataFrame, length: timedelta) -> list[tuple[datetime, pl.DataFrame]]:
    placed = rows.with_columns(
        pl.col("prediction_time").dt.truncate(f"{int(length.total_seconds())}s").alias("window")
    ).sort("window", "prediction_time", "encounter_id")
    return [(start, part) for (start,), part in placed.group_by("window", maintain_order=True)]


def _window(
    role: str,
    digest: str,
    rows: pl.DataFrame,
    start: datetime,
    end: datetime,
    stability: float | None,
    resamples: int,
    seed: int,
) -> Window:
    known = rows.drop_nulls(["label", "probability"])
    y = known["label"].cast(pl.Int64).to_numpy()
    p = known["probability"].to_numpy()
    metrics, bins, groups = None, None, []
    enough = known.height >= SMALLEST_GROUP
    if enough and 0 < y.sum() < len(y):
        found = classification_metrics(
            y, p, resamples=resamples, seed=seed, clusters=known["subject_id"].to_numpy()
        )
        metrics = {name: found[name].to_dict() for name in METRICS}
        grouped = reliability(y, p, bins=min(10, max(2, known.height // SMALLEST_GROUP)))
        bins = {name: getattr(grouped, name).tolist() for name in ("predicted", "observed", "count")}
        groups = [
            _group(name, level, known.filter(mask), resamples, seed)
            for name, level, mask in group_rows(known)
        ]
    return Window(
        role=role,
        digest=digest,
        name=str(rows["model_name"][0]),
        start=start.isoformat(),
        end=end.isoformat(),
        scored=rows.height,
        known=known.height,
        events=int(y.sum()) if enough else None,
        alert_rate=round(int((rows["risk_level"] == HIGH).sum()) / rows.height, 6),
        mean_probability=round(float(str(rows["probability"].mean() or 0.0)), 6),
        stability=stability,
        metrics=metrics,
        subgroups=groups,
        reliability=bins,
    )


def _group(name: str, level: str, rows: pl.DataFrame, resamples: int, seed: int) -> dict[str, Any]:
    y = rows["label"].cast(pl.Int64).to_numpy()
    shown: dict[str, Any] = {"subgroup": name, "level": level, "known": rows.height}
    if rows.height < SMALLEST_GROUP:
        return {**shown, "events": None, "auroc": None}
    if not 0 < y.sum() < len(y):
        return {**shown, "events": int(y.sum()), "auroc": None}
    found = classification_metrics(
        y,
        rows["probability"].to_numpy(),
        resamples=resamples,
        seed=seed,
        clusters=rows["subject_id"].to_numpy(),
        calibration=False,
    )
    return {**shown, "events": int(y.sum()), "auroc": found["auroc"].to_dict()}
