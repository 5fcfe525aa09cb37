"""A night's scores to a server that keeps versions: once each, whatever the server does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading_server import Answer, Seen, VirtualClock, fhir
from ward_scores import NIGHT, resources
from writing_server import TYPES, Ward, bundle_of, is_bundle, outcome, ward_server

from fhir_adapter.smart import BearerToken
from fhir_adapter.store import Ledger, State
from fhir_adapter.transport import Interaction, RetryPolicy, Transport
from fhir_adapter.write_back import FhirServer, WriteSummary, deliver

FAST = RetryPolicy(attempts=3, base=1.0, cap=8.0, jitter=0.0)
CODES = {400: "invalid", 422: "processing", 404: "not-found", 503: "transient", 429: "throttled"}


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    opened = Ledger.open("sqlite://")
    yield opened
    opened.close()


@contextmanager
def server(ward: Ward, **options: Any) -> Iterator[tuple[FhirServer, VirtualClock]]:
    clock = VirtualClock()
    auth = options.pop("auth", None)
    audit = options.pop("audit", None)
    with (
        ward_server(ward) as loopback,
        Transport(loopback.base, clock=clock, retry=FAST, draw=lambda: 0.0, auth=auth, audit=audit) as http,
    ):
        yield FhirServer(http, retry=FAST, **options), clock


def night(
    ward: Ward,
    ledger: Ledger,
    given: list[dict[str, Any]] | None = None,
    *,
    rewrite_withdrawn: bool = False,
    **options: Any,
) -> WriteSummary:
    with server(ward, **options) as (destination, _):
        return deliver(
            resources() if given is None else given,
            ledger=ledger,
            destination=destination,
            partition=NIGHT,
            now=lambda: datetime(2026, 1, 19, 5, tzinfo=UTC),
            rewrite_withdrawn=rewrite_withdrawn,
        )


def writes(log: list[Interaction]) -> list[Interaction]:
    return [item for item in log if item.method in ("POST", "PUT")]


def dead_letters(ledger: Ledger) -> dict[str, str | None]:
    return {
        f"{entry.error_class} {entry.error_codes}": entry.resource_type
        for name in ledger.destinations()
        for entry in ledger.find(name, state=State.DEAD_LETTER)
    }


@pytest.fixture
def same_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FhirServer, "key", "https://ward.example/fhir")


@pytest.mark.usefixtures("same_address")
class TestTheSameNightTwice:
    def test_with_our_ids(self, ledger: Ledger) -> None:
        ward = Ward()
        first = night(ward, ledger)
        assert (first.scores, first.confirmed, first.written, first.dead_lettered) == (3, 3, 3, 0)
        assert first.others == {
            kind: {"written": 1} for kind in ("Device", "DocumentReference", "Provenance")
        }
        assert first.reconciliation.held == first.reconciliation.expected == 3
        assert first.complete
        built = {item["id"] for item in resources() if item["resourceType"] == "RiskAssessment"}
        assert {item["id"] for item in ward.holds("RiskAssessment")} == built
        before = json.dumps(list(ward.history.values()))
        log: list[Interaction] = []
        second = night(ward, ledger, audit=log.append)
        assert (second.confirmed, second.unchanged, second.written) == (3, 3, 0)
        assert writes(log) == []
        assert json.dumps(list(ward.history.values())) == before

    def test_with_ids_that_the_server_gives(self, ledger: Ledger) -> None:
        ward = Ward(puts=False)
        first = night(ward, ledger)
        assert first.written == 3
        assert first.strategies["RiskAssessment"] == "RiskAssessment conditional-create"
        (device,), (card,) = ward.holds("Device"), ward.holds("DocumentReference")
        assert device["extension"][0]["valueReference"] == {"reference": f"DocumentReference/{card['id']}"}
        assert {item["performer"]["reference"] for item in ward.holds("RiskAssessment")} == {
            f"Device/{device['id']}"
        }
        (provenance,) = ward.holds("Provenance")
        assert {item["reference"] for item in provenance["target"]} == {
            f"RiskAssessment/{item['id']}" for item in ward.holds("RiskAssessment")
        }
        log: list[Interaction] = []
        second = night(ward, ledger, audit=log.append)
        assert (second.unchanged, writes(log)) == (3, [])

    def test_as_observations(self, ledger: Ledger) -> None:
        ward = Ward(types=("Device", "Observation"))
        first = night(ward, ledger)
        assert first.strategies["RiskAssessment"] == "Observation put"
        assert first.others["Provenance"] == first.others["DocumentReference"] == {"not_supported": 1}
        held = ward.holds("Observation")
        assert [item["valueQuantity"]["value"] for item in held] == [0.3] * 3
        (device,) = ward.holds("Device")
        assert held[0]["device"] == {"reference": f"Device/{device['id']}"}
        assert device["extension"][0]["valueReference"]["type"] == "DocumentReference"
        assert night(ward, ledger).unchanged == 3

    def test_one_request_each_where_bundles_are_not_taken(self, ledger: Ledger) -> None:
        ward = Ward(bundles=False)
        log: list[Interaction] = []
        assert night(ward, ledger, audit=log.append).written == 3
        assert {item.method for item in writes(log)} == {"PUT"}
        changed = night(ward, ledger, resources(probability=0.5))
        assert changed.written == 3
        assert {item["meta"]["versionId"] for item in ward.holds("RiskAssessment")} == {"2"}

    def test_a_server_that_hides_that_it_takes_no_bundles(self, ledger: Ledger) -> None:
        ward = Ward(bundles=False)
        with server(ward, strategy="put") as (destination, _):
            summary = deliver(resources(), ledger=ledger, destination=destination, partition=NIGHT)
        assert (summary.written, summary.dead_lettered) == (3, 0)

    def test_without_a_device_the_score_names_it_logically(self, ledger: Ledger) -> None:
        ward = Ward(types=("RiskAssessment",))
        assert night(ward, ledger).confirmed == 3
        performer = ward.holds("RiskAssessment")[0]["performer"]
        assert performer["type"] == "Device"
        assert performer["identifier"]["value"].startswith("3fa9c1d2")

    def test_where_nothing_can_be_written_safely_nothing_is_sent(self, ledger: Ledger) -> None:
        ward = Ward(types=("Device",))
        log: list[Interaction] = []
        summary = night(ward, ledger, audit=log.append)
        assert (summary.confirmed, summary.dead_lettered) == (0, 3)
        assert summary.errors == {"not_writable": 5, "no_target": 1}
        assert writes(log) == []


@pytest.mark.usefixtures("same_address")
class TestRescoring:
    def test_a_changed_score_replaces_ours_as_corrected(self, ledger: Ledger) -> None:
        for ward in (Ward(), Ward(puts=False)):
            fresh = Ledger.open("sqlite://")
            night(ward, fresh)
            summary = night(ward, fresh, resources(probability=0.5))
            assert (summary.written, summary.amended_by_others) == (3, 0)
            for item in ward.holds("RiskAssessment"):
                assert (item["status"], item["meta"]["versionId"]) == ("corrected", "2")
                assert item["prediction"][0]["probabilityDecimal"] == 0.5
            assert night(ward, fresh, resources(probability=0.5)).unchanged == 3
            fresh.close()

    def test_a_score_that_a_clinician_amended_is_never_overwritten(self, ledger: Ledger) -> None:
        ward = Ward()
        night(ward, ledger)
        amended = ward.holds("RiskAssessment")[1]["id"]
        ward.amend("RiskAssessment", amended, status="amended", note=[{"text": "Seen."}])
        before = json.dumps(ward.history["RiskAssessment", amended])
        same = night(ward, ledger)
        assert (same.unchanged, same.amended_by_others, same.reconciliation.amended) == (2, 1, 1)
        for probability in (0.5, 0.6):
            summary = night(ward, ledger, resources(probability=probability))
            assert (summary.written, summary.amended_by_others, summary.dead_lettered) == (2, 1, 0)
            assert summary.scores == summary.confirmed
        assert json.dumps(ward.history["RiskAssessment", amended]) == before

    def test_also_not_when_the_ledger_is_lost(self, ledger: Ledger) -> None:
        ward = Ward()
        night(ward, ledger)
        amended = ward.holds("RiskAssessment")[1]["id"]
        ward.amend("RiskAssessment", amended, status="amended")
        fresh = Ledger.open("sqlite://")
        log: list[Interaction] = []
        summary = night(ward, fresh, audit=log.append)
        assert (summary.found, summary.amended_by_others, summary.written) == (2, 1, 0)
        assert writes(log) == []
        assert night(ward, fresh, resources(probability=0.5)).amended_by_others == 1
        assert ward.history["RiskAssessment", amended][-1]["status"] == "amended"
        fresh.close()

    def test_a_version_that_only_gained_a_tag_is_still_ours(self, ledger: Ledger) -> None:
        ward = Ward()
        night(ward, ledger)
        name = ward.holds("RiskAssessment")[0]["id"]
        meta = ward.holds("RiskAssessment")[0]["meta"]
        ward.amend("RiskAssessment", name, meta=meta | {"tag": [*meta["tag"], {"code": "seen"}]})
        assert night(ward, ledger).unchanged == 3
        assert night(ward, ledger, resources(probability=0.5)).written == 3


@pytest.mark.usefixtures("same_address")
class TestOneEntryAmongMany:
    @pytest.mark.parametrize(("status", "word"), [(400, "invalid"), (422, "invalid"), (404, "not_found")])
    def test_what_the_server_refuses_becomes_a_dead_letter_without_its_words(
        self, ledger: Ledger, status: int, word: str
    ) -> None:
        ward = Ward()
        ward.judge = lambda method, item: (
            (status, outcome(CODES[status])) if item.get("subject") == {"reference": "Patient/p1"} else None
        )
        summary = night(ward, ledger)
        assert (summary.confirmed, summary.dead_lettered, summary.errors) == (2, 1, {word: 1})
        assert dead_letters(ledger) == {f"{word} {CODES[status]}": "RiskAssessment"}
        targets = ward.holds("Provenance")[0]["target"]
        assert len(targets) == 2
        ward.judge = lambda method, item: None
        again = night(ward, ledger)
        assert (again.written, again.unchanged, again.dead_lettered) == (1, 2, 0)
        assert len(ward.holds("Provenance")[0]["target"]) == 3
        assert {item["status"] for item in ward.holds("RiskAssessment")} == {"final"}

    @pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
    def test_what_may_pass_is_tried_again_alone(self, ledger: Ledger, status: int) -> None:
        ward = Ward()
        left = [2]

        def judge(method: str, item: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
            if item.get("subject") == {"reference": "Patient/p1"} and left[0]:
                left[0] -= 1
                return status, outcome("transient")
            return None

        ward.judge = judge
        log: list[Interaction] = []
        summary = night(ward, ledger, audit=log.append)
        assert (summary.written, summary.dead_lettered) == (3, 0)
        sizes = [len(item.writes) for item in writes(log) if "RiskAssessment" in item.writes[0]]
        assert sizes == [3, 1, 1]

    def test_what_does_not_pass_becomes_a_dead_letter(self, ledger: Ledger) -> None:
        ward = Ward()
        ward.judge = lambda method, item: (
            (503, outcome("transient")) if item.get("subject") == {"reference": "Patient/p1"} else None
        )
        with server(ward) as (destination, clock):
            summary = deliver(resources(), ledger=ledger, destination=destination, partition=NIGHT)
        assert (summary.written, summary.errors) == (2, {"server": 1})
        assert clock.slept == [1.0, 2.0]

    def test_an_unsound_resource_never_leaves(self, ledger: Ledger) -> None:
        ward = Ward()
        given = resources()
        given[3]["status"] = "done"
        log: list[Interaction] = []
        summary = night(ward, ledger, given, audit=log.append)
        assert (summary.confirmed, summary.errors) == (2, {"not_valid": 1})
        assert not any(given[3]["id"] in write for item in log for write in item.writes)
        assert dead_letters(ledger) == {"not_valid status: not in the value set": "RiskAssessment"}

    def test_several_matches_of_our_identifier(self, ledger: Ledger) -> None:
        ward = Ward(puts=False)
        night(ward, ledger)
        twin = ward.holds("RiskAssessment")[0]
        ward.history["RiskAssessment", "twin"] = [twin | {"id": "twin"}]
        same = night(ward, ledger)
        assert (same.reconciliation.duplicated, same.reconciliation.unexpected) == (1, 1)
        assert not same.complete
        fresh = Ledger.open("sqlite://")
        ward.tags = False
        ward.judge = lambda method, item: (
            (412, outcome("multiple-matches")) if item["resourceType"] == "RiskAssessment" else None
        )
        summary = night(ward, fresh, resources(probability=0.7), strategy="conditional-create")
        assert summary.amended_by_others + summary.dead_lettered == 3
        fresh.close()


@pytest.mark.usefixtures("same_address")
class TestWholeBundles:
    @pytest.mark.parametrize("puts", [True, False])
    @pytest.mark.parametrize("kind", ["Device", "RiskAssessment", "Provenance"])
    def test_a_lost_answer_never_becomes_a_second_score(self, ledger: Ledger, puts: bool, kind: str) -> None:
        ward = Ward(puts=puts)
        lost: list[Seen] = []
        wanted = bundle_of(kind)
        ward.lose = lambda seen: wanted(seen) and not lost and lost.append(seen) is None
        summary = night(ward, ledger)
        assert lost
        assert (summary.confirmed, summary.written, summary.complete) == (3, 3, True)
        assert {key[0]: len(ward.holds(key[0])) for key in ward.history} == {
            "DocumentReference": 1,
            "Device": 1,
            "RiskAssessment": 3,
            "Provenance": 1,
        }
        assert {len(versions) for versions in ward.history.values()} == {1}
        assert night(ward, ledger).unchanged == 3

    def test_a_lost_answer_to_a_correction(self, ledger: Ledger) -> None:
        ward = Ward()
        night(ward, ledger)
        lost: list[Seen] = []
        wanted = bundle_of("RiskAssessment")
        ward.lose = lambda seen: wanted(seen) and not lost and lost.append(seen) is None
        summary = night(ward, ledger, resources(probability=0.5))
        assert (summary.written, summary.amended_by_others) == (3, 0)
        assert {len(versions) for key, versions in ward.history.items() if key[0] == "RiskAssessment"} == {2}

    def test_too_large_a_bundle_is_halved(self, ledger: Ledger) -> None:
        ward = Ward()
        ward.fault = lambda seen: (
            fhir(outcome("too-long"), 413)
            if is_bundle(seen) and len(json.loads(seen.body)["entry"]) > 2
            else None
        )
        log: list[Interaction] = []
        summary = night(ward, ledger, resources(7), audit=log.append)
        assert (summary.written, summary.dead_lettered) == (7, 0)
        sizes = [len(item.writes) for item in writes(log) if "RiskAssessment" in item.writes[0]]
        assert sizes == [7, 3, 1, 2, 4, 2, 2]

    def test_one_resource_that_breaks_the_server_is_set_aside(self, ledger: Ledger) -> None:
        ward = Ward()
        ward.fault = lambda seen: (
            fhir(outcome("exception"), 500) if is_bundle(seen) and b'"Patient/p2"' in seen.body else None
        )
        summary = night(ward, ledger, resources(8))
        assert (summary.written, summary.errors) == (7, {"server": 1})
        assert len(ward.holds("RiskAssessment")) == 7

    def test_too_large_alone(self, ledger: Ledger) -> None:
        ward = Ward()
        ward.fault = lambda seen: (
            fhir(outcome("too-long"), 413) if is_bundle(seen) and b'"Patient/p1"' in seen.body else None
        )
        assert night(ward, ledger).errors == {"too_large": 1}

    def test_a_busy_server_is_waited_for(self, ledger: Ledger) -> None:
        ward = Ward()
        left = [2]

        def busy(seen: Seen) -> Answer | None:
            if is_bundle(seen) and left[0]:
                left[0] -= 1
                return fhir(outcome("throttled"), 503, Retry_After="7")
            return None

        ward.fault = busy
        with server(ward) as (destination, clock):
            summary = deliver(resources(), ledger=ledger, destination=destination, partition=NIGHT)
        assert (summary.written, clock.slept) == (3, [7.0, 7.0])

    @pytest.mark.parametrize(
        ("fault", "word"),
        [
            (lambda seen: fhir(outcome("transient"), 503) if is_bundle(seen) else None, "server"),
            (
                lambda seen: fhir(outcome("x"), 503, Retry_After="18000") if is_bundle(seen) else None,
                "retry_after",
            ),
            (lambda seen: fhir(outcome("login"), 401) if is_bundle(seen) else None, "authorization"),
            (lambda seen: fhir(outcome("forbidden"), 403) if is_bundle(seen) else None, "authorization"),
            (lambda seen: Answer(503) if "metadata" not in seen.target else None, "unreachable"),
            (lambda seen: Answer(503), "unreachable"),
            (lambda seen: Answer(200, b"<html>log in</html>", {"Content-Type": "text/html"}), "unreachable"),
        ],
    )
    def test_a_server_that_is_down_ends_the_delivery_soon(
        self, ledger: Ledger, fault: Callable[[Seen], Answer | None], word: str
    ) -> None:
        ward = Ward(fault=fault)
        log: list[Interaction] = []
        summary = night(ward, ledger, resources(50), bundle_size=5, audit=log.append)
        assert (summary.scores, summary.confirmed, summary.dead_lettered) == (50, 0, 50)
        assert set(summary.errors) <= {word, "no_target"}
        assert len(log) <= 10
        ward.fault = lambda seen: None
        assert night(ward, ledger, resources(50), bundle_size=25).written == 50

    def test_an_outage_leaves_what_the_ledger_knows(self, ledger: Ledger) -> None:
        ward = Ward()
        night(ward, ledger)
        for down in (
            lambda seen: Answer(503),
            lambda seen: Answer(503) if "metadata" not in seen.target else None,
        ):
            ward.fault = down
            summary = night(ward, ledger)
            assert summary.scores == summary.confirmed + summary.dead_lettered == 3
            assert not summary.complete
        ward.fault = lambda seen: None
        assert night(ward, ledger).unchanged == 3
        assert {len(versions) for versions in ward.history.values()} == {1}

    def test_an_outage_between_a_lost_answer_and_a_new_score(self, ledger: Ledger) -> None:
        ward = Ward()
        wanted = bundle_of("RiskAssessment")
        lost: list[Seen] = []
        ward.lose = lambda seen: wanted(seen) and lost.append(seen) is None
        ward.fault = lambda seen: Answer(503) if lost else None
        assert night(ward, ledger).errors == {"unreachable": 3, "no_target": 1}
        assert night(ward, ledger, resources(probability=0.5)).confirmed == 0
        ward.lose, ward.fault = (lambda seen: False), (lambda seen: None)
        summary = night(ward, ledger, resources(probability=0.5))
        assert (summary.written, summary.amended_by_others) == (3, 0)
        assert len(ward.holds("RiskAssessment")) == 3

    def test_a_token_is_renewed_once(self, ledger: Ledger) -> None:
        class Renewed(BearerToken):
            renewals = 0

            def renew(self) -> bool:
                type(self).renewals += 1
                return True

        ward = Ward()
        expired: list[Seen] = []
        ward.fault = lambda seen: (
            fhir(outcome("expired"), 401)
            if is_bundle(seen) and not expired and expired.append(seen) is None
            else None
        )
        assert night(ward, ledger, auth=Renewed("secret")).written == 3
        assert Renewed.renewals == 1

    @pytest.mark.parametrize(
        "answer",
        [
            fhir({"resourceType": "Bundle", "type": "batch-response", "entry": []}),
            fhir({"resourceType": "Bundle", "type": "batch-response", "entry": [{}, {}, {}]}),
            Answer(200, b"{", {"Content-Type": "application/fhir+json"}),
            Answer(200, b"<html>log in</html>", {"Content-Type": "text/html"}),
        ],
    )
    def test_an_answer_that_says_nothing_is_a_lost_one(self, ledger: Ledger, answer: Answer) -> None:
        ward = Ward()
        wanted = bundle_of("RiskAssessment")
        seen_once: list[Seen] = []
        ward.fault = lambda seen: (
            answer if wanted(seen) and not seen_once and seen_once.append(seen) is None else None
        )
        assert night(ward, ledger).written == 3
        assert len(ward.holds("RiskAssessment")) == 3


class Killed(BaseException):
    """The process ended here."""


@pytest.mark.usefixtures("same_address")
class TestResumption:
    @pytest.mark.parametrize("puts", [True, False])
    @pytest.mark.parametrize("moment", ["enqueue", "mark_sent", "settle"])
    @pytest.mark.parametrize("call", [1, 2, 3, 4])
    def test_a_killed_delivery_goes_on(
        self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, puts: bool, moment: str, call: int
    ) -> None:
        ward = Ward(puts=puts)
        original = getattr(Ledger, moment)
        calls = [0]

        def dying(self: Ledger, *arguments: Any, **named: Any) -> Any:
            calls[0] += 1
            if calls[0] == call:
                raise Killed
            return original(self, *arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr(Ledger, moment, dying)
            with suppress(Killed):
                night(ward, ledger)
        summary = night(ward, ledger)
        assert (summary.scores, summary.confirmed) == (3, 3)
        assert summary.complete
        assert len(ward.holds("RiskAssessment")) == 3
        assert {len(versions) for versions in ward.history.values()} == {1}

    def test_a_killed_correction_is_known_as_ours(
        self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ward = Ward()
        night(ward, ledger)
        with monkeypatch.context() as patch:

            def dying(*arguments: Any, **named: Any) -> None:
                raise Killed

            patch.setattr(Ledger, "settle", dying)
            with pytest.raises(Killed):
                night(ward, ledger, resources(probability=0.5))
        assert {item["meta"]["versionId"] for item in ward.holds("RiskAssessment")} == {"2"}
        summary = night(ward, ledger, resources(probability=0.7))
        assert (summary.written, summary.amended_by_others) == (3, 0)
        assert {item["prediction"][0]["probabilityDecimal"] for item in ward.holds("RiskAssessment")} == {0.7}

    def test_a_restored_server_gets_everything_again(self, ledger: Ledger) -> None:
        for ward in (Ward(), Ward(puts=False)):
            fresh = Ledger.open("sqlite://")
            night(ward, fresh)
            ward.history.clear()
            summary = night(ward, fresh)
            assert (summary.confirmed, summary.written, summary.complete) == (3, 3, True)
            assert len(ward.holds("RiskAssessment")) == 3
            assert {item["status"] for item in ward.holds("RiskAssessment")} == {"final"}
            fresh.close()

    def test_a_score_that_someone_deleted_stays_deleted(self, ledger: Ledger) -> None:
        ward = Ward()
        night(ward, ledger)
        name = ward.holds("RiskAssessment")[0]["id"]
        ward.delete("RiskAssessment", name)
        for _ in range(2):
            summary = night(ward, ledger)
            assert (summary.confirmed, summary.errors) == (2, {"deleted": 1})
            assert ward.history["RiskAssessment", name][-1] is None

    def test_what_the_server_only_claims_to_hold_is_missed(self, ledger: Ledger) -> None:
        ward = Ward()
        ward.judge = lambda method, item: (
            (201, {}) if item.get("subject") == {"reference": "Patient/p1"} else None
        )
        summary = night(ward, ledger)
        assert (summary.confirmed, summary.dead_lettered, summary.errors) == (2, 1, {"missing": 1})
        assert (summary.reconciliation.expected, summary.reconciliation.held) == (3, 2)
        assert not summary.complete

    def test_a_server_that_cannot_search_at_all(self, ledger: Ledger) -> None:
        ward = Ward()
        ward.fault = lambda seen: (
            fhir(outcome("not-supported"), 400) if seen.method == "GET" and "?" in seen.target else None
        )
        assert night(ward, ledger).complete
        name = ward.holds("RiskAssessment")[0]["id"]
        ward.amend("RiskAssessment", name, status="amended")
        fresh = Ledger.open("sqlite://")
        summary = night(ward, fresh, resources(probability=0.5))
        assert (summary.written, summary.amended_by_others) == (0, 3)
        assert ward.history["RiskAssessment", name][-1]["status"] == "amended"
        fresh.close()

    @pytest.mark.parametrize("puts", [True, False])
    def test_a_server_that_ignores_tags(self, ledger: Ledger, puts: bool) -> None:
        ward = Ward(tags=False, puts=puts)
        for number in range(9):
            other = {"resourceType": "RiskAssessment", "id": f"x{number}", "meta": {}}
            ward.history["RiskAssessment", f"x{number}"] = [other]
        assert night(ward, ledger).complete
        second = night(ward, ledger)
        assert (second.unchanged, second.complete) == (3, True)


STATUSES = st.sampled_from([201, 201, 201, 400, 409, 412, 422, 429, 500, 503])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), puts=st.booleans(), size=st.integers(1, 6))
def test_every_score_is_accounted_for_whatever_the_server_says(
    monkeypatch: pytest.MonkeyPatch, data: st.DataObject, puts: bool, size: int
) -> None:
    monkeypatch.setattr(FhirServer, "key", "https://ward.example/fhir")
    ward = Ward(puts=puts, page=3)
    script = data.draw(st.lists(STATUSES, max_size=12))
    losses = data.draw(st.lists(st.booleans(), max_size=4))

    def judge(method: str, item: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        status = script.pop() if script and item["resourceType"] == "RiskAssessment" else 201
        return None if status == 201 else (status, outcome("x"))

    ward.judge = judge
    ward.lose = lambda seen: is_bundle(seen) and bool(losses) and losses.pop()
    ledger = Ledger.open("sqlite://")
    for _ in range(2):
        summary = night(ward, ledger, resources(5), bundle_size=size)
        assert summary.scores == summary.confirmed + summary.dead_lettered == 5
        values = [item["identifier"][0]["value"] for item in ward.holds("RiskAssessment")]
        assert len(values) == len(set(values))
        confirmed = {
            entry.server_id
            for entry in ledger.find(
                "https://ward.example/fhir", resource_type="RiskAssessment", state=State.CONFIRMED
            )
        }
        assert confirmed <= {item["id"] for item in ward.holds("RiskAssessment")}
        assert len(confirmed) == summary.confirmed
    script.clear()
    losses.clear()
    last = night(ward, ledger, resources(5), bundle_size=size)
    assert last.confirmed == len(ward.holds("RiskAssessment")) == 5
    assert set(TYPES) >= {key[0] for key in ward.history}
    ledger.close()
