"""Search, bulk export and Binary attachments against a real HAPI FHIR JPA server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from deploy.servers.hapi import HapiServer
from fhir_adapter.census import read_census
from fhir_adapter.extract import extract_part
from fhir_adapter.sources import BulkSource, PollPolicy, SearchSource
from fhir_adapter.sources.capabilities import read_capabilities
from fhir_adapter.transport import Transport
from fhir_adapter.waveforms.archive import WaveformArchive

pytestmark = [pytest.mark.hapi, pytest.mark.slow]

TYPES = ["Patient", "Encounter", "Observation", "DocumentReference"]
N_OBSERVATIONS = 230


def wfdb_pair() -> tuple[bytes, bytes, np.ndarray]:
    digital = np.arange(1200, dtype=np.int16).reshape(100, 12)
    leads = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
    lines = ["rec 12 100 100"]
    for number, lead in enumerate(leads):
        checksum = (int(digital[:, number].astype(np.int64).sum()) + 32768) % 65536 - 32768
        lines.append(f"rec.dat 16 1000(0)/mV 16 0 {digital[0, number]} {checksum} 0 {lead}")
    return "\n".join(lines).encode() + b"\n", digital.tobytes(), digital


def hospital() -> list[dict[str, Any]]:
    import base64

    head, data, _ = wfdb_pair()
    start = datetime(2026, 1, 1, tzinfo=UTC)
    resources: list[dict[str, Any]] = [
        {"resourceType": "Patient", "id": f"p{n}", "gender": "female", "birthDate": "1950-01-01"}
        for n in range(3)
    ]
    resources += [
        {
            "resourceType": "Encounter",
            "id": f"e{n}",
            "status": "in-progress",
            "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
            "subject": {"reference": f"Patient/p{n}"},
            "period": {"start": start.isoformat()},
        }
        for n in range(3)
    ]
    resources += [
        {
            "resourceType": "Observation",
            "id": f"o{n}",
            "status": "final",
            "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
            "subject": {"reference": f"Patient/p{n % 3}"},
            "encounter": {"reference": f"Encounter/e{n % 3}"},
            "effectiveDateTime": (start + timedelta(minutes=n)).isoformat(),
            "valueQuantity": {
                "value": 60 + n / 10,
                "unit": "/min",
                "system": "http://unitsofmeasure.org",
                "code": "/min",
            },
        }
        for n in range(N_OBSERVATIONS)
    ]
    for key, content in (("hea", head), ("dat", data)):
        resources.append(
            {
                "resourceType": "Binary",
                "id": f"rec-{key}",
                "contentType": "application/octet-stream",
                "data": base64.b64encode(content).decode(),
            }
        )
    resources.append(
        {
            "resourceType": "DocumentReference",
            "id": "d1",
            "status": "current",
            "subject": {"reference": "Patient/p0"},
            "date": start.isoformat(),
            "content": [
                {
                    "attachment": {
                        "url": f"Binary/rec-{key}",
                        "title": f"rec.{key}",
                        "contentType": "application/octet-stream",
                    }
                }
                for key in ("hea", "dat")
            ],
        }
    )
    return resources


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with HapiServer() as server, Transport(server.base_url) as transport:
        entries = [
            {"resource": item, "request": {"method": "PUT", "url": f"{item['resourceType']}/{item['id']}"}}
            for item in hospital()
        ]
        reply = transport.request(
            "POST",
            "",
            json={"resourceType": "Bundle", "type": "transaction", "entry": entries},
            idempotent=True,
        )
        assert reply.status == 200
        yield server.base_url


def test_search_pages_through_everything_and_the_night_can_read_it(base: str, tmp_path: Path) -> None:
    with Transport(base) as transport:
        source = SearchSource(transport, page_size=50)
        files = {part.resource_type: source.materialise(part, tmp_path) for part in source.plan(TYPES)}
        counts = json.loads((tmp_path / "Observation.counts.json").read_text())
        assert counts["matches"] == counts["total"] == N_OBSERVATIONS
        assert counts["pages"] >= 5
        census = read_census(
            patients=[files["Patient"]],
            encounters=[files["Encounter"]],
            subject_system=None,
            default_zone=None,
        )
        assert (census.pulled, census.accepted, census.encounters.height) == (6, 6, 3)
        for part in source.plan(["Observation", "DocumentReference"]):
            summary = extract_part(
                part,
                source.materialise(part, tmp_path),
                census_subjects=census.subjects,
                run_folder=tmp_path / "run",
                n_shards=2,
                waveform_archive=WaveformArchive(transport=transport),
            )
            assert summary.quarantined == 0
            assert summary.pulled == summary.accepted
        (recording,) = [item for item in summary.manifests if item["table"] == "recordings"]
        row = pl.read_parquet(tmp_path / "run" / recording["path"]).row(0, named=True)
        expected = wfdb_pair()[2].T / 1000
        np.testing.assert_allclose(np.load(tmp_path / "run" / row["array_path"]), expected, atol=1e-6)


def test_the_watermark_finds_only_what_changed(base: str, tmp_path: Path) -> None:
    with Transport(base) as transport:
        later = SearchSource(transport, since=datetime.now(UTC) + timedelta(hours=1), overlap=timedelta(0))
        (part,) = later.plan(["Observation"])
        assert later.materialise(part, tmp_path / "none").read_text() == ""
        everything = SearchSource(transport, since=datetime.now(UTC) - timedelta(hours=1), page_size=100)
        (part,) = everything.plan(["Observation"])
        assert len(everything.materialise(part, tmp_path / "all").read_text().splitlines()) == N_OBSERVATIONS


def test_bulk_export_gives_the_same_resources(base: str, tmp_path: Path) -> None:
    with Transport(base) as transport:
        bulk = BulkSource(
            transport,
            folder=tmp_path / "export",
            resource_types=["Patient", "Encounter", "Observation"],
            poll=PollPolicy(first=1.0, cap=2.0, longest=300),
        )
        parts = bulk.plan(["Observation"])
        ids = {
            json.loads(line)["id"]
            for part in parts
            if part.resource_type == "Observation"
            for line in bulk.materialise(part, tmp_path).read_text().splitlines()
        }
        assert ids == {f"o{n}" for n in range(N_OBSERVATIONS)}
        assert bulk.transaction_time is not None


def test_the_server_says_what_it_can_do(base: str) -> None:
    with Transport(base) as transport:
        capabilities = read_capabilities(transport)
    assert capabilities.fhir_version.startswith("4.0")
    assert capabilities.missing_search(TYPES) == []
    assert capabilities.bulk_export
