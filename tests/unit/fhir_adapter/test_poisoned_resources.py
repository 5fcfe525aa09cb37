"""Whatever a feed puts in the place of any element costs that resource, never the night."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fhir_adapter.census import read_census
from fhir_adapter.errors import Refusal
from fhir_adapter.extract import extract_part
from fhir_adapter.images.archive import FolderArchive
from fhir_adapter.images.study import StudyReader
from fhir_adapter.limits import Limits
from fhir_adapter.observations.exact import read_observation
from fhir_adapter.observations.reader import has_sampled_data
from fhir_adapter.sources import Part
from fhir_adapter.waveforms.recording import RecordingReader

SUBJECTS = {"p1": 1}
LOINC = "http://loinc.org"


def code(value: str) -> dict[str, Any]:
    return {"coding": [{"system": LOINC, "code": value}], "text": "x"}


QUANTITY = {
    "value": 5,
    "comparator": "<",
    "unit": "mg/dL",
    "system": "http://unitsofmeasure.org",
    "code": "mg/dL",
}
SUBJECT = {"reference": "Patient/p1"}
TIME = "2026-01-01T10:00:00+01:00"
SAMPLED = {
    "origin": {"value": 0, "unit": "uV", "system": "http://unitsofmeasure.org", "code": "uV"},
    "period": 2,
    "factor": 5,
    "dimensions": 1,
    "data": "1 2 3 E L",
}
META = {"versionId": "1", "lastUpdated": TIME}
RESOURCES: dict[str, dict[str, Any]] = {
    "Observation": {
        "resourceType": "Observation",
        "id": "o1",
        "meta": META,
        "status": "final",
        "code": code("85354-9"),
        "subject": SUBJECT,
        "encounter": {"reference": "Encounter/e1"},
        "effectiveDateTime": TIME,
        "issued": TIME,
        "valueQuantity": QUANTITY,
        "component": [{"code": code("8480-6"), "valueQuantity": QUANTITY}],
    },
    "waveform": {
        "resourceType": "Observation",
        "id": "o2",
        "meta": META,
        "status": "final",
        "code": code("11524-6"),
        "subject": SUBJECT,
        "effectivePeriod": {"start": TIME, "end": TIME},
        "component": [
            {"code": {"coding": [{"system": "urn:oid:2.16.840.1.113883.6.24", "code": "131329"}]}}
            | {"valueSampledData": SAMPLED}
        ],
    },
    "DocumentReference": {
        "resourceType": "DocumentReference",
        "id": "d1",
        "meta": META,
        "status": "current",
        "docStatus": "final",
        "subject": SUBJECT,
        "date": TIME,
        "content": [
            {"attachment": {"contentType": "application/x-wfdb-header", "title": "a.hea", "url": "a.hea"}},
            {"attachment": {"title": "a.dat", "data": "AAAA", "size": 3, "hash": "AA==", "creation": TIME}},
        ],
        "context": {"period": {"start": TIME}, "encounter": [{"reference": "Encounter/e1"}]},
    },
    "Media": {
        "resourceType": "Media",
        "id": "m1",
        "status": "completed",
        "subject": SUBJECT,
        "createdDateTime": TIME,
        "issued": TIME,
        "content": {"contentType": "application/dicom", "title": "a.dcm", "data": "AAAA"},
    },
    "ImagingStudy": {
        "resourceType": "ImagingStudy",
        "id": "s1",
        "meta": META,
        "status": "available",
        "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}],
        "modality": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "DX"}],
        "subject": SUBJECT,
        "encounter": {"reference": "Encounter/e1"},
        "started": TIME,
        "series": [{"uid": "1.2.3.4", "modality": {"code": "DX"}, "instance": [{"uid": "1.2.3.4.5"}]}],
    },
    "Patient": {
        "resourceType": "Patient",
        "id": "p1",
        "meta": META,
        "active": True,
        "identifier": [{"system": "urn:mrn", "value": "17"}],
        "gender": "female",
        "birthDate": "1950-01-01",
        "deceasedDateTime": TIME,
    },
    "Encounter": {
        "resourceType": "Encounter",
        "id": "e1",
        "meta": META,
        "status": "in-progress",
        "identifier": [{"system": "urn:x/encounter-icu", "value": "1"}],
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "ACUTE"},
        "type": [{"coding": [{"system": "http://snomed.info/sct", "code": "305351004"}]}],
        "serviceType": {"coding": [{"code": "ICU"}]},
        "subject": SUBJECT,
        "period": {"start": TIME, "end": TIME},
        "partOf": {"reference": "Encounter/e0"},
        "location": [
            {"location": {"reference": "Location/l1", "display": "ICU"}, "status": "active"}
            | {"period": {"start": TIME}, "physicalType": {"coding": [{"code": "wa"}]}}
        ],
        "hospitalization": {
            "admitSource": {"coding": [{"code": "gp"}]},
            "dischargeDisposition": {"coding": [{"code": "exp"}], "text": "x"},
        },
    },
}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
poison: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.sampled_from(
        ["", " ", "\0", "../../etc/passwd", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "1e999"]
    )
    | st.sampled_from([10**400, -(10**30), 1e308, 5e-324, "x" * 3000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every element below a value."""
    found = [path] if path else []
    if isinstance(value, dict):
        return found + [place for key, child in value.items() for place in places(child, (*path, key))]
    if isinstance(value, list):
        return found + [place for key, child in enumerate(value) for place in places(child, (*path, key))]
    return found


