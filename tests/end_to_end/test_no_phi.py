"""What Airflow keeps of a night (logs, XCom, its database) and what the night shows names no patient."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.demo.run import DemoResult

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

SHOWN = ("report", "gate", "write_back", "validate", "map")


def identifiers(hospital: Path) -> list[bytes]:
    """Return every id and file number of patients and stays, every DICOM UID, and every birth date."""
    found: set[str] = set()
    for path in (hospital / "fhir").glob("*.ndjson"):
        if path.name.split(".")[0] not in {"Patient", "Encounter", "DocumentReference", "ImagingStudy"}:
            continue
        for line in path.read_text("utf-8").splitlines():
            resource = json.loads(line)
            found.add(resource["id"])
            found |= {item["value"] for item in resource.get("identifier", ())}
            found |= {resource[name] for name in ("birthDate",) if name in resource}
            found |= {name["text"] for name in resource.get("name", ())}
    found |= {path.stem for path in (hospital / "dicom").rglob("*.dcm")}
    assert len(found) > 100
    return [word.encode() for word in sorted(found)]


def leaks(paths: list[Path], words: list[bytes]) -> dict[str, list[bytes]]:
    found = {}
    for path in paths:
        content = path.read_bytes()
        here = [word for word in words if word in content]
        if here:
            found[str(path)] = here[:3]
    return found


def test_logs_xcom_and_reports_name_no_patient(first_night: DemoResult, demo_root: Path) -> None:
    words = identifiers(demo_root / "tonight")
    airflow = [path for path in (demo_root / "airflow").rglob("*") if path.is_file()]
    assert any(path.suffix == ".log" for path in airflow)
    database = next(path for path in airflow if path.name == "airflow.sqlite")
    assert b"nightly_inference" in database.read_bytes(), "XCom and task instances live here"
    run = first_night.run.path
    shown = [path for name in SHOWN for path in (run / name).rglob("*") if path.suffix != ".parquet"]
    shown += [*run.glob("*.json"), *run.glob("*.jsonl"), *run.glob("extract/*/summary.json")]
    files = [path for path in [*airflow, *shown] if path.is_file()]
    assert run / "report/index.html" in files
    assert leaks(files, words) == {}
    scores = list(Path(first_night.summary["write_back"]["location"]).glob("RiskAssessment.*"))
    assert leaks(scores, words), "the scores do name patients: the search would find them"
