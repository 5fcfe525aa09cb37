"""The registry: models by digest, one champion a task, every change with who, when and why."""

from __future__ import annotations

import pickle
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from registry_models import TASK, HeldOut, model_folder
from sqlalchemy import create_engine, inspect
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from modelling.errors import (
    CheckpointDigestError,
    CheckpointFormatError,
    PromotionRefusedError,
    RegistryError,
)
from modelling.registry.folder import read_folder
from modelling.registry.records import Change, Provenance, State
from modelling.registry.registry import Registry
from modelling.registry.rules import PromotionRules
from modelling.registry.tables import Base, ModelRow

NOW = datetime(2026, 1, 19, 5, tzinfo=UTC)
RULES = PromotionRules()
PATIENTS = HeldOut()
GOOD = PATIENTS.evidence(PATIENTS.at(0.0))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(create_engine(f"sqlite:///{tmp_path / 'registry.sqlite'}"), tmp_path / "models")


def register(registry: Registry, folder: Path, seed: int, evidence: dict | None = None, task: str = TASK):
    model_folder(folder, seed=seed, task=task)
    return registry.register(
        folder,
        provenance=Provenance(data_version="2026-01", data_fingerprint="f" * 64),
        evidence=GOOD if evidence is None else evidence,
        by="retraining",
        why="nightly data of 2026-01",
        now=NOW,
    )


def test_the_migrations_make_the_tables_that_the_code_declares(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'a.sqlite'}")
    Registry(engine, tmp_path)
    seen = inspect(engine)
    for table in Base.metadata.sorted_tables:
        assert {column["name"] for column in seen.get_columns(table.name)} == set(table.columns.keys())
        assert {index["name"] for index in seen.get_indexes(table.name)} == {i.name for i in table.indexes}
    Registry(engine, tmp_path)  # a second start finds all in place


def test_a_registered_model_tells_what_it_is(registry: Registry, tmp_path: Path) -> None:
    record = register(registry, tmp_path / "new", 1)
    assert record.state is State.CANDIDATE and record.task == TASK and record.kind == "medfuse"
    assert record.digest == read_folder(registry.folder(record.digest)).digest
    assert record.metrics["auroc"]["lower"] < record.metrics["auroc"]["value"]
    assert {row["subgroup"] for row in record.subgroups} == {"sex", "unit"}
    assert (record.data_version, record.code_version) == ("2026-01", "0.1.0")
    assert registry.get(record.digest[:8]) == record
    assert [change.kind for change in registry.history(digest=record.digest)] == [Change.REGISTER]
    again = register(registry, tmp_path / "new", 1)  # same weights: same model, not a second one
    assert again.digest == record.digest and len(registry.find()) == 1


def test_names_that_mean_no_or_several_models_are_refused(registry: Registry, tmp_path: Path) -> None:
    register(registry, tmp_path / "new", 1)
    for name in ("", "abc", "zzzzzz", "' or 1", "0" * 64):
        with pytest.raises(RegistryError):
            registry.get(name)


def test_promotion_replaces_the_champion_and_rollback_brings_it_back(
    registry: Registry, tmp_path: Path
) -> None:
    first = register(registry, tmp_path / "1", 1)
    promoted, findings = registry.promote(first.digest, rules=RULES, by="Dr A", why="first", now=NOW)
    assert promoted.state is State.CHAMPION and all(finding.passed for finding in findings)
    evidence = PATIENTS.evidence(
        PATIENTS.at(0.0), champion=PATIENTS.blurred(0.6), champion_digest=first.digest
    )
    second = register(registry, tmp_path / "2", 2, evidence)
    registry.promote(second.digest, rules=RULES, by="Dr B", why="better", now=NOW + timedelta(days=1))
    assert registry.get(first.digest).state is State.RETIRED
    assert registry.champion(TASK).digest == second.digest

    assert registry.rollback(TASK, by="Dr A", why="alarms", now=NOW).digest == first.digest
    assert registry.champion(TASK).digest == first.digest
    assert registry.get(second.digest).state is State.RETIRED
    # The first champion had replaced nobody: back to what the code ships with.
    assert registry.rollback(TASK, by="Dr A", why="again", now=NOW) is None
    assert registry.champion(TASK) is None
    with pytest.raises(RegistryError, match="no champion"):
        registry.rollback(TASK, by="Dr A", why="once more", now=NOW)
    told = [(item.kind, item.after, item.who) for item in registry.history(task=TASK)]
    assert told == [
        (Change.REGISTER, State.CANDIDATE, "retraining"),
        (Change.PROMOTE, State.CHAMPION, "Dr A"),
        (Change.REGISTER, State.CANDIDATE, "retraining"),
        (Change.RETIRE, State.RETIRED, "Dr B"),
        (Change.PROMOTE, State.CHAMPION, "Dr B"),
        (Change.RETIRE, State.RETIRED, "Dr A"),
        (Change.ROLLBACK, State.CHAMPION, "Dr A"),
        (Change.RETIRE, State.RETIRED, "Dr A"),
    ]


