"""Scores written to a real HAPI FHIR server, and judged by HL7's own validator."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "fhir_adapter"))

from ward_scores import CARD, DIGEST, NIGHT, RUN_SYSTEM, resources, score, scores

from deploy.servers.hapi import HapiServer
from deploy.servers.prerequisites import java, maven
from deploy.servers.validator import validate_resources
from fhir_adapter.audit import AuditLog, Identity
from fhir_adapter.store import Ledger, State
from fhir_adapter.transport import Transport
from fhir_adapter.write_back import FhirServer, WriteSummary, build_resources, deliver, withdraw
from fhir_adapter.write_back.observation import observation
from fhir_adapter.write_back.preparation import key_of, localise

pytestmark = [
    pytest.mark.hapi,
    pytest.mark.slow,
    pytest.mark.skipif(not (java().found and maven().found), reason="no JDK 17 and Maven on this machine"),
]

N = 12


def ward() -> list[dict[str, Any]]:
    """Return the patients, encounters and observations that the scores speak of."""
    found: list[dict[str, Any]] = []
    for n in range(N):
        subject = {"reference": f"Patient/p{n}"}
        found += [
            {"resourceType": "Patient", "id": f"p{n}"},
            {
                "resourceType": "Encounter",
                "id": f"e{n}",
                "status": "in-progress",
                "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
                "subject": subject,
            },
            {
                "resourceType": "Observation",
                "id": f"o{n}",
                "status": "final",
                "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
                "subject": subject,
            },
        ]
    return found


@pytest.fixture(scope="module")
def hapi() -> Iterator[HapiServer]:
    with HapiServer() as server:
        yield server


@pytest.fixture
def base(hapi: HapiServer) -> str:
    hapi.empty()
    with Transport(hapi.base_url) as http:
        entries = [
            {"resource": item, "request": {"method": "PUT", "url": f"{item['resourceType']}/{item['id']}"}}
            for item in ward()
        ]
        http.request("POST", "", json={"resourceType": "Bundle", "type": "transaction", "entry": entries})
    return hapi.base_url


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    opened = Ledger.open("sqlite://")
    yield opened
    opened.close()


def night(
    base: str, ledger: Ledger, given: list[dict[str, Any]] | None = None, **options: Any
) -> WriteSummary:
    with Transport(base) as http:
        return deliver(
            resources(N) if given is None else given,
            ledger=ledger,
            destination=FhirServer(http, **options),
            partition=NIGHT,
        )


def held(base: str, kind: str = "RiskAssessment") -> list[dict[str, Any]]:
    with Transport(base) as http:
        bundle = http.get_json(kind, params={"_tag": f"{RUN_SYSTEM}|{NIGHT}", "_count": "100"})
    return [entry["resource"] for entry in bundle.get("entry", ())]


def versions(base: str, kind: str = "RiskAssessment") -> set[str]:
    return {item["meta"]["versionId"] for item in held(base, kind)}


@pytest.mark.parametrize(
    ("strategy", "kind"),
    [
        ("auto", "RiskAssessment"),
        ("put", "RiskAssessment"),
        ("conditional-create", "RiskAssessment"),
        ("observation", "Observation"),
    ],
)
def test_a_night_twice_then_changed_then_withdrawn(
    base: str, ledger: Ledger, strategy: str, kind: str
) -> None:
    first = night(base, ledger, strategy=strategy, bundle_size=5)
    assert (first.written, first.confirmed, first.dead_lettered, first.errors) == (N, N, 0, {})
    assert first.others == {name: {"written": 1} for name in ("Device", "DocumentReference", "Provenance")}
    assert (first.reconciliation.held, first.reconciliation.missing, first.complete) == (N, 0, True)
    assert len(held(base, kind)) == N
    second = night(base, ledger, strategy=strategy)
    assert (second.unchanged, second.written, second.complete) == (N, 0, True)
    assert versions(base, kind) == {"1"}
    third = night(base, ledger, resources(N, probability=0.5), strategy=strategy)
    assert (third.written, third.amended_by_others) == (N, 0)
    assert versions(base, kind) == {"2"}
    assert {item["status"] for item in held(base, kind)} == {"corrected"}
    with Transport(base) as http:
        server = FhirServer(http, strategy=strategy)
        assert withdraw(ledger=ledger, destination=server, model_digest=DIGEST).withdrawn == N
    assert {item["status"] for item in held(base, kind)} == {"entered-in-error"}
    last = night(base, ledger, strategy=strategy)
    assert (last.withdrawn, last.written, last.complete) == (N, 0, True)
    assert versions(base, kind) == {"3"}


@pytest.mark.parametrize("strategy", ["put", "conditional-create"])
def test_references_resolve_on_the_server(base: str, ledger: Ledger, strategy: str) -> None:
    night(base, ledger, strategy=strategy)
    with Transport(base) as http:
        risk = held(base)[0]
        for place in (risk["subject"], risk["encounter"], risk["performer"], *risk["basis"]):
            assert http.get_json(place["reference"])["resourceType"] == place["reference"].split("/")[0]
        (provenance,) = held(base, "Provenance")
        assert {item["reference"] for item in provenance["target"]} == {
            f"RiskAssessment/{item['id']}" for item in held(base)
        }


@pytest.mark.parametrize("strategy", ["put", "conditional-create"])
@pytest.mark.parametrize("bundle_size", [1, 50])
def test_a_clinicians_amendment_is_never_overwritten(
    base: str, ledger: Ledger, strategy: str, bundle_size: int
) -> None:
    night(base, ledger, strategy=strategy)
    amended = held(base)[3]
    with Transport(base) as http:
        http.request("PUT", f"RiskAssessment/{amended['id']}", json=amended | {"status": "amended"})
    same = night(base, ledger, strategy=strategy)
    assert (same.unchanged, same.amended_by_others) == (N - 1, 1)
    changed = night(base, ledger, resources(N, probability=0.5), strategy=strategy, bundle_size=bundle_size)
    assert (changed.written, changed.amended_by_others, changed.dead_lettered) == (N - 1, 1, 0)
    with Transport(base) as http:
        now = http.get_json(f"RiskAssessment/{amended['id']}")
        assert (now["status"], now["meta"]["versionId"]) == ("amended", "2")
        assert now["prediction"] == amended["prediction"]
        summary = withdraw(ledger=ledger, destination=FhirServer(http, strategy=strategy), run=NIGHT)
    assert (summary.withdrawn, summary.amended_by_others) == (N - 1, 1)


@pytest.mark.parametrize("strategy", ["put", "conditional-create"])
def test_a_lost_ledger_duplicates_nothing(base: str, ledger: Ledger, strategy: str) -> None:
    night(base, ledger, strategy=strategy)
    fresh = Ledger.open("sqlite://")
    summary = night(base, fresh, strategy=strategy)
    assert (summary.found, summary.written, summary.complete) == (N, 0, True)
    assert (len(held(base)), versions(base)) == (N, {"1"})
    fresh.close()


def test_an_unknown_patient_is_a_dead_letter_and_the_others_are_written(base: str, ledger: Ledger) -> None:
    given = build_resources(
        scores(*(score(n) for n in range(3)), score(99)),
        card=CARD,
        site="ward",
        site_uri="https://ward.example",
        partition=NIGHT,
    )
    summary = night(base, ledger, given, strategy="put")
    assert (summary.written, summary.dead_lettered, summary.errors) == (3, 1, {"invalid": 1})
    assert len(held(base)) == 3
    (lost,) = ledger.find(base, state=State.DEAD_LETTER)
    assert lost.error_codes == "exception"  # HAPI's code for an entry that failed, and none of its words
    (provenance,) = held(base, "Provenance")
    assert len(provenance["target"]) == 3


def test_an_emptied_server_gets_everything_again(hapi: HapiServer, base: str, ledger: Ledger) -> None:
    night(base, ledger, strategy="put")
    hapi.empty()
    with Transport(base) as http:
        for item in ward():
            http.request("PUT", f"{item['resourceType']}/{item['id']}", json=item)
    summary = night(base, ledger, strategy="put")
    assert (summary.written, summary.confirmed, summary.complete) == (N, N, True)
    assert len(held(base)) == N


def test_a_deleted_score_stays_deleted(base: str, ledger: Ledger) -> None:
    night(base, ledger, strategy="put")
    with Transport(base) as http:
        (provenance,) = held(base, "Provenance")
        http.request("DELETE", f"Provenance/{provenance['id']}")
        http.request("DELETE", f"RiskAssessment/{held(base)[0]['id']}")
    for given in (None, resources(N, probability=0.5)):
        summary = night(base, ledger, given, strategy="put")
        assert (summary.confirmed, summary.dead_lettered) == (N - 1, 1)
        assert summary.errors["deleted"] >= 1
    assert len(held(base)) == N - 1


def complaints(found: list[dict[str, Any]]) -> list[str]:
    """Return what HL7's validator says against resources."""
    result = validate_resources(found)
    assert result.resources == len(found)
    return [
        f"{found[issue.line - 1]['resourceType']} {issue.location}: {issue.message}"
        for issue in result.errors
    ]


