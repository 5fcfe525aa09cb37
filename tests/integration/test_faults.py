"""The fault cases that every change must pass; ``make faults`` plays all of them."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploy.faults.case import Case, play
from deploy.faults.cases import all_cases
from deploy.faults.loopback import Answer, Request
from deploy.faults.site import Hospital, Wiring, open_site
from deploy.faults.table import quiet
from deploy.night.connections import database, watermarks
from deploy.night.remembered import remember_pulls
from deploy.settings import load_settings

CASES = {case.name: case for case in all_cases()}
PLAYED = (
    "503 storm to the limit",
    "next link to another origin",
    "OperationOutcome inside the searchset",
    "file with fewer lines than counted, always",
    "tokens forgotten while paging (ES384)",
    "object gone (404)",
    "batch-response of mixed statuses (200, 422, 503)",
    "half committed, then reset",
    "says 201 and keeps nothing",
    "kill -9 between the server's commit and the ledger",
    "kill -9 while the export runs",
    "disk full while extracting",
    "device out of memory: batches halved",
    "one poisoned patient",
)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    return Hospital.build(tmp_path_factory.mktemp("faults") / "hospital")


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAYED)
def test_nothing_is_lost_and_nothing_is_doubled(name: str, hospital: Hospital, tmp_path: Path) -> None:
    with quiet():
        result = play(CASES[name], hospital, tmp_path / "site")
    assert (result.problems, result.lost, result.duplicated) == ((), 0, 0)
    assert result.injected > 0


def test_every_request_of_a_night_is_in_the_audit_log_and_no_patient(
    hospital: Hospital, tmp_path: Path
) -> None:
    seen: list[str] = []
    with open_site(hospital, tmp_path / "site", wiring=Wiring(images=True), faults=lambda clock: ()) as site:
        handle = site.saboteur.handle

        def watched(request: Request) -> Answer:
            seen.append(request.headers["x-request-id"])
            return handle(request)

        site.saboteur.handle = watched
        assert site.short_night()["counts"]["confirmed"] > 0
    text = "".join(path.read_text("utf-8") for path in (tmp_path / "site" / "audit").iterdir())
    events = [json.loads(line) for line in text.splitlines()]
    assert sorted(event["entity"][0]["what"]["identifier"]["value"] for event in events) == sorted(seen)
    assert {event["subtype"][0]["code"] for event in events} >= {"search-type", "read", "batch"}
    queries = [base64.b64decode(item["query"]) for e in events for item in e["entity"] if "query" in item]
    ids = {name for kind, name in hospital.store.current if kind in ("Patient", "Encounter", "Observation")}
    assert not any(name in text or name.encode() in b" ".join(queries) for name in ids)


def test_a_search_in_slices_reads_the_same_and_the_pull_is_marked(hospital: Hospital, tmp_path: Path) -> None:
    counts = []
    for source in ("", "lookback_days = 2\nslice_hours = 20"):
        with open_site(
            hospital, tmp_path / "site", wiring=Wiring(source=source), faults=lambda clock: ()
        ) as site:
            counts.append(site.short_night()["counts"])
            parts = sorted(path.name for path in site.run.path.glob("extract/Observation*"))
            settings = load_settings()
            now = datetime.now(UTC)
            remember_pulls(settings, site.run, now=now)
            engine = database(settings)
            marks = watermarks(settings, engine)
            assert marks.was_pulled("Observation", run=site.run.partition)
            mark = marks.get("Observation")
            engine.dispose()
        assert mark is not None and timedelta(0) < now - mark < timedelta(hours=1)
    assert parts == ["Observation", "Observation-0000", "Observation-0001"]
    assert counts[0] == counts[1]


def test_the_menu_is_long_and_its_dishes_have_names() -> None:
    cases = all_cases()
    assert len(cases) >= 100
    assert len({(case.group, case.name) for case in cases}) == len(cases)
    assert {case.group for case in cases} == {"search", "bulk", "smart", "dicomweb", "write", "night"}
    assert sum(case.name.startswith("kill -9") for case in cases) >= 12


def test_a_case_whose_fault_never_happens_fails(hospital: Hospital, tmp_path: Path) -> None:
    """A table of cases that cannot fail would be worth nothing."""
    with quiet():
        result = play(
            Case(name="nothing", group="search", wiring=Wiring(writing="ndjson"), stops="TemporaryError"),
            hospital,
            tmp_path / "site",
        )
    assert result.problems == (
        "the night went through, expected TemporaryError",
        "the fault never happened",
    )
