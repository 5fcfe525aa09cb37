"""A full report of the test ward, every section filled."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
from ward_tables import NIGHT, ward

from validation.drift import build_reference, compare_night, input_values
from validation.equations import Counts
from validation.gate.decision import Finding, GateDecision
from validation.profiles import Profiles, profile_night
from validation.report import ReportFacts, bin_scores, count_modalities, count_reasons, count_risk_levels

COUNTS = Counts(pulled=1200, accepted=1188, quarantined=12, eligible=26, scored=24, skipped=2, confirmed=24)


def night_profiles(**tables: pl.DataFrame) -> Profiles:
    tables = {**ward(), **tables}
    reference = build_reference(
        [input_values(*(ward(40, seed=9)[name] for name in ("events", "samples")))], asked=40
    )
    drift = compare_night(reference, [input_values(tables["events"], tables["samples"])], asked=24)
    return profile_night(**tables, counts=COUNTS, drift=drift)


def trends(nights: int = 30) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    dates = [str(date(2025, 12, 21) + timedelta(days=day)) for day in range(nights)]
    levels = {
        "pulled": 12000.0,
        "quarantined_share": 0.02,
        "eligible": 60.0,
        "scored": 55.0,
        "mean_probability": 0.11,
    }
    return pl.DataFrame(
        [
            (day, metric, level * (1 + 0.1 * rng.normal()))
            for day in dates
            for metric, level in levels.items()
        ],
        schema={"night": pl.String, "metric": pl.String, "value": pl.Float64},
        orient="row",
    )


def full_facts(**changes: object) -> ReportFacts:
    rng = np.random.default_rng(1)
    scores = pl.DataFrame(
        {
            "probability": rng.beta(1.3, 8, 24),
            "risk_level": ["low"] * 17 + ["moderate"] * 5 + ["high"] * 2,
            "modalities_present": [["ehr"]] * 10 + [["ecg", "ehr"]] * 8 + [["cxr", "ecg", "ehr"]] * 6,
        }
    )
    refused = ["unit.missing"] * 7 + ["value.out_of_range"] * 3 + ["ecg.flat"] * 2
    profiles = night_profiles()
    text = "Few values lie outside the range. Found out_of_range_rate: heart_rate 0.07 (allowed up to 0.05)."
    finding = Finding(
        suite="features",
        expectation="expect_column_values_to_be_between",
        column="out_of_range_rate",
        severity="warning",
        text=text,
    )
    fields = {
        "site": "demo-hospital",
        "partition": "2026-01-19",
        "prediction_time": NIGHT,
        "generated_at": datetime(2026, 1, 19, 5, 30, tzinfo=UTC),
        "counts": COUNTS,
        "gate": GateDecision(
            decision="pass_with_warnings",
            reasons=(f"warning: {text}",),
            findings=(finding,),
            evaluated=26,
            suites_digest="ab" * 32,
        ),
        "profiles": profiles,
        "task": "in-hospital-mortality",
        "model_name": "medfuse",
        "model_version": "1",
        "model_digest": "cd" * 32,
        "catalogue_digest": "ef" * 32,
        "software_version": "0.1.0",
        "quarantined": count_reasons(pl.DataFrame({"reason": refused})),
        "skipped": count_reasons(pl.DataFrame({"reason": ["skip.too_young", "skip.stay_too_short"]})),
        "modalities": count_modalities(scores),
        "score_bins": bin_scores(scores),
        "risk_levels": count_risk_levels(scores),
        "unmapped": pl.DataFrame(
            {"coding": ["http://loinc.org|1234-5", "http://loinc.org|9999-9"], "n": [30, 4]}
        ),
        "drift": profiles.drift,
        "calibration": pl.DataFrame(
            {
                "low": [0.0, 0.1, 0.2],
                "high": [0.1, 0.2, 0.9],
                "n": [120, 40, 15],
                "predicted": [0.04, 0.14, 0.4],
                "observed": [0.03, 0.17, 0.5],
            }
        ),
        "trends": trends(),
        "write_back": {"sent": 24, "unchanged": 0},
        "data_notes": ("Synthetic data: no real patient stands behind it.",),
    }
    return ReportFacts(**{**fields, **changes})