def test_every_kind_of_resource_passes_the_hl7_validator() -> None:
    value = score(
        1, probability=None, value=3.5, risk_level=None, modalities_present=[], basis=["labevents:1"]
    )
    facts = {"card": CARD, "site": "ward", "site_uri": "https://ward.example", "partition": NIGHT}
    built = [
        item
        for profiles in (True, False)
        for rows in (scores(score(0)), scores(value))
        for item in build_resources(rows, transparency_profiles=profiles, **facts)
    ]
    risks = [item for item in built if item["resourceType"] == "RiskAssessment"]
    built += [observation(item) for item in risks]
    built += [item | {"status": status} for item in risks for status in ("corrected", "entered-in-error")]
    own = {key_of(item): item for item in built}
    logical = [localise(item, own=own, places={}) for item in built]  # no Device, no model card there
    built += [item for item in logical if item is not None]
    kinds = {item["resourceType"] for item in built}
    assert kinds == {"RiskAssessment", "Device", "DocumentReference", "Provenance", "Observation"}
    assert complaints(built) == []


def test_what_a_server_gives_back_and_the_audit_log_pass_too(
    base: str, ledger: Ledger, tmp_path: Path
) -> None:
    log = AuditLog(tmp_path, Identity(system="https://ward.example/device", value="n1"))
    with Transport(base, audit=log) as http:
        deliver(resources(N), ledger=ledger, destination=FhirServer(http), partition=NIGHT)
    stored = [item for kind in ("RiskAssessment", "Provenance") for item in held(base, kind)]
    events = [
        json.loads(line) for path in tmp_path.iterdir() for line in path.read_text("utf-8").splitlines()
    ]
    assert {item["subtype"][0]["code"] for item in events} >= {"capabilities", "search-type", "batch"}
    assert complaints([*stored, *events]) == []
