"""The load hospital: the same bytes for a seed, FHIR R4 that the adapter takes whole, its size as promised."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from deploy.errors import DeployError
from deploy.load_hospital import build_load_hospital
from deploy.load_hospital.charts import BATCH
from fhir_adapter.census import read_census
from fhir_adapter.extract import extract_part
from fhir_adapter.images.archive import FolderArchive
from fhir_adapter.sources import FolderSource
from fhir_adapter.waveforms.archive import WaveformArchive
from modelling.catalogue import load_catalogue
from modelling.cohorts.night import night_samples
from modelling.cohorts.tasks import get_task
from modelling.mapping import map_observations

NIGHT = date(2026, 1, 15)


def build(folder: Path, patients: int, **options) -> Path:
    options = {"workers": 1, "pool": 2, **options}
    build_load_hospital(folder, patients=patients, night=NIGHT, **options)
    return folder


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("load") / "hospital", 12)


def lines_of(folder: Path, kind: str) -> list[str]:
    return [
        line
        for path in sorted((folder / "fhir").glob(f"{kind}.*"))
        for line in path.read_text("utf-8").splitlines()
    ]


def test_a_seed_gives_the_same_bytes_whoever_writes_them(hospital: Path, tmp_path: Path) -> None:
    """More patients, another batch and other processes change nothing about the first twelve."""
    larger = build(tmp_path / "larger", BATCH + 1, workers=2)
    assert len(lines_of(larger, "Patient")) == BATCH + 1
    for kind in ("Patient", "Encounter", "Observation", "DocumentReference", "ImagingStudy"):
        first = {f"load-{number:07d}" for number in range(1, 13)}
        own = [line for line in lines_of(larger, kind) if line.split('"id":"', 1)[1][:12] in first]
        assert own == lines_of(hospital, kind) and own
    other = build(tmp_path / "other", 12, seed=7)
    assert lines_of(other, "Observation")[:100] != lines_of(hospital, "Observation")[:100]


def test_compressed_files_hold_the_same(hospital: Path, tmp_path: Path) -> None:
    packed = build(tmp_path / "packed", 12, compress=True)
    name = "fhir/Observation.00001.ndjson"
    assert gzip.decompress((packed / f"{name}.gz").read_bytes()) == (hospital / name).read_bytes()


def test_a_thousand_observations_a_patient(hospital: Path, tmp_path: Path) -> None:
    larger = build(tmp_path / "batch", BATCH)
    summary = json.loads((larger / "hospital.json").read_text())
    assert 900 < summary["resources"]["Observation"] / BATCH < 1100
    assert summary["bytes"] / summary["resources"]["Observation"] < 900


def test_the_resources_are_fhir(hospital: Path) -> None:
    from fhir.resources.R4B import get_fhir_model_class

    for kind in ("Patient", "Encounter", "Observation", "DocumentReference", "ImagingStudy"):
        for line in lines_of(hospital, kind)[::97] or lines_of(hospital, kind):
            get_fhir_model_class(kind).model_validate_json(line)
            assert '"HTEST"' in line


def test_the_adapter_takes_all_of_it(hospital: Path, tmp_path: Path) -> None:
    source = FolderSource(hospital / "fhir")
    files = {kind: sorted((hospital / "fhir").glob(f"{kind}.*")) for kind in ("Patient", "Encounter")}
    census = read_census(
        patients=files["Patient"], encounters=files["Encounter"], subject_system=None, default_zone=None
    )
    assert census.quarantine.is_empty() and census.encounters.height > 12
    moment = pl.Series(["2026-01-15T04:00:00Z"]).str.to_datetime(time_zone="UTC")[0]
    samples, _ = night_samples(
        census.encounters, task=get_task("in-hospital-mortality"), prediction_time=moment, partition="n"
    )
    assert samples.height >= 8
    rows: Counter[str] = Counter()
    for part in source.plan(["Observation", "DocumentReference", "ImagingStudy"]):
        summary = extract_part(
            part,
            source.materialise(part, tmp_path),
            census_subjects=census.subjects,
            run_folder=tmp_path / "run",
            n_shards=1,
            waveform_archive=WaveformArchive(hospital / "wfdb"),
            image_archive=FolderArchive(hospital / "dicom"),
        )
        assert summary.quarantined == 0 and summary.accepted == summary.pulled
        rows.update(summary.rows)
    assert rows["recordings"] == len(lines_of(hospital, "DocumentReference")) > 0
    assert rows["images"] == len(lines_of(hospital, "ImagingStudy")) > 0
    arrays = list((tmp_path / "run").rglob("*.npy"))
    assert len(arrays) <= 4  # two ECGs and two radiographs of the pool, however many patients have them
    observations = pl.concat(
        [pl.read_parquet(path) for path in (tmp_path / "run").rglob("observations-*.parquet")]
    )
    mapped = map_observations(observations, load_catalogue())
    assert mapped.quarantine.is_empty()
    assert mapped.unmapped.filter(pl.col("coding").str.contains("NRS|72514").not_()).is_empty()


def test_a_folder_in_use_is_left_alone(hospital: Path) -> None:
    with pytest.raises(DeployError, match="not empty"):
        build(hospital, 1)
    with pytest.raises(DeployError, match="at least one"):
        build(hospital / "x", 0)