@st.composite
def poisoned(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    name = draw(st.sampled_from(sorted(RESOURCES)))
    resource = copy.deepcopy(RESOURCES[name])
    for path in draw(st.lists(st.sampled_from(places(resource)), min_size=1, max_size=2)):
        holder: Any = resource
        try:
            for step in path[:-1]:
                holder = holder[step]
            if draw(st.booleans()) and isinstance(holder, dict) and path[-1] != "resourceType":
                del holder[path[-1]]
            else:
                holder[path[-1]] = draw(poison)
        except (KeyError, IndexError, TypeError):
            continue  # the first change took this place away
    return name, resource


@given(case=poisoned())
@settings(
    max_examples=600,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_readers_refuse_and_never_trip(case: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    name, resource = case
    limits = Limits()
    try:
        if name in {"Observation", "waveform"}:
            if has_sampled_data(resource):
                recordings(tmp_path, limits).read_observation(resource)
            else:
                read_observation(resource, subjects=SUBJECTS, default_zone=None)
        elif name in {"DocumentReference", "Media"}:
            recordings(tmp_path, limits).read_document(resource)
        elif name == "ImagingStudy":
            StudyReader(
                archive=FolderArchive(tmp_path),
                run_folder=tmp_path,
                subjects=SUBJECTS,
                default_zone=None,
                limits=limits,
            ).read_study(resource)
        else:
            census(name, resource, tmp_path)
    except Refusal:
        pass


def recordings(folder: Path, limits: Limits) -> RecordingReader:
    return RecordingReader(
        archive=None, run_folder=folder, subjects=SUBJECTS, default_zone=None, limits=limits
    )


def census(name: str, resource: dict[str, Any], folder: Path) -> None:
    """Read a census with one poisoned resource; its account must add up."""
    lines = {kind: [RESOURCES[kind]] for kind in ("Patient", "Encounter")}
    lines[name] = [resource]
    for kind, items in lines.items():
        (folder / f"{kind}.ndjson").write_text("\n".join(map(json.dumps, items)) + "\n")
    found = read_census(
        patients=[folder / "Patient.ndjson"],
        encounters=[folder / "Encounter.ndjson"],
        subject_system=None,
        default_zone=None,
    )
    refused = found.quarantine.filter(pl.col("whole")).height
    assert (found.pulled, found.pulled) == (2, found.accepted + refused)


@given(cases=st.lists(poisoned(), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_of_poison_is_accounted_for_to_the_last_line(
    cases: list[tuple[str, dict[str, Any]]], tmp_path: Path
) -> None:
    path = tmp_path / "Observation.ndjson"
    path.write_text("\n".join(json.dumps(resource) for _, resource in cases) + "\n")
    summary = extract_part(
        Part("poison", "Observation", {"file": path.name}),
        path,
        census_subjects=pl.DataFrame({"patient_id": ["p1"], "subject_id": [1]}),
        run_folder=tmp_path / "run",
        n_shards=2,
    )
    assert summary.pulled == len(cases) == summary.accepted + summary.quarantined


def test_what_no_reader_foresaw_costs_one_resource(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trips(*arguments: Any, **fields: Any) -> Any:
        raise KeyError("Jane Doe")

    monkeypatch.setattr("fhir_adapter.observations.reader.read_observation", trips)
    path = tmp_path / "Observation.ndjson"
    strange = RESOURCES["Observation"] | {
        "id": "o9",
        "note": [{"text": "Ω"}],
        "valueQuantity": {"value": "x"},
    }
    path.write_text("\n".join(json.dumps(item) for item in (RESOURCES["Observation"], strange)) + "\n")
    summary = extract_part(
        Part("poison", "Observation", {"file": path.name}),
        path,
        census_subjects=pl.DataFrame({"patient_id": ["p1"], "subject_id": [1]}),
        run_folder=tmp_path / "run",
        n_shards=1,
    )
    quarantine = pl.read_parquet(tmp_path / "run/extract/poison/quarantine.parquet")
    assert summary.pulled == 2 == summary.accepted + summary.quarantined
    assert "KeyError" in str(quarantine["detail"].to_list()) and "Jane" not in str(quarantine.to_dicts())