def test_stale_evidence_does_not_promote(registry: Registry, tmp_path: Path) -> None:
    first = register(registry, tmp_path / "1", 1)
    second = register(registry, tmp_path / "2", 2)  # never compared with the first
    registry.promote(first.digest, rules=RULES, by="Dr A", why="first", now=NOW)
    with pytest.raises(PromotionRefusedError, match="does not compare it with the present champion"):
        registry.promote(second.digest, rules=RULES, by="Dr A", why="second", now=NOW)
    assert registry.champion(TASK).digest == first.digest
    refused = registry.history(digest=second.digest)[-1]
    assert refused.after is State.CANDIDATE and refused.why.startswith("refused")
    assert not all(finding["passed"] for finding in refused.findings)


def test_a_person_must_approve(registry: Registry, tmp_path: Path) -> None:
    record = register(registry, tmp_path / "1", 1)
    for by, why in (("", "good"), ("Dr A", " ")):
        with pytest.raises(RegistryError, match="needs a person"):
            registry.promote(record.digest, rules=RULES, by=by, why=why, now=NOW)
    chosen = PromotionRules(approvers=("Dr B",))
    with pytest.raises(RegistryError, match="not among those who may approve"):
        registry.promote(record.digest, rules=chosen, by="Dr A", why="good", now=NOW)
    assert registry.promote(record.digest, rules=chosen, by="Dr B", why="good", now=NOW)[0]


def test_the_database_holds_one_champion_a_task(registry: Registry, tmp_path: Path) -> None:
    first, second = (register(registry, tmp_path / str(seed), seed) for seed in (1, 2))
    other = register(registry, tmp_path / "3", 3, task="decompensation")
    with Session(registry._engine) as session, session.begin():
        for digest in (first.digest, other.digest):
            session.get(ModelRow, digest).state = "champion"
    with Session(registry._engine) as session, pytest.raises(IntegrityError):
        session.get(ModelRow, second.digest).state = "champion"
        session.flush()


def test_shadows_score_beside_the_champion(registry: Registry, tmp_path: Path) -> None:
    first, second = (register(registry, tmp_path / str(seed), seed) for seed in (1, 2))
    registry.promote(first.digest, rules=RULES, by="Dr A", why="first", now=NOW)
    registry.shadow(second.digest, by="Dr A", why="watch it", now=NOW)
    assert [record.digest for record in registry.find(task=TASK, state=State.SHADOW)] == [second.digest]
    with pytest.raises(RegistryError, match="is champion: shadow is not possible"):
        registry.shadow(first.digest, by="Dr A", why="no", now=NOW)
    assert registry.retire(second.digest, by="Dr A", why="enough", now=NOW).state is State.RETIRED


def test_poisoned_folders_are_refused(registry: Registry, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    model_folder(pickled)
    (pickled / "weights.safetensors").write_bytes(pickle.dumps({"layer.weight": [1.0]}))
    beside = tmp_path / "beside"
    model_folder(beside)
    (beside / "hook.pkl").write_bytes(pickle.dumps(print))
    linked = tmp_path / "linked"
    model_folder(linked)
    (linked / "metrics.json").unlink()
    (linked / "metrics.json").symlink_to("/etc/hostname")
    for folder, hint in ((pickled, "not a safetensors"), (beside, "may carry code"), (linked, "link")):
        with pytest.raises(CheckpointFormatError, match=hint):
            registry.register(
                folder,
                provenance=Provenance(data_version="x", data_fingerprint="y"),
                evidence={},
                by="x",
                why="y",
                now=NOW,
            )
    swapped = tmp_path / "swapped"
    model_folder(swapped, seed=1)
    model_folder(tmp_path / "other", seed=2)
    (swapped / "weights.safetensors").write_bytes((tmp_path / "other" / "weights.safetensors").read_bytes())
    with pytest.raises(CheckpointDigestError):
        registry.objects.take(swapped)
    assert registry.find() == [] and not list((tmp_path / "models").glob("*"))


@pytest.mark.parametrize("name", ["weights.safetensors", "card.json", "metrics.json"])
def test_a_file_changed_after_registration_neither_scores_nor_is_promoted(
    registry: Registry, tmp_path: Path, name: str
) -> None:
    record = register(registry, tmp_path / "1", 1)
    path = registry.folder(record.digest) / name
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    with pytest.raises(CheckpointDigestError, match=name):
        registry.folder(record.digest)
    with pytest.raises(PromotionRefusedError, match="intact"):
        registry.promote(record.digest, rules=RULES, by="Dr A", why="good", now=NOW)
    path.unlink()
    with pytest.raises(CheckpointFormatError, match=f"lacks {name}"):
        registry.folder(record.digest)


def test_a_killed_promotion_leaves_the_old_champion(registry: Registry, tmp_path: Path, monkeypatch) -> None:
    first = register(registry, tmp_path / "1", 1)
    registry.promote(first.digest, rules=RULES, by="Dr A", why="first", now=NOW)
    evidence = PATIENTS.evidence(
        PATIENTS.at(0.0), champion=PATIENTS.blurred(0.6), champion_digest=first.digest
    )
    second = register(registry, tmp_path / "2", 2, evidence)

    def cut(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("power cut")

    monkeypatch.setattr("modelling.registry.registry._after", cut)
    with pytest.raises(sqlite3.OperationalError):
        registry.promote(second.digest, rules=RULES, by="Dr A", why="second", now=NOW)
    assert registry.champion(TASK).digest == first.digest
