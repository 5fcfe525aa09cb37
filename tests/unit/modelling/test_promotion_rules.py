"""Each promotion rule refuses what it is there for, with its reason, and lets a good candidate pass."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from registry_models import HeldOut
from simulated_stays import NOON, ward

from modelling.registry.leaks import as_dicts, find_leaks
from modelling.registry.rules import PromotionRules, judge_candidate
from validation.contracts import empty

PATIENTS = HeldOut()
RULES = PromotionRules()


def refused(evidence: dict, rules: PromotionRules = RULES, champion: str | None = None) -> dict[str, str]:
    findings = judge_candidate(evidence, rules, champion=champion, digest="d" * 64)
    return {finding.rule: finding.reason for finding in findings if not finding.passed}


def test_a_good_candidate_passes_every_rule() -> None:
    evidence = PATIENTS.evidence(PATIENTS.at(0.0), champion=PATIENTS.blurred(0.5))
    findings = judge_candidate(evidence, RULES, champion=None, digest="d" * 64)
    assert [finding.rule for finding in findings if not finding.passed] == []
    assert {finding.rule for finding in findings} == {
        "enough_events",
        "no_leak",
        "plausible",
        "not_worse_than_champion",
        "beats_news2",
        "beats_boosting",
        "calibrated",
        "no_subgroup_harmed",
    }


def test_a_worse_candidate_is_refused() -> None:
    reasons = refused(PATIENTS.evidence(PATIENTS.blurred(1.5), champion=PATIENTS.at(0.0)))
    assert "tolerated down to -0.020" in reasons["not_worse_than_champion"]


def test_a_candidate_that_only_chance_may_save_is_refused_until_the_margin_allows_it() -> None:
    evidence = PATIENTS.evidence(PATIENTS.blurred(0.4, 1), champion=PATIENTS.blurred(0.4, 2))
    assert "not_worse_than_champion" in refused(evidence, PromotionRules(margin=0.0))
    assert "not_worse_than_champion" not in refused(evidence, PromotionRules(margin=0.1))


@pytest.mark.parametrize(
    ("shift", "sharpen", "named"), [(0.0, 4.0, "slope"), (0.0, 0.3, "slope"), (1.2, 1.0, "in the large")]
)
def test_a_miscalibrated_candidate_is_refused(shift: float, sharpen: float, named: str) -> None:
    reasons = refused(PATIENTS.evidence(PATIENTS.at(shift, sharpen=sharpen)))
    assert list(reasons) == ["calibrated"] and named in reasons["calibrated"]


def test_a_candidate_must_beat_the_bedside_score_and_boosting() -> None:
    weak = {"NEWS2": PATIENTS.at(0.0), "boosting": PATIENTS.blurred(0.05)}
    reasons = refused(PATIENTS.evidence(PATIENTS.blurred(0.6), baselines=weak))
    assert {"beats_news2", "beats_boosting"} <= set(reasons)
    missing = refused(PATIENTS.evidence(PATIENTS.at(0.0), baselines={}))
    assert missing == {
        "beats_news2": "it was not compared with NEWS2",
        "beats_boosting": "it was not compared with boosting",
    }


def test_a_candidate_that_harms_one_group_is_refused() -> None:
    women = (PATIENTS.groups["sex"] == "female").to_numpy()
    mixed = np.where(women, PATIENTS.blurred(2.5), PATIENTS.at(0.0))
    evidence = PATIENTS.evidence(mixed, champion=PATIENTS.blurred(0.5, 1))
    reasons = refused(evidence, PromotionRules(margin=0.5, beats=()))
    assert "sex female" in reasons["no_subgroup_harmed"] and "sex male" not in reasons["no_subgroup_harmed"]
    allowed = refused(evidence, PromotionRules(margin=0.5, beats=(), subgroup_margin=0.9))
    assert "no_subgroup_harmed" not in allowed


def test_too_few_events_too_good_a_score_or_no_search_for_leaks_are_refused() -> None:
    few = HeldOut(n=40)
    assert "enough_events" in refused(few.evidence(few.at(0.0)))
    perfect = PATIENTS.evidence(np.where(PATIENTS.labels == 1, 0.99, 0.01))
    assert "too good to be true" in refused(perfect)["plausible"]
    assert "never searched" in refused(PATIENTS.evidence(PATIENTS.at(0.0), leaks=None))["no_leak"]
    assert list(refused({})) == ["evaluated"]


def test_a_champion_that_cannot_score_is_named() -> None:
    evidence = PATIENTS.evidence(PATIENTS.at(0.0)) | {
        "champion": {"digest": "a" * 64, "error": "CatalogueMismatchError"}
    }
    reasons = refused(evidence, champion="a" * 64)
    assert "CatalogueMismatchError" in reasons["not_worse_than_champion"]


def leaks_of(events: pl.DataFrame, samples: pl.DataFrame) -> list[dict]:
    return as_dicts(find_leaks(samples, events, recordings=empty("recordings"), images=empty("images")))


@pytest.mark.parametrize("kind", ["value", "presence"])
def test_a_label_planted_among_the_features_is_found(kind: str) -> None:
    samples, events, _, labels = ward()
    y = pl.Series(labels.astype(bool))
    samples = samples.with_columns(y.alias("boolean_value"))
    weak = events.filter(pl.col("code") == "lactate")
    assert leaks_of(weak, samples) == []  # an honest, informative feature is none
    planted = weak.head(1).select(pl.all().exclude("subject_id", "numeric_value", "encounter_id", "code"))
    shown = samples.filter(y) if kind == "presence" else samples
    rows = shown.select("subject_id", "encounter_id", "boolean_value").join(planted, how="cross")
    rows = rows.with_columns(
        pl.lit("sodium").alias("code"),
        pl.lit(NOON - timedelta(hours=3)).cast(pl.Datetime("us", "UTC")).alias("time"),
        (130.0 + 8.0 * pl.col("boolean_value").cast(pl.Float32)).cast(pl.Float32).alias("numeric_value"),
    ).with_columns(pl.col("time").alias("available_time"))
    found = leaks_of(pl.concat([weak, rows.select(weak.columns)]), samples)
    assert [item["input"] for item in found] == ["sodium"] and "AUROC 1.000" in found[0]["why"]
    reasons = refused(PATIENTS.evidence(PATIENTS.at(0.0), leaks=found))
    assert "sodium" in reasons["no_leak"]
    later = rows.with_columns(pl.lit(NOON + timedelta(hours=1)).cast(pl.Datetime("us", "UTC")).alias("time"))
    assert leaks_of(pl.concat([weak, later.select(weak.columns)]), samples) == []  # not visible: no leak
