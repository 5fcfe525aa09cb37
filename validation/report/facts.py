"""What the morning report tells: aggregates only, so that the page can lie on a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl

from validation.equations import Counts, check_equations
from validation.gate.decision import GateDecision
from validation.profiles import Profiles
from validation.reasons import EXPLANATIONS, Reason

DISCLAIMER = (
    "Nightingale's scores support decisions; they do not make them. A score may be wrong, and a missing "
    "score says nothing about a patient. Clinical judgement comes first."
)

SCORE_BINS = 10

_CODE = r"^[A-Za-z][A-Za-z0-9+.:/_\-]{0,160}\|[A-Za-z0-9][A-Za-z0-9._\-]{0,31}$"


@dataclass(frozen=True, kw_only=True)
class ReportFacts:
    """Everything that ``report/index.html`` and ``report/report.json`` show.

    No field may hold a row, a value or an identifier of a patient; frames are aggregates, made by
    :func:`validation.profiles.profile_night` and the functions of this module.

    Attributes
    ----------
    site
        The site's short name.
    partition
        The night (ISO date) or the replay's name.
    prediction_time
        The moment up to which data was used; None for a replay, whose moments differ by stay.
    replay
        Replay clock such as ``icu+48h``; None for a night.
    generated_at
        When the report was made, with zone (passed in, so that tests can fix it).
    counts
        The numbers of the three equations.
    gate
        The gate's decision; None where the night did not get so far.
    profiles
        The night's profile tables; None where the night did not get so far.
    task, model_name, model_version, model_digest, catalogue_digest, site_codes_digest,
    software_version
        What was run; None is shown as "not recorded".
    quarantined
        ``reason``, ``n``: refused rows by reason (:func:`count_reasons`).
    skipped
        ``reason``, ``n``: eligible encounters that were not scored (:func:`count_reasons`).
    modalities
        ``modalities``, ``n``: scores by the combination used (:func:`count_modalities`).
    score_bins
        ``low``, ``high``, ``n``: distribution of the probability (:func:`bin_scores`).
    risk_levels
        ``level``, ``n`` (:func:`count_risk_levels`).
    unmapped
        ``coding``, ``n``: codes outside the catalogue (:func:`keep_presentable_codes`).
    drift
        Result of :func:`validation.drift.compare_night`; None where there is no reference.
    calibration
        ``low``, ``high``, ``n``, ``predicted``, ``observed``: to date, where outcomes are known
        (:func:`validation.calibration.calibrate`); None where none is.
    trends
        ``night``, ``metric``, ``value``: up to 30 nights (:meth:`validation.history.History.trends`).
    write_back
        Further counts of the delivery, such as ``unchanged``.
    data_notes
        Sentences on the data that must not be overlooked, such as "synthetic" or "ECG and X-ray pairing
        is artificial".
    data_docs
        Path of the Data Docs relative to the report's folder; None hides the link.
    places
        Where what belongs to the night lies, by name: files of RiskAssessments, quarantine, a server's
        base address. Shown as text, since a browser on another machine could not follow them.
    """

    site: str
    partition: str
    prediction_time: datetime | None
    generated_at: datetime
    counts: Counts
    replay: str | None = None
    gate: GateDecision | None = None
    profiles: Profiles | None = None
    task: str | None = None
    model_name: str | None = None
    model_version: str | None = None
    model_digest: str | None = None
    catalogue_digest: str | None = None
    site_codes_digest: str | None = None
    software_version: str | None = None
    quarantined: pl.DataFrame = field(default_factory=lambda: _empty(reason=pl.String, n=pl.Int64))
    skipped: pl.DataFrame = field(default_factory=lambda: _empty(reason=pl.String, n=pl.Int64))
    modalities: pl.DataFrame = field(default_factory=lambda: _empty(modalities=pl.String, n=pl.Int64))
    score_bins: pl.DataFrame = field(
        default_factory=lambda: _empty(low=pl.Float64, high=pl.Float64, n=pl.Int64)
    )
    risk_levels: pl.DataFrame = field(default_factory=lambda: _empty(level=pl.String, n=pl.Int64))
    unmapped: pl.DataFrame = field(default_factory=lambda: _empty(coding=pl.String, n=pl.Int64))
    drift: pl.DataFrame | None = None
    calibration: pl.DataFrame | None = None
    trends: pl.DataFrame | None = None
    write_back: Mapping[str, int] = field(default_factory=dict)
    data_notes: tuple[str, ...] = ()
    data_docs: str | None = "../gate/data_docs/index.html"
    places: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, columns in _COLUMNS.items():
            frame = getattr(self, name)
            if frame is not None and not set(columns) <= set(frame.columns):
                raise ValueError(f"ReportFacts.{name} needs the columns {', '.join(columns)}")

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``report.json``."""
        tables = self.profiles.tables() if self.profiles else {}
        return {
            "site": self.site,
            "partition": self.partition,
            "replay": self.replay,
            "prediction_time": self.prediction_time.isoformat() if self.prediction_time else None,
            "generated_at": self.generated_at.isoformat(),
            "data_notes": list(self.data_notes),
            "disclaimer": DISCLAIMER,
            "made_by": {
                "software_version": self.software_version,
                "task": self.task,
                "model_name": self.model_name,
                "model_version": self.model_version,
                "model_digest": self.model_digest,
                "catalogue_digest": self.catalogue_digest,
                "site_codes_digest": self.site_codes_digest,
            },
            "counts": self.counts.to_dict(),
            "write_back": dict(self.write_back),
            "places": dict(self.places),
            "equations": [equation.to_dict() for equation in check_equations(self.counts)],
            "gate": self.gate.to_dict() if self.gate else None,
            "quarantined": with_explanations(self.quarantined).to_dicts(),
            "skipped": with_explanations(self.skipped).to_dicts(),
            "modalities": self.modalities.to_dicts(),
            "score_bins": self.score_bins.to_dicts(),
            "risk_levels": self.risk_levels.to_dicts(),
            "unmapped": keep_presentable_codes(self.unmapped).to_dicts(),
            "drift": self.drift.to_dicts() if self.drift is not None else None,
            "calibration": self.calibration.to_dicts() if self.calibration is not None else None,
            "trends": self.trends.to_dicts() if self.trends is not None else None,
            "profiles": {name: table.to_dicts() for name, table in tables.items()},
        }


