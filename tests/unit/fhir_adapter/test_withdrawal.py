"""A run's or a model's scores marked entered-in-error on the server that holds them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from reading_server import Seen, VirtualClock, fhir
from ward_scores import CARD, DIGEST, NIGHT, resources
from writing_server import Ward, is_bundle, outcome, ward_server

from fhir_adapter.store import Ledger
from fhir_adapter.transport import RetryPolicy, Transport
from fhir_adapter.write_back import FhirServer, ModelFacts, WithdrawalSummary, WriteSummary, deliver, withdraw

FAST = RetryPolicy(attempts=3, jitter=0.0)


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    monkeypatch.setattr(FhirServer, "key", "https://ward.example/fhir")
    opened = Ledger.open("sqlite://")
    yield opened
    opened.close()


@contextmanager
def server(ward: Ward, **options: Any) -> Iterator[FhirServer]:
    with (
        ward_server(ward) as loopback,
        Transport(loopback.base, clock=VirtualClock(), retry=FAST, draw=lambda: 0.0) as http,
    ):
        yield FhirServer(http, retry=FAST, **options)


def night(ward: Ward, ledger: Ledger, *, run: str = NIGHT, **changes: Any) -> WriteSummary:
    rewrite = changes.pop("rewrite_withdrawn", False)
    with server(ward) as destination:
        return deliver(
            resources(**changes),
            ledger=ledger,
            destination=destination,
            partition=NIGHT,
            run=run,
            rewrite_withdrawn=rewrite,
        )


def take_back(ward: Ward, ledger: Ledger, **options: Any) -> WithdrawalSummary:
    with server(ward, bundle_size=2) as destination:
        return withdraw(ledger=ledger, destination=destination, **options)


def statuses(ward: Ward, kind: str = "RiskAssessment") -> list[str]:
    return sorted(item["status"] for item in ward.holds(kind))


@pytest.mark.parametrize(
    ("ward", "kind"),
    [
        (Ward(), "RiskAssessment"),
        (Ward(puts=False), "RiskAssessment"),
        (Ward(bundles=False), "RiskAssessment"),
        (Ward(types=("Device", "Observation")), "Observation"),
    ],
)
def test_withdrawn_once_and_not_written_again(ledger: Ledger, ward: Ward, kind: str) -> None:
    night(ward, ledger)
    values = [item.get("prediction") for item in ward.holds(kind)]
    summary = take_back(ward, ledger, run=NIGHT)
    assert summary == WithdrawalSummary(selected=3, withdrawn=3)
    assert statuses(ward, kind) == ["entered-in-error"] * 3
    assert [item.get("prediction") for item in ward.holds(kind)] == values
    before = json.dumps(list(ward.history.values()))
    assert take_back(ward, ledger, run=NIGHT) == WithdrawalSummary(selected=3, already=3)
    for probability in (0.3, 0.5):
        rerun = night(ward, ledger, probability=probability)
        assert (rerun.withdrawn, rerun.confirmed, rerun.written, rerun.complete) == (3, 3, 0, True)
    assert json.dumps(list(ward.history.values())) == before
    asked = night(ward, ledger, rewrite_withdrawn=True)
    assert asked.written == 3
    assert statuses(ward, kind) == ["corrected"] * 3
    assert night(ward, ledger).unchanged == 3


def test_only_the_run_or_the_model_that_was_named(ledger: Ledger) -> None:
    ward = Ward()
    night(ward, ledger, run="first")
    other = ModelFacts(**(CARD.__dict__ | {"digest": "f" * 64, "version": "2"}))
    changed = resources(2, card=other, model_digest="f" * 64)
    text = json.dumps(changed)
    for item in resources(2):
        if item["resourceType"] == "RiskAssessment":
            text = text.replace(item["id"], item["id"][:-4] + "beef")
    with server(ward) as destination:
        deliver(json.loads(text), ledger=ledger, destination=destination, partition=NIGHT, run="second")
    assert take_back(ward, ledger, run="second", model_digest=DIGEST).selected == 0
    assert take_back(ward, ledger, model_digest="f" * 64).withdrawn == 2
    assert statuses(ward) == ["entered-in-error"] * 2 + ["final"] * 3
    assert take_back(ward, ledger, run="first").withdrawn == 3
    with pytest.raises(ValueError, match="needs a run or a model"):
        take_back(ward, ledger)


def test_a_score_amended_by_a_clinician_is_left_alone_unless_asked(ledger: Ledger) -> None:
    ward = Ward()
    night(ward, ledger)
    name = ward.holds("RiskAssessment")[0]["id"]
    ward.amend("RiskAssessment", name, status="amended", note=[{"text": "Seen."}])
    summary = take_back(ward, ledger, run=NIGHT)
    assert summary == WithdrawalSummary(selected=3, withdrawn=2, amended_by_others=1)
    assert statuses(ward) == ["amended", "entered-in-error", "entered-in-error"]
    asked = take_back(ward, ledger, run=NIGHT, also_amended=True)
    assert asked == WithdrawalSummary(selected=3, withdrawn=1, already=2)
    assert statuses(ward) == ["entered-in-error"] * 3
    assert ward.history["RiskAssessment", name][-1]["note"] == [{"text": "Seen."}]


def test_what_a_person_withdrew_is_noted(ledger: Ledger) -> None:
    ward = Ward()
    night(ward, ledger)
    ward.amend("RiskAssessment", ward.holds("RiskAssessment")[0]["id"], status="entered-in-error")
    assert take_back(ward, ledger, run=NIGHT) == WithdrawalSummary(selected=3, withdrawn=2, already=1)
    assert night(ward, ledger).withdrawn == 3


def test_an_amendment_in_the_same_moment_wins(ledger: Ledger) -> None:
    ward = Ward()
    night(ward, ledger)
    name = ward.holds("RiskAssessment")[0]["id"]
    done: list[Seen] = []

    def race(seen: Seen) -> None:
        if is_bundle(seen) and not done:
            done.append(seen)
            ward.amend("RiskAssessment", name, status="amended")

    ward.fault = race
    summary = take_back(ward, ledger, run=NIGHT)
    assert (summary.withdrawn, summary.amended_by_others, summary.failed) == (2, 1, 0)
    assert ward.history["RiskAssessment", name][-1]["status"] == "amended"


def test_a_lost_answer(ledger: Ledger) -> None:
    ward = Ward()
    night(ward, ledger)
    lost: list[Seen] = []
    ward.lose = lambda seen: is_bundle(seen) and not lost and lost.append(seen) is None
    assert take_back(ward, ledger, run=NIGHT) == WithdrawalSummary(selected=3, withdrawn=3)
    assert {len(versions) for key, versions in ward.history.items() if key[0] == "RiskAssessment"} == {2}


def test_scores_that_are_not_there_and_a_server_that_is_down(ledger: Ledger) -> None:
    ward = Ward()
    night(ward, ledger)
    ward.delete("RiskAssessment", ward.holds("RiskAssessment")[0]["id"])
    ward.fault = lambda seen: fhir(outcome("transient"), 503)
    summary = take_back(ward, ledger, run=NIGHT)
    assert (summary.failed, summary.errors, summary.withdrawn) == (3, {"unreachable": 3}, 0)
    ward.fault = lambda seen: None
    assert take_back(ward, ledger, run=NIGHT) == WithdrawalSummary(selected=3, withdrawn=2, not_there=1)


@pytest.mark.parametrize("puts", [True, False])
def test_a_score_whose_first_answer_was_lost_for_good(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, puts: bool
) -> None:
    class Killed(BaseException):
        pass

    ward = Ward(puts=puts)
    original = Ledger.settle
    with monkeypatch.context() as patch:

        def dying(self: Ledger, destination: str, results: Any, **named: Any) -> None:
            rows = list(results)
            if any(row.key[0] == "RiskAssessment" for row in rows):
                raise Killed
            original(self, destination, rows, **named)

        patch.setattr(Ledger, "settle", dying)
        with pytest.raises(Killed):
            night(ward, ledger)
    assert statuses(ward) == ["final"] * 3
    assert take_back(ward, ledger, run=NIGHT).withdrawn == 3
    assert statuses(ward) == ["entered-in-error"] * 3
