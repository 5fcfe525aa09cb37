"""Given open ICU records, ECGs and films, expect borrowed recordings inside each stay that say so."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest
import wfdb
from PIL import Image

from deploy.errors import DeployError
from deploy.pairing import pair

STAYS = 6


def make_source(folder: Path, *, stays: int = STAYS) -> Path:
    folder.mkdir(parents=True)
    lines = []
    for number in range(stays):
        start = datetime.fromisoformat(f"2150-03-0{number + 1}T07:00:00-05:00")
        end = start + timedelta(hours=10 if number == 0 else 70)
        for code, name, part in (("IMP", "hosp", None), ("ACUTE", "icu", "hosp")):
            resource: dict[str, Any] = {
                "resourceType": "Encounter",
                "id": f"e{number}-{name}",
                "status": "finished",
                "class": {"code": code},
                "subject": {"reference": f"Patient/p{number}"},
                "period": {"start": start.isoformat(), "end": end.isoformat()},
            }
            if part:
                resource["partOf"] = {"reference": f"Encounter/e{number}-{part}"}
            lines.append(json.dumps(resource))
    (folder / "MimicEncounter.ndjson").write_text("\n".join([*lines, "{broken"]) + "\n")
    return folder


def make_ecgs(folder: Path, *, people: int) -> Path:
    import numpy as np

    (folder / "records100").mkdir(parents=True)
    rows = ["patient_id,filename_lr,filename_hr"]
    for number in range(people):
        samples = (np.sin(np.arange(1000) / (5 + number)) * 800).astype(int)[:, None].repeat(12, axis=1)
        wfdb.wrsamp(
            f"{number:05d}_lr",
            fs=100,
            units=["mV"] * 12,
            sig_name=[f"L{lead}" for lead in range(12)],
            d_signal=samples,
            fmt=["16"] * 12,
            adc_gain=[1000.0] * 12,
            baseline=[0] * 12,
            write_dir=str(folder / "records100"),
        )
        rows.append(f"{number}.0,records100/{number:05d}_lr,records500/{number:05d}_hr")
    (folder / "ptbxl_database.csv").write_text("\n".join(rows) + "\n")
    return folder


def make_films(folder: Path, *, people: int) -> Path:
    (folder / "images").mkdir(parents=True)
    rows = ["Image Index,Patient ID,View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"]
    for number in range(people):
        Image.effect_noise((64, 64), 40 + number).save(folder / "images" / f"{number:08d}_000.jpg")
        rows.append(f"{number:08d}_000.png,{number},AP,2048,2048,0.15,0.15")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Path, Path, Path]:
    source = make_source(tmp_path / "source")
    return source, make_ecgs(tmp_path / "ecgs", people=STAYS), make_films(tmp_path / "films", people=4)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_stay_gets_one_inside_its_time(tmp_path: Path, inputs: tuple[Path, Path, Path]) -> None:
    summary = pair(*inputs, tmp_path / "out", share=1.0, seed=3)
    assert summary.to_dict() == {"stays": STAYS, "ecgs": STAYS, "radiographs": 4}
    stays = {
        item["id"]: item
        for item in map(json.loads, (inputs[0] / "MimicEncounter.ndjson").read_text().splitlines()[:-1])
    }
    documents = read(tmp_path / "out" / "fhir" / "DocumentReference.paired.0001.ndjson")
    studies = read(tmp_path / "out" / "fhir" / "ImagingStudy.paired.0001.ndjson")
    times = [
        (item["context"]["encounter"][0], item["context"]["period"]["start"], item) for item in documents
    ]
    times += [(item["encounter"], item["started"], item) for item in studies]
    for encounter, text, item in times:
        stay = stays[encounter["reference"].removeprefix("Encounter/")]
        assert encounter["reference"].endswith("-icu") and item["subject"] == stay["subject"]
        assert stay["period"]["start"] < text < stay["period"]["end"]
        elapsed = datetime.fromisoformat(text) - datetime.fromisoformat(stay["period"]["start"])
        assert elapsed < timedelta(hours=48)
        assert item["meta"]["tag"][0]["code"] == "artificial-pairing"
        assert "unrelated person" in item["description"]


def test_files_are_dated_anew_and_keep_their_samples(tmp_path: Path, inputs: tuple[Path, Path, Path]) -> None:
    pair(*inputs, tmp_path / "out", share=1.0, seed=3)
    originals = {path.read_bytes() for path in inputs[1].rglob("*.dat")}
    borrowed = []
    for document in read(tmp_path / "out" / "fhir" / "DocumentReference.paired.0001.ndjson"):
        header, signal = (
            tmp_path / "out" / "wfdb" / item["attachment"]["url"] for item in document["content"]
        )
        record = wfdb.rdrecord(str(header.with_suffix("")))
        start = datetime.fromisoformat(document["context"]["period"]["start"])
        assert record.base_datetime == start.replace(tzinfo=None)
        assert "unrelated person" in record.comments[0]
        borrowed.append(signal.read_bytes())
    assert len(set(borrowed)) == STAYS and set(borrowed) <= originals
    for study in read(tmp_path / "out" / "fhir" / "ImagingStudy.paired.0001.ndjson"):
        uid = study["identifier"][0]["value"].removeprefix("urn:oid:")
        data = pydicom.dcmread(next((tmp_path / "out" / "dicom" / uid).rglob("*.dcm")))
        assert data.pixel_array.shape == (64, 64) and data.pixel_array.std() > 5
        assert "unrelated person" in data.ImageComments and data.ImagerPixelSpacing[0] == 4.8
        assert data.StudyDate == study["started"][:10].replace("-", "")


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, inputs: tuple[Path, Path, Path]) -> None:
    def digests(name: str, seed: int) -> list[str]:
        pair(*inputs, tmp_path / name, share=0.7, seed=seed)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]

    assert digests("a", 5) == digests("b", 5) != digests("c", 6)


def test_the_source_can_come_along(tmp_path: Path, inputs: tuple[Path, Path, Path]) -> None:
    pair(*inputs, tmp_path / "out", share=0.5, seed=1, include_source=True)
    copy = tmp_path / "out" / "fhir" / "MimicEncounter.ndjson"
    assert copy.read_bytes() == (inputs[0] / "MimicEncounter.ndjson").read_bytes()
    assert "plumbing only" in (tmp_path / "out" / "PAIRING.md").read_text()


def test_what_is_missing_is_named(tmp_path: Path, inputs: tuple[Path, Path, Path]) -> None:
    source, ecgs, films = inputs
    with pytest.raises(DeployError, match="no PTB-XL archive"):
        pair(source, films, films, tmp_path / "a")
    with pytest.raises(DeployError, match="no NIH ChestX-ray14 archive"):
        pair(source, ecgs, ecgs, tmp_path / "b")
    with pytest.raises(DeployError, match="no Encounter in intensive care"):
        pair(ecgs, ecgs, films, tmp_path / "c")
    with pytest.raises(DeployError, match="between 0 and 1"):
        pair(source, ecgs, films, tmp_path / "d", share=1.5)
    with pytest.raises(DeployError, match="is not empty"):
        pair(source, ecgs, films, source)
