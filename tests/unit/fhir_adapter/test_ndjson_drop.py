"""Scores into a folder: whole files, the same bytes every time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ward_scores import NIGHT, resources

from fhir_adapter.store import Ledger
from fhir_adapter.write_back import NdjsonDrop, WriteSummary, deliver, withdraw


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    opened = Ledger.open("sqlite://")
    yield opened
    opened.close()


def night(
    ledger: Ledger, folder: Path, given: list[dict[str, Any]] | None = None, **options: Any
) -> WriteSummary:
    return deliver(
        resources() if given is None else given,
        ledger=ledger,
        destination=NdjsonDrop(folder),
        partition=NIGHT,
        **options,
    )


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def statuses(folder: Path) -> list[str]:
    lines = (folder / f"RiskAssessment.{NIGHT}.ndjson").read_text("utf-8").splitlines()
    return [json.loads(line)["status"] for line in lines]


def test_the_same_night_twice_touches_no_file(ledger: Ledger, tmp_path: Path) -> None:
    first = night(ledger, tmp_path)
    assert (first.scores, first.written, first.requests, first.complete) == (3, 3, 4, True)
    assert first.reconciliation.held == 3
    names = [
        f"{kind}.{NIGHT}.ndjson" for kind in ("Device", "DocumentReference", "Provenance", "RiskAssessment")
    ]
    before = content(tmp_path)
    assert list(before) == names
    times = [path.stat().st_mtime_ns for path in sorted(tmp_path.iterdir())]
    second = night(ledger, tmp_path)
    assert (second.unchanged, second.written, second.requests) == (3, 0, 0)
    assert content(tmp_path) == before
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.iterdir())] == times


def test_a_folder_that_was_collected_and_emptied_gets_the_same_bytes(ledger: Ledger, tmp_path: Path) -> None:
    folder = tmp_path / "drop"
    night(ledger, folder)
    before = content(folder)
    shutil.rmtree(folder)
    summary = night(ledger, folder)
    assert (summary.unchanged, summary.requests) == (3, 4)
    assert content(folder) == before


def test_a_changed_score_says_corrected_from_then_on(ledger: Ledger, tmp_path: Path) -> None:
    night(ledger, tmp_path)
    changed = resources(probability=0.5)
    assert night(ledger, tmp_path, changed).written == 3
    assert statuses(tmp_path) == ["corrected"] * 3
    before = content(tmp_path)
    shutil.rmtree(tmp_path)
    assert night(ledger, tmp_path, changed).unchanged == 3
    assert content(tmp_path) == before


def test_nights_do_not_share_files(ledger: Ledger, tmp_path: Path) -> None:
    night(ledger, tmp_path)
    other = resources(1, probability=0.9, partition="replay-icu+48h")
    deliver(other, ledger=ledger, destination=NdjsonDrop(tmp_path), partition="replay-icu+48h")
    assert (tmp_path / "RiskAssessment.replay-icu+48h.ndjson").is_file()
    assert statuses(tmp_path) == ["final"] * 3


def test_a_partition_cannot_leave_the_folder(tmp_path: Path) -> None:
    drop = NdjsonDrop(tmp_path)
    assert drop.path("RiskAssessment", "../../etc/x").parent == tmp_path


def test_an_unsound_score_is_not_written(ledger: Ledger, tmp_path: Path) -> None:
    given = resources()
    del given[2]["prediction"]
    summary = night(ledger, tmp_path, given)
    assert (summary.confirmed, summary.dead_lettered, summary.errors) == (2, 1, {"not_valid": 1})
    assert len(statuses(tmp_path)) == 2


def test_a_folder_that_cannot_be_written_dead_letters_everything(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "drop").write_text("a file in the way")
    summary = night(ledger, tmp_path / "drop")
    assert (summary.confirmed, summary.dead_lettered, set(summary.errors)) == (0, 3, {"file", "no_target"})


def test_withdrawn_scores_stay_withdrawn(ledger: Ledger, tmp_path: Path) -> None:
    night(ledger, tmp_path, run="first")
    drop = NdjsonDrop(tmp_path)
    summary = withdraw(ledger=ledger, destination=drop, run="first")
    assert (summary.selected, summary.withdrawn) == (3, 3)
    assert statuses(tmp_path) == ["entered-in-error"] * 3
    again = withdraw(ledger=ledger, destination=drop, run="first")
    assert (again.already, again.withdrawn) == (3, 0)
    for given in (resources(), resources(probability=0.5)):
        shutil.rmtree(tmp_path)
        rerun = night(ledger, tmp_path, given)
        assert (rerun.withdrawn, rerun.written, rerun.confirmed) == (3, 0, 3)
        assert statuses(tmp_path) == ["entered-in-error"] * 3
    asked = night(ledger, tmp_path, resources(), rewrite_withdrawn=True)
    assert asked.written == 3
    assert statuses(tmp_path) == ["corrected"] * 3
