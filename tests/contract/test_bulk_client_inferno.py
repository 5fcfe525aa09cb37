"""The checks of Inferno's Bulk Data client suite (2.0.0), with our own server in Inferno's place.

Inferno plays the server, gives Retry-After 120, and then asks of the client: a token request, a kick-off, status
polls, downloads of the output, deletion of the job
(https://github.com/inferno-framework/bulk-data-test-kit, ``v2.0.0_client``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from deploy.faults.clock import VirtualClock
from deploy.faults.fhir_server import FhirServer
from deploy.faults.loopback import Answer, Request, serving
from deploy.faults.store import ResourceStore
from deploy.faults.tokens import ASSERTION_TYPE, TokenServer
from fhir_adapter.smart import BackendServices, least_scopes, load_key
from fhir_adapter.sources import BulkSource
from fhir_adapter.transport import Transport

TYPES = ["Patient", "Observation"]
CLIENT = "inferno-client"
RETRY_AFTER = 120


@dataclass
class Exchange:
    """What the server saw, when, and what the client had at the end."""

    clock: VirtualClock = field(default_factory=VirtualClock)
    seen: list[tuple[float, Request, Answer]] = field(default_factory=list)
    files: dict[str, list[str]] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)

    def of(self, method: str, part: str) -> list[tuple[float, Request, Answer]]:
        return [item for item in self.seen if item[1].method == method and part in item[1].path]


@pytest.fixture(scope="module", params=["RS384", "ES384"])
def exchange(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    folder = tmp_path_factory.mktemp("inferno")
    found = Exchange()
    algorithm = request.param
    key = (
        ec.generate_private_key(ec.SECP384R1())
        if algorithm == "ES384"
        else rsa.generate_private_key(public_exponent=65537, key_size=2048)
    )
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    store = ResourceStore(found.clock.now)
    for number in range(450):
        store.put("Observation", f"o{number}", {"resourceType": "Observation", "id": f"o{number}"})
    for number in range(3):
        store.put("Patient", f"p{number}", {"resourceType": "Patient", "id": f"p{number}"})
    tokens = TokenServer(found.clock, client_id=CLIENT, key=key.public_key(), algorithm=algorithm)
    server = FhirServer(store, found.clock, tokens=tokens)
    server.jobs.retry_after = RETRY_AFTER

    def watched(each: Request) -> Answer:
        answer = server.handle(each)
        found.seen.append((found.clock.monotonic(), each, answer))
        return answer

    with serving(watched) as base:
        auth = BackendServices(
            base_url=f"{base}/fhir",
            client_id=CLIENT,
            key=load_key(folder / "key.pem"),
            scopes=least_scopes(read=TYPES),
            open_transport=lambda url: Transport(url, clock=found.clock),
        )
        with Transport(f"{base}/fhir", auth=auth, clock=found.clock) as transport:
            source = BulkSource(transport, folder=folder / "export", resource_types=TYPES, group="g1")
            for part in source.plan(TYPES):
                path = source.materialise(part, folder)
                found.files.setdefault(part.resource_type, []).extend(path.read_text().splitlines())
    found.refusals = tokens.refusals
    yield found


def test_the_client_asks_for_a_token_with_a_signed_assertion(exchange: Exchange) -> None:
    asked = exchange.of("POST", "/token")
    assert asked and exchange.refusals == []
    for _, request, answer in asked:
        form = parse_qs(request.body.decode())
        assert request.headers["content-type"] == "application/x-www-form-urlencoded"
        assert form["grant_type"] == ["client_credentials"]
        assert form["client_assertion_type"] == [ASSERTION_TYPE]
        assert form["scope"] == ["system/Patient.read system/Observation.read"]
        assert "authorization" not in request.headers
        assert answer.status == 200


def test_the_client_kicks_off_one_export_asynchronously(exchange: Exchange) -> None:
    ((_, request, answer),) = exchange.of("GET", "$export")
    assert request.path == "/fhir/Group/g1/$export"
    assert request.headers["accept"] == "application/fhir+json"
    assert request.headers["prefer"] == "respond-async"
    assert request.headers["authorization"].startswith("Bearer ")
    assert request.query["_type"] == ["Patient,Observation"]
    assert answer.status == 202


def test_the_client_polls_the_status_and_honours_retry_after(exchange: Exchange) -> None:
    polls = exchange.of("GET", "/jobs/")
    assert [answer.status for _, _, answer in polls] == [202, 202, 200]
    times = [moment for moment, _, _ in polls]
    assert all(later - earlier >= RETRY_AFTER for earlier, later in pairwise(times))
    assert all(request.headers["accept"] == "application/json" for _, request, _ in polls)
    assert all("authorization" in request.headers for _, request, _ in polls)


def test_the_client_downloads_every_file_of_the_manifest(exchange: Exchange) -> None:
    manifest = json.loads(exchange.of("GET", "/jobs/")[-1][2].body)
    offered = sorted(item["url"].split("/fhir/")[1] for item in manifest["output"])
    fetched = sorted(request.path.removeprefix("/fhir/") for _, request, _ in exchange.of("GET", "/files/"))
    assert fetched == offered and len(offered) == 4
    assert manifest["requiresAccessToken"] is True
    for _, request, _ in exchange.of("GET", "/files/"):
        assert request.headers["accept"] == "application/fhir+ndjson"
        assert "gzip" in request.headers["accept-encoding"]
        assert "authorization" in request.headers
    assert {kind: len(lines) for kind, lines in exchange.files.items()} == {"Patient": 3, "Observation": 450}


def test_the_client_deletes_the_job_after_its_files_are_there(exchange: Exchange) -> None:
    ((_, request, answer),) = exchange.of("DELETE", "/jobs/")
    assert request.path == exchange.of("GET", "/jobs/")[0][1].path
    assert answer.status == 202
    assert exchange.seen[-1][1] is request
