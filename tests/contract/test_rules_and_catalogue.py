"""The rules of validation name features; the catalogue must have them."""

from __future__ import annotations

from modelling.catalogue import load_catalogue
from validation.contracts import empty
from validation.physiology import PAIRS
from validation.profiles import CADENCE_HOURS
from validation.rules import judge_events


def test_every_feature_that_a_rule_names_is_in_the_catalogue() -> None:
    features = set(load_catalogue().features["feature"])
    assert PAIRS.features <= features
    assert set(CADENCE_HOURS) <= features


def test_the_catalogues_limits_are_what_the_rules_read() -> None:
    limits = load_catalogue().limits()
    assert {"code", "low", "high"} <= set(limits.columns)
    assert limits["code"].is_unique().all()
    assert judge_events(empty("events"), limits).accepted.height == 0
