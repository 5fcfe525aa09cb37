"""Given a seed, build a hospital, expect what a hospital's systems would hold."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import wfdb
from fhir.resources.R4B import get_fhir_model_class

from deploy.demo_hospital import HospitalSummary, build_hospital
from deploy.demo_hospital.coding import (
    COMA_ANSWERS,
    COMA_PARTS,
    MEASUREMENTS,
    PRESSURE_COMPONENTS,
    PRESSURE_PANEL,
)
from deploy.demo_hospital.electrocardiogram import LEADS, synthesise
from deploy.demo_hospital.faults import KINDS
from deploy.demo_hospital.physiology import draw_course, simulate
from deploy.errors import DeployError
from validation.reasons import Reason

NIGHT = date(2026, 1, 15)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, HospitalSummary]:
    folder = tmp_path_factory.mktemp("hospital") / "tonight"
    return folder, build_hospital(folder, patients=24, night=NIGHT, history=False)


def lines(folder: Path, pattern: str) -> Iterator[tuple[str, int, str]]:
    for path in sorted((folder / "fhir").glob(pattern)):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
            yield f"fhir/{path.name}", number, line


def good(folder: Path, pattern: str) -> Iterator[dict[str, Any]]:
    bad = {(item["file"], item["line"]) for item in json.loads((folder / "faults.json").read_text("utf-8"))}
    for file, number, line in lines(folder, pattern):
        if (file, number) not in bad:
            yield json.loads(line)


def tree_digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("history", [False, True])
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, history: bool) -> None:
    for name in ("first", "second"):
        build_hospital(tmp_path / name, patients=3, night=NIGHT, history=history)
    first, second = tree_digest(tmp_path / "first"), tree_digest(tmp_path / "second")
    assert first == second
    assert len(first) > 10


def test_another_seed_gives_other_values(tmp_path: Path) -> None:
    for seed in (1, 2):
        build_hospital(tmp_path / str(seed), patients=1, seed=seed, night=NIGHT, history=False)
    name = "fhir/Observation.0001.ndjson"
    assert (tmp_path / "1" / name).read_bytes() != (tmp_path / "2" / name).read_bytes()


def test_a_patient_does_not_depend_on_how_many_others_there_are(tmp_path: Path) -> None:
    for patients in (13, 15):
        build_hospital(tmp_path / str(patients), patients=patients, night=NIGHT, history=False, faults=False)
    found = [
        [
            line
            for _, _, line in lines(tmp_path / str(patients), "Observation.0001.ndjson")
            if '"n00007-' in line
        ]
        for patients in (13, 15)
    ]
    assert found[0] == found[1] and len(found[0]) > 50


def test_each_planted_fault_lies_where_the_list_says(hospital: tuple[Path, HospitalSummary]) -> None:
    folder, summary = hospital
    placed = {(file, number): line for file, number, line in lines(folder, "*.ndjson")}
    planted = json.loads((folder / "faults.json").read_text("utf-8"))
    assert {item["kind"] for item in planted} == set(KINDS)
    assert Counter(item["reason"] for item in planted) == summary.faults
    for item in planted:
        line = placed[item["file"], item["line"]]
        Reason(item["reason"])
        if item["resource"] is None:
            with pytest.raises(json.JSONDecodeError):
                json.loads(line)
        else:
            resource = json.loads(line)
            assert f"{resource['resourceType']}/{resource['id']}" == item["resource"]
    assert len(planted) < 0.05 * len(placed)


def test_good_resources_are_r4(hospital: tuple[Path, HospitalSummary]) -> None:
    folder, summary = hospital
    seen: Counter[str] = Counter()
    for resource in good(folder, "*.ndjson"):
        kind = resource["resourceType"]
        seen[kind] += 1
        if seen[kind] % 40 == 1:
            get_fhir_model_class(kind).model_validate(resource)
        assert resource["meta"]["security"][0]["code"] == "HTEST"
    total = Counter(json.loads(line)["resourceType"] for _, _, line in lines(folder, "[!O]*.ndjson"))
    assert total == Counter(
        {kind: n for kind, n in summary.resources.items() if kind not in ("Observation", "Organization")}
    )
    assert seen["Observation"] > 3000


def test_references_resolve(hospital: tuple[Path, HospitalSummary]) -> None:
    folder, _ = hospital
    known = {f"{item['resourceType']}/{item['id']}" for item in good(folder, "*.ndjson")}
    for resource in good(folder, "*.ndjson"):
        for name in ("subject", "encounter", "partOf", "serviceProvider"):
            if name in resource:
                assert resource[name]["reference"] in known


def test_the_ward_holds_the_cases_that_nights_bring(hospital: tuple[Path, HospitalSummary]) -> None:
    folder, summary = hospital
    moment = datetime.fromisoformat(summary.prediction_time)
    stays = [item for item in good(folder, "Encounter*") if item["class"]["code"] == "IMP"]
    starts = [datetime.fromisoformat(item["period"]["start"]) for item in stays]
    assert all(0 < (moment - start).total_seconds() < 5 * 86400 for start in starts)
    assert sum((moment - start).total_seconds() < 6 * 3600 for start in starts) >= 3
    assert sum(item["status"] == "finished" for item in stays) == 2 == 24 - summary.open_stays
    births = [date.fromisoformat(item["birthDate"]) for item in good(folder, "Patient*")]
    assert sum((NIGHT - birth).days < 18 * 365 for birth in births) == 1
    subjects = {item["subject"]["reference"] for item in good(folder, "[ODI][bom]*")}
    assert len(stays) - len(subjects) == 1
    icu = [item for item in good(folder, "Encounter*") if item["class"]["code"] == "ACUTE"]
    assert len(icu) >= 18 and all(item["partOf"]["reference"].endswith("-hosp") for item in icu)
    late = [
        item for item in good(folder, "Observation.0*") if datetime.fromisoformat(item["issued"]) > moment
    ]
    assert late, (
        "a row known only after prediction time must be there, so that the night can prove to leave it out"
    )


def test_units_and_value_types_vary_as_between_wards(hospital: tuple[Path, HospitalSummary]) -> None:
    folder, _ = hospital
    units: Counter[tuple[str, str]] = Counter()
    values: Counter[str] = Counter()
    offsets: Counter[str] = Counter()
    for item in good(folder, "Observation.0*"):
        values[next((name for name in item if name.startswith("value")), "component")] += 1
        offsets["Z" if item["effectiveDateTime"].endswith("Z") else item["effectiveDateTime"][-6:]] += 1
        codes = [coding["code"] for coding in item["code"]["coding"]]
        assert item["code"]["coding"][0]["system"].endswith("/codes")
        if "valueQuantity" in item:
            units[codes[-1], item["valueQuantity"]["code"]] += 1
    assert {
        ("8310-5", "Cel"),
        ("8310-5", "[degF]"),
        ("29463-7", "kg"),
        ("29463-7", "[lb_av]"),
        ("3150-0", "%"),
    } <= set(units)
    assert {"valueQuantity", "valueInteger", "valueCodeableConcept", "component"} == set(values)
    assert {"Z", "+01:00"} == set(offsets)
    assert any(
        item.get("valueQuantity", {}).get("comparator") == "<" for item in good(folder, "Observation.0*")
    )


def test_ecg_attachments_match_their_files(hospital: tuple[Path, HospitalSummary]) -> None:
    folder, summary = hospital
    documents = list(good(folder, "DocumentReference*"))
    for document in documents:
        for content in document["content"]:
            item = content["attachment"]
            data = (folder / "wfdb" / item["url"]).read_bytes()
            assert item["size"] == len(data)
            assert base64.b64decode(item["hash"]) == hashlib.sha1(data).digest()
    record = wfdb.rdrecord(str(folder / "wfdb" / documents[0]["content"][0]["attachment"]["url"])[:-4])
    assert tuple(record.sig_name) == LEADS and record.units == ["mV"] * 12
    assert np.isfinite(record.p_signal).all() and 0.2 < np.ptp(record.p_signal) < 10
    sampled = list(good(folder, "Observation.ecg*"))
    assert sampled and all(len(item["component"]) == 12 for item in sampled)
    assert len(documents) + len(sampled) <= summary.ecgs


def test_radiographs_decode(hospital: tuple[Path, HospitalSummary]) -> None:
    folder, _ = hospital
    kinds: Counter[str] = Counter()
    for study in good(folder, "ImagingStudy*"):
        uid = study["identifier"][0]["value"].removeprefix("urn:oid:")
        series = study["series"][0]
        data = pydicom.dcmread(folder / "dicom" / uid / series["uid"] / f"{series['instance'][0]['uid']}.dcm")
        pixels = data.pixel_array
        assert pixels.shape == (256, 256) and pixels.max() < 2**data.BitsStored and pixels.std() > 100
        assert "SYNTHETIC" in data.ImageComments and data.ViewPosition in ("AP", "PA")
        kinds[data.PhotometricInterpretation] += 1
    assert set(kinds) == {"MONOCHROME1", "MONOCHROME2"}


def test_a_flood_takes_the_unit_from_more_than_thirty_percent(tmp_path: Path) -> None:
    build_hospital(tmp_path / "flood", patients=6, night=NIGHT, history=False, faults="flood")
    items = list(good(tmp_path / "flood", "Observation.0*"))
    bare = sum("valueQuantity" in item and "code" not in item["valueQuantity"] for item in items)
    assert bare > 0.30 * len(items)


def test_history_ends_with_outcomes(tmp_path: Path) -> None:
    summary = build_hospital(tmp_path / "history", patients=40, night=NIGHT, history=True, faults=False)
    assert summary.open_stays == 0 and 2 <= summary.deaths <= 14 and not summary.faults
    dead = {item["id"] for item in good(tmp_path / "history", "Patient*") if "deceasedDateTime" in item}
    for stay in good(tmp_path / "history", "Encounter*"):
        assert stay["status"] == "finished" and "end" in stay["period"]
        if "hospitalization" in stay:
            expired = stay["hospitalization"]["dischargeDisposition"]["coding"][0]["code"] == "exp"
            assert expired == (stay["subject"]["reference"].removeprefix("Patient/") in dead)
    assert len(dead) == summary.deaths


def test_severity_speaks_in_every_modality() -> None:
    ill, well = [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        course = draw_course(rng, 72)
        values = simulate(course, age=60, male=True, rng=rng)
        samples = synthesise(heart_rate=75, severity=course.at("heart", 24), sampling_rate=100, rng=rng)
        row = (
            values["lactate"].mean(),
            values["coma_motor"].mean(),
            values["saturation"].mean(),
            float(samples[:, 7].std()),
        )
        (ill if course.risk > 0.3 else well).append((*row, course.risk))
    sick, healthy = np.mean(ill, axis=0), np.mean(well, axis=0)
    assert sick[0] > 1.3 * healthy[0] and sick[1] < healthy[1] - 0.5 and sick[2] < healthy[2] - 1
    assert abs(sick[3] / healthy[3] - 1) > 0.02
    assert 0.12 < np.mean([row[-1] for row in ill + well]) < 0.23


def test_a_folder_with_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("mine")
    with pytest.raises(DeployError, match="is not empty"):
        build_hospital(tmp_path, patients=1, night=NIGHT, history=False)
    with pytest.raises(DeployError, match="at least one patient"):
        build_hospital(tmp_path / "new", patients=0, night=NIGHT, history=False)


def loinc_check_digit(code: str) -> int:
    """Mod-10 check digit as LOINC's users' guide describes it (appendix C)."""
    digits = code.split("-")[0]
    odd = "".join(reversed(digits))[::2][::-1]
    even = "".join(reversed(digits))[1::2][::-1]
    total = sum(int(digit) for digit in even + str(int(odd) * 2))
    return -total % 10


def test_loinc_codes_pass_their_check_digit() -> None:
    codes = [code for measurement in MEASUREMENTS for code in measurement.loinc]
    codes += [part[1] for part in PRESSURE_COMPONENTS] + [part[2] for part in COMA_PARTS]
    codes += [PRESSURE_PANEL, "8302-2", "29463-7", "15074-8", "11524-6"]
    assert [code for code in codes if loinc_check_digit(code) != int(code[-1])] == []
    answers = [code.removeprefix("LA") for levels in COMA_ANSWERS.values() for code, _ in levels]
    # The prefix LA counts as 5: LA33-6 (yes), LA32-8 (no) and LA6576-8 (positive) are well known.
    wrong = [code for code in answers if (loinc_check_digit(code) + 5) % 10 != int(code[-1])]
    assert wrong == []