_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "quarantined": ("reason", "n"),
    "skipped": ("reason", "n"),
    "modalities": ("modalities", "n"),
    "score_bins": ("low", "high", "n"),
    "risk_levels": ("level", "n"),
    "unmapped": ("coding", "n"),
    "drift": ("kind", "name", "n", "psi", "distance", "q_value", "drifted"),
    "calibration": ("low", "high", "n", "predicted", "observed"),
    "trends": ("night", "metric", "value"),
}


def _empty(**schema: Any) -> pl.DataFrame:  # polars data types
    return pl.DataFrame(schema=schema)


def count_reasons(frame: pl.DataFrame) -> pl.DataFrame:
    """Return ``reason``, ``n`` of a quarantine or skipped table, most frequent first."""
    return (
        frame.group_by("reason")
        .agg(pl.len().cast(pl.Int64).alias("n"))
        .sort("n", "reason", descending=[True, False])
    )


def with_explanations(reasons: pl.DataFrame) -> pl.DataFrame:
    """Add ``explanation``; a code that :mod:`validation.reasons` does not know is shown as unknown."""
    known = {str(reason) for reason in Reason}
    codes = [code if code in known else "(unknown reason)" for code in reasons["reason"]]
    sentences = [EXPLANATIONS[Reason(code)] if code in known else "" for code in codes]
    return reasons.with_columns(
        pl.Series("reason", codes, pl.String), pl.Series("explanation", sentences, pl.String)
    )


def count_modalities(scores: pl.DataFrame) -> pl.DataFrame:
    """Return ``modalities`` (such as ``ecg + ehr``), ``n`` of a scores table, most frequent first."""
    return (
        scores.select(pl.col("modalities_present").list.sort().list.join(" + ").alias("modalities"))
        .with_columns(pl.col("modalities").replace("", "none"))
        .group_by("modalities")
        .agg(pl.len().cast(pl.Int64).alias("n"))
        .sort("n", "modalities", descending=[True, False])
    )


def bin_scores(scores: pl.DataFrame, bins: int = SCORE_BINS) -> pl.DataFrame:
    """Return ``low``, ``high``, ``n``: probabilities in each of ``bins`` equal steps from 0 to 1."""
    probability = scores["probability"].drop_nulls()
    place = (probability * bins).floor().clip(0, bins - 1).cast(pl.Int64).alias("bin")
    counted = place.to_frame().group_by("bin").agg(pl.len().cast(pl.Int64).alias("n"))
    return (
        pl.DataFrame({"bin": range(bins)}, schema={"bin": pl.Int64})
        .join(counted, on="bin", how="left", maintain_order="left")
        .select(
            (pl.col("bin") / bins).alias("low"),
            ((pl.col("bin") + 1) / bins).alias("high"),
            pl.col("n").fill_null(0),
        )
    )


def count_risk_levels(scores: pl.DataFrame) -> pl.DataFrame:
    """Return ``level``, ``n`` of a scores table, most frequent first."""
    return (
        scores.select(pl.col("risk_level").fill_null("not stated").alias("level"))
        .group_by("level")
        .agg(pl.len().cast(pl.Int64).alias("n"))
        .sort("n", "level", descending=[True, False])
    )


def keep_presentable_codes(unmapped: pl.DataFrame, *, top: int = 20) -> pl.DataFrame:
    """Return the ``top`` unmapped codings that look like codes; all others are counted together.

    A ``code`` field may hold anything that a sender typed there, a name included, so that only short
    codes without blanks are shown.
    """
    looks = pl.col("coding").str.contains(_CODE)
    ordered = unmapped.select("coding", pl.col("n").cast(pl.Int64)).sort(
        "n", "coding", descending=[True, False]
    )
    shown = ordered.filter(looks).head(top)
    rest = int(ordered["n"].sum()) - int(shown["n"].sum())
    if not rest:
        return shown
    return pl.concat([shown, pl.DataFrame({"coding": ["(all other codes)"], "n": [rest]})])
