"""Search as a source, against a scripted server: nothing lost, nothing doubled, no circle."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from reading_server import Answer, Seen, VirtualClock, fhir, serving

from fhir_adapter.errors import ContentError, OriginError, PagingError, TemporaryError
from fhir_adapter.sources import SearchSource
from fhir_adapter.transport import RetryPolicy, Transport


def patient(key: str, version: str = "1") -> dict[str, Any]:
    return {"resourceType": "Patient", "id": key, "meta": {"versionId": version}}


def page(
    resources: list[dict[str, Any]], *, next_link: str | None = None, total: int | None = None
) -> dict[str, Any]:
    bundle: dict[str, Any] = {
        "resourceType": "Bundle",
        "type": "searchset",
        "entry": [{"resource": resource, "search": {"mode": "match"}} for resource in resources],
        "link": [{"relation": "self", "url": "x"}],
    }
    if next_link:
        bundle["link"].append({"relation": "next", "url": next_link})
    if total is not None:
        bundle["total"] = total
    return bundle


def paged(pages: dict[str, Callable[[str], Answer]]) -> Callable[[Seen], Answer]:
    """Answer by the ``page`` parameter; the first page has none."""

    def answer(request: Seen) -> Answer:
        query = parse_qs(urlsplit(request.target).query)
        host = f"http://{request.headers['host']}/fhir"
        return pages[query.get("page", ["first"])[0]](host)

    return answer


def read(base: str, folder: Path, **options: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    with Transport(base, clock=VirtualClock(), retry=RetryPolicy(attempts=2)) as transport:
        source = SearchSource(transport, **options)
        (part,) = source.plan(["Patient"])
        path = source.materialise(part, folder)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return lines, json.loads((folder / "Patient.counts.json").read_text())


def test_all_pages_come_and_doubles_are_written_once(tmp_path: Path) -> None:
    script = paged(
        {
            "first": lambda base: fhir(
                page([patient("a"), patient("b")], next_link=f"{base}?page=2&c=YQ==", total=3)
            ),
            "2": lambda base: fhir(page([patient("b"), patient("c"), patient("b", "2")])),
        }
    )
    with serving(script) as server:
        lines, counts = read(server.base, tmp_path)
        assert "_count=500" in server.seen[0].target
        assert server.seen[1].target == "/fhir?page=2&c=YQ=="
    assert [(line["id"], line["meta"]["versionId"]) for line in lines] == [
        ("a", "1"),
        ("b", "1"),
        ("c", "1"),
        ("b", "2"),
    ]
    assert (counts["pages"], counts["repeated"], counts["total"]) == (2, 1, 3)


def test_a_relative_next_link_is_resolved_against_the_base(tmp_path: Path) -> None:
    script = paged(
        {
            "first": lambda base: fhir(page([patient("a")], next_link="?page=2")),
            "2": lambda base: fhir(page([patient("b")])),
        }
    )
    with serving(script) as server:
        lines, _ = read(server.base, tmp_path)
    assert [line["id"] for line in lines] == ["a", "b"]


def test_a_page_that_never_comes_fails_the_part_and_leaves_no_file(tmp_path: Path) -> None:
    script = paged(
        {
            "first": lambda base: fhir(page([patient("a")], next_link=f"{base}?page=2")),
            "2": lambda base: Answer(503),
        }
    )
    with serving(script) as server, pytest.raises(TemporaryError):
        read(server.base, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_fewer_matches_than_the_server_counted_is_an_error(tmp_path: Path) -> None:
    with (
        serving(lambda request: fhir(page([patient("a")], total=2))) as server,
        pytest.raises(PagingError, match="1 of 2 resources"),
    ):
        read(server.base, tmp_path)


def test_more_matches_than_counted_is_growth_while_reading(tmp_path: Path) -> None:
    with serving(lambda request: fhir(page([patient("a"), patient("b")], total=1))) as server:
        lines, _ = read(server.base, tmp_path)
    assert len(lines) == 2


def test_a_circle_of_links_is_noticed(tmp_path: Path) -> None:
    def answer(request: Seen) -> Answer:
        base = f"http://{request.headers['host']}/fhir"
        return fhir(page([patient(str(len(request.target)))], next_link=f"{base}?page=2"))

    with serving(answer) as server, pytest.raises(PagingError, match="circle"):
        read(server.base, tmp_path)


def test_the_same_page_under_ever_new_links_is_noticed(tmp_path: Path) -> None:
    count = [0]

    def answer(request: Seen) -> Answer:
        count[0] += 1
        return fhir(page([patient("a")], next_link=f"http://{request.headers['host']}/fhir?page={count[0]}"))

    with serving(answer) as server, pytest.raises(PagingError, match="circle"):
        read(server.base, tmp_path)
    assert count[0] < 10


def test_an_expired_page_restarts_the_search_once(tmp_path: Path) -> None:
    expired = [True]

    def second(base: str) -> Answer:
        return Answer(410) if expired.pop() else fhir(page([patient("b")]))

    expired = [False, True]
    script = paged(
        {"first": lambda base: fhir(page([patient("a")], next_link=f"{base}?page=2", total=2)), "2": second}
    )
    with serving(script) as server:
        lines, counts = read(server.base, tmp_path)
    assert [line["id"] for line in lines] == ["a", "b"]
    assert counts["restarts"] == 1


def test_a_next_link_to_another_host_is_refused(tmp_path: Path) -> None:
    with (
        serving(lambda request: fhir(page([patient("a")], next_link="https://evil.example/next"))) as server,
        pytest.raises(OriginError),
    ):
        read(server.base, tmp_path)


def test_outcomes_that_warn_become_lines_and_hints_are_counted_only(tmp_path: Path) -> None:
    def outcome(severity: str) -> dict[str, Any]:
        return {"resourceType": "OperationOutcome", "issue": [{"severity": severity, "code": "processing"}]}

    bundle = page([patient("a")], total=1)
    bundle["entry"] += [
        {"resource": outcome(level), "search": {"mode": "outcome"}} for level in ("information", "warning")
    ]
    with serving(lambda request: fhir(bundle)) as server:
        lines, counts = read(server.base, tmp_path)
    assert [line["resourceType"] for line in lines] == ["Patient", "OperationOutcome"]
    assert (counts["outcomes"], counts["matches"]) == (2, 1)


@pytest.mark.parametrize(
    "answer",
    [
        fhir({"resourceType": "Patient", "id": "a"}),
        fhir({"resourceType": "Bundle", "type": "batch-response"}),
        fhir({"resourceType": "Bundle", "type": "searchset", "entry": [{"fullUrl": "x"}]}),
        Answer(200, b'{"resourceType": "Bund', {"Content-Type": "application/fhir+json"}),
        Answer(200, b"<html>", {"Content-Type": "text/html"}),
    ],
)
def test_an_answer_that_is_no_searchset_is_refused(answer: Answer, tmp_path: Path) -> None:
    with serving(lambda request: answer) as server, pytest.raises(ContentError):
        read(server.base, tmp_path)


def test_a_complete_file_is_not_fetched_again(tmp_path: Path) -> None:
    with serving(lambda request: fhir(page([patient("a")]))) as server:
        read(server.base, tmp_path)
        read(server.base, tmp_path)
        assert len(server.seen) == 1


def test_time_slices_have_no_gaps_and_reach_back_by_the_overlap() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with Transport("http://127.0.0.1:9/fhir") as transport:
        source = SearchSource(
            transport,
            since=start,
            until=start + timedelta(hours=5),
            slice_length=timedelta(hours=2),
            overlap=timedelta(minutes=10),
        )
        parts = source.plan(["Patient", "Observation"])
    bounds = [part.locator["lastUpdated"] for part in parts if part.resource_type == "Observation"]
    assert bounds[0][0] == "ge2025-12-31T23:50:00.000Z"
    assert [low[0][2:] for low in bounds[1:]] == [high[1][2:] for high in bounds[:-1]]
    assert len(bounds[-1]) == 1
    assert [part.name for part in parts if part.resource_type == "Patient"][:2] == [
        "Patient-0000",
        "Patient-0001",
    ]
