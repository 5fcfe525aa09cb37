"""Real HAPI FHIR, Orthanc, PostgreSQL and HL7 validator: started, loaded, asked, stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
import sqlalchemy as sa

from deploy.demo_hospital import build_hospital
from deploy.night.report_delivery import deliver_report
from deploy.servers import (
    HapiServer,
    LoadSummary,
    Orthanc,
    PostgreSQL,
    load_hospital,
    prerequisites,
    validate,
    validate_resources,
)
from deploy.settings import Settings
from fhir_adapter.census import read_census
from fhir_adapter.extract import extract_part
from fhir_adapter.images.archive import FolderArchive, ImageArchive
from fhir_adapter.images.dicomweb import DicomWebArchive
from fhir_adapter.smart import BasicAuth
from fhir_adapter.sources.folder import FolderSource
from fhir_adapter.sources.search import SearchSource
from fhir_adapter.transport import Transport
from fhir_adapter.waveforms.archive import WaveformArchive
from validation.equations import Counts
from validation.report import ReportFacts, render_page
from validation.report.exchange import document_reference, measure_report

FOUND = {item.name: item for item in prerequisites()}


def needs(*names: str) -> pytest.MarkDecorator:
    missing = [FOUND[name] for name in names if FOUND[name].found is None]
    words = "; ".join(f"{item.name} is not here: {item.remedy}" for item in missing)
    return pytest.mark.skipif(bool(missing), reason=words or "all here")


JAVA = ("JDK 17 or newer", "Maven")
PACS = ("Orthanc with DICOMweb",)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("servers") / "hospital"
    build_hospital(folder, patients=12, night=date(2026, 1, 15), history=False)
    return folder


@pytest.fixture(scope="module")
def loaded(hospital: Path) -> Iterator[tuple[HapiServer, Orthanc, LoadSummary]]:
    with HapiServer() as fhir, Orthanc() as pacs:
        summary = load_hospital(
            hospital,
            fhir_base=fhir.base_url,
            dicomweb_base=pacs.dicomweb_url,
            dicomweb_auth=(pacs.user, pacs.password),
        )
        yield fhir, pacs, summary


def read_all(
    source: FolderSource | SearchSource, run: Path, waveforms: WaveformArchive, images: ImageArchive
) -> dict[str, pl.DataFrame]:
    """Read a source to its end and return its tables."""
    files = {
        kind: [source.materialise(part, run / "downloads") for part in source.plan([kind])]
        for kind in ("Patient", "Encounter")
    }
    census = read_census(
        patients=files["Patient"], encounters=files["Encounter"], subject_system=None, default_zone=None
    )
    frames: dict[str, list[pl.DataFrame]] = {}
    for part in source.plan(["Observation", "DocumentReference", "ImagingStudy"]):
        summary = extract_part(
            part,
            source.materialise(part, run / "downloads"),
            census_subjects=census.subjects,
            run_folder=run,
            n_shards=2,
            waveform_archive=waveforms,
            image_archive=images,
        )
        assert summary.pulled == summary.accepted + summary.quarantined
        for manifest in summary.manifests:
            frames.setdefault(manifest["table"], []).append(pl.read_parquet(run / manifest["path"]))
    return {table: pl.concat(found) for table, found in frames.items()}


def count(base: str, query: str) -> int:
    answer = httpx.get(f"{base}/{query}", timeout=60)
    answer.raise_for_status()
    return int(answer.json()["total"])


@needs(*JAVA, *PACS)
@pytest.mark.hapi
@pytest.mark.orthanc
@pytest.mark.slow
class TestLoadedHospital:
    def test_the_server_holds_what_the_files_hold(
        self, hospital: Path, loaded: tuple[HapiServer, Orthanc, LoadSummary]
    ) -> None:
        fhir, _, summary = loaded
        for kind in ("Patient", "Encounter", "DocumentReference", "ImagingStudy", "Location"):
            lines = sum(
                path.read_bytes().count(b"\n") for path in (hospital / "fhir").glob(f"{kind}.*.ndjson")
            )
            assert summary.resources[kind] == lines == count(fhir.base_url, f"{kind}?_summary=count")
        planted = json.loads((hospital / "faults.json").read_text("utf-8"))
        unloadable = {
            f"{Path(item['file']).name}:{item['line']}"
            for item in planted
            if item["reason"] in ("json.unreadable", "subject.unknown")
        }
        refused = {place for place, _ in summary.rejected}
        assert unloadable <= refused
        assert refused <= {f"{Path(item['file']).name}:{item['line']}" for item in planted}

    def test_a_corrected_result_is_the_current_one(
        self, hospital: Path, loaded: tuple[HapiServer, Orthanc, LoadSummary]
    ) -> None:
        fhir, _, _ = loaded
        planted = json.loads((hospital / "faults.json").read_text("utf-8"))
        reference = next(item["resource"] for item in planted if item["reason"] == "resource.superseded")
        assert httpx.get(f"{fhir.base_url}/{reference}", timeout=60).json()["status"] == "corrected"

    def test_an_ecg_lies_behind_its_binary(
        self, hospital: Path, loaded: tuple[HapiServer, Orthanc, LoadSummary]
    ) -> None:
        fhir, _, summary = loaded
        bundle = httpx.get(f"{fhir.base_url}/DocumentReference?_count=50", timeout=60).json()
        items = [
            content["attachment"]
            for entry in bundle["entry"]
            for content in entry["resource"]["content"]
            if content["attachment"]["url"].startswith("Binary/")
        ]
        assert len(items) == summary.resources["Binary"] > 4
        headers = {"Accept": "application/octet-stream"}
        data = httpx.get(f"{fhir.base_url}/{items[0]['url']}", headers=headers, timeout=60).content
        file = next((hospital / "wfdb").rglob(items[0]["title"]))
        assert data == file.read_bytes()

    def test_the_pacs_holds_the_images_and_the_endpoint_leads_to_it(
        self, hospital: Path, loaded: tuple[HapiServer, Orthanc, LoadSummary]
    ) -> None:
        fhir, pacs, summary = loaded
        endpoint = httpx.get(f"{fhir.base_url}/Endpoint/demo-pacs", timeout=60).json()
        assert endpoint["address"] == pacs.dicomweb_url
        files = list((hospital / "dicom").rglob("*.dcm"))
        broken = sum(path.read_bytes()[128:132] != b"DICM" for path in files)
        assert (summary.instances, summary.instances_rejected) == (len(files) - broken, broken)
        login = httpx.BasicAuth(pacs.user, pacs.password)
        assert len(httpx.get(f"{pacs.dicomweb_url}/studies", auth=login).json()) == summary.instances
        assert httpx.get(f"{pacs.dicomweb_url}/studies").status_code == 401

    def test_the_adapter_reads_over_http_what_it_reads_from_the_folder(
        self, hospital: Path, loaded: tuple[HapiServer, Orthanc, LoadSummary], tmp_path: Path
    ) -> None:
        fhir, pacs, _ = loaded
        login = BasicAuth(pacs.user, pacs.password)
        with Transport(fhir.base_url) as server, Transport(pacs.dicomweb_url, auth=login) as images:
            online = read_all(
                SearchSource(server),
                tmp_path / "online",
                WaveformArchive(hospital / "wfdb", transport=server),
                DicomWebArchive(images),
            )
        folder = read_all(
            FolderSource(hospital / "fhir"),
            tmp_path / "folder",
            WaveformArchive(hospital / "wfdb"),
            FolderArchive(hospital / "dicom"),
        )
        keys = {
            "recordings": ["recording_id", "subject_id", "time", "carrier", "array_sha256"],
            "images": ["image_id", "subject_id", "time", "view", "array_sha256"],
            "observations": ["source_ref", "component", "subject_id", "time", "value", "unit_code", "status"],
        }
        for table, names in keys.items():
            # resources without an own version order come in the server's order, so both are sorted
            shown = [frames[table].select(names).sort(names) for frames in (online, folder)]
            assert shown[0].equals(shown[1]), table
            assert shown[0].height > 3

    def test_emptied(self, loaded: tuple[HapiServer, Orthanc, LoadSummary]) -> None:
        fhir, _, _ = loaded
        fhir.empty()
        assert count(fhir.base_url, "Patient?_summary=count") == 0

    def test_the_report_is_written_once_and_replaced_when_the_night_runs_again(
        self, hospital: Path, loaded: tuple[HapiServer, Orthanc, LoadSummary]
    ) -> None:
        fhir, _, _ = loaded
        settings = Settings(
            source={"kind": "folder", "folder": hospital},
            destination={"kind": "fhir", "base_url": fhir.base_url, "report": "counts-and-page"},
        )
        for pulled in (5, 6):
            facts = ReportFacts(
                site="ward",
                partition="2026-01-15",
                prediction_time=None,
                replay="icu+48h",
                generated_at=datetime(2026, 1, 15, 5, 30, tzinfo=UTC),
                counts=Counts(pulled=pulled, accepted=pulled),
            )
            delivered = deliver_report(settings, facts, render_page(facts))
            assert delivered == {"MeasureReport": "written", "DocumentReference": "written"}
        bundle = httpx.get(f"{fhir.base_url}/MeasureReport", timeout=60).json()
        (report,) = (entry["resource"] for entry in bundle["entry"])
        assert report["group"][0]["population"][0]["count"] == 6
        assert report["meta"]["versionId"] == "2"


@needs(*JAVA)
@pytest.mark.hapi
@pytest.mark.slow
def test_the_hospitals_own_resources_pass_the_hl7_validator(hospital: Path, tmp_path: Path) -> None:
    planted = {
        (Path(item["file"]).name, item["line"])
        for item in json.loads((hospital / "faults.json").read_text("utf-8"))
    }
    seen: dict[str, int] = {}
    lines = []
    for path in sorted((hospital / "fhir").glob("*.ndjson")):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
            if (path.name, number) in planted:
                continue
            resource: dict[str, Any] = json.loads(line)
            codes = [coding["code"] for coding in resource.get("code", {}).get("coding", [])]
            value = next((name for name in resource if name.startswith("value")), "")
            kind = f"{resource['resourceType']} {codes} {value} {resource.get('status')}"
            seen[kind] = seen.get(kind, 0) + 1
            if seen[kind] <= 2:
                lines.append(line)
    file = tmp_path / "sample.ndjson"
    file.write_text("\n".join(lines) + "\n", "utf-8")
    result = validate([file])
    assert result.resources == len(lines) > 60
    assert [f"{issue.location}: {issue.message}" for issue in result.errors] == []


@needs(*JAVA)
@pytest.mark.hapi
@pytest.mark.slow
def test_the_validator_finds_what_is_wrong() -> None:
    good = {
        "resourceType": "RiskAssessment",
        "status": "final",
        "subject": {"reference": "Patient/1"},
        "prediction": [{"probabilityDecimal": 0.25}],
    }
    wrong = good | {"status": "done"}
    more_than_certain = good | {"prediction": [{"probabilityDecimal": 101}]}
    facts = ReportFacts(
        site="ward",
        partition="2026-01-15",
        prediction_time=datetime(2026, 1, 15, 4, tzinfo=UTC),
        generated_at=datetime(2026, 1, 15, 5, 30, tzinfo=UTC),
        counts=Counts(pulled=5, accepted=5),
    )
    uri = "https://hospital.example"
    report = [
        measure_report(facts, site_uri=uri),
        document_reference(facts, render_page(facts), site_uri=uri),
    ]
    result = validate_resources([good, wrong, more_than_certain, *report])
    assert result.resources == 5
    assert {issue.line for issue in result.errors} == {2, 3}
    assert [len(issues) > 1 for issues in result.by_file().values()] == [True]


@needs("PostgreSQL server")
def test_postgresql_starts_empty_and_asks_for_a_password() -> None:
    with PostgreSQL() as server:
        engine = sa.create_engine(server.url)
        with engine.begin() as connection:
            connection.execute(sa.text("create table night (id int)"))
            assert connection.execute(sa.text("select count(*) from night")).scalar() == 0
        engine.dispose()
        stranger = sa.create_engine(server.url.replace(server.password, "wrong"))
        with pytest.raises(sa.exc.OperationalError):
            stranger.connect()
    with pytest.raises(sa.exc.OperationalError):
        sa.create_engine(server.url).connect()
