"""Cards from the registry: every number is the record's, every TRIPOD+AI item is answered."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from registry_models import HeldOut, model_folder
from sqlalchemy import create_engine

from modelling.registry.cards import registered_card
from modelling.registry.records import Provenance
from modelling.registry.registry import Registry
from modelling.registry.rules import PromotionRules
from modelling.registry.tripod import ITEMS

NOW = datetime(2026, 1, 19, 5, tzinfo=UTC)
PATIENTS = HeldOut()


@pytest.fixture
def card(tmp_path: Path) -> tuple[str, Registry, str]:
    registry = Registry(create_engine(f"sqlite:///{tmp_path / 'registry.sqlite'}"), tmp_path / "models")
    digest = model_folder(tmp_path / "new")
    registry.register(
        tmp_path / "new",
        provenance=Provenance(data_version="mimic-3.1", data_fingerprint="f" * 64),
        evidence=PATIENTS.evidence(PATIENTS.at(0.0), champion=PATIENTS.blurred(0.8)),
        by="retraining",
        why="new | data",
        now=NOW,
    )
    registry.promote(digest, rules=PromotionRules(), by="Dr A", why="better", now=NOW)
    record = registry.get(digest)
    return registered_card(registry.folder(digest), record, registry.history(digest=digest)), registry, digest


def test_a_card_holds_what_was_measured(card: tuple[str, Registry, str]) -> None:
    text, registry, digest = card
    record = registry.get(digest)
    auroc = record.metrics["auroc"]
    assert f"{auroc['value']:.3f} ({auroc['lower']:.3f} to {auroc['upper']:.3f})" in text
    assert digest in text and "mimic-3.1" in text and "sex female" in text
    difference = record.evidence["comparisons"]["champion"]["difference"]["auroc"]
    assert f"| champion | {difference['value']:+.3f}" in text
    assert "Dr A" in text and "new \\| data" in text  # a reason cannot break the table


def test_every_item_of_tripod_ai_is_answered(card: tuple[str, Registry, str]) -> None:
    text = card[0]
    numbers = {number.rstrip("abcdefg") for number, _, _ in ITEMS}
    assert numbers == {str(number) for number in range(1, 28)}
    for number, topic, _ in ITEMS:
        row = next(line for line in text.splitlines() if line.startswith(f"| {number} | {topic} |"))
        answer = row.split("|")[3].strip()
        assert len(answer) > 5 and "{" not in answer


def test_a_card_without_history_depends_on_the_model_alone(card: tuple[str, Registry, str]) -> None:
    _, registry, digest = card
    before = registered_card(registry.folder(digest), registry.get(digest))
    registry.retire(digest, by="Dr A", why="end", now=NOW)
    assert registered_card(registry.folder(digest), registry.get(digest)) == before
