"""The census of the real MIMIC-IV demo on FHIR."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from fhir_adapter.census import Census, read_census
from fhir_adapter.extract import extract_part
from fhir_adapter.sources import FolderSource
from validation.contracts.store import check_table

SYSTEM = "http://mimic.mit.edu/fhir/mimic/identifier/patient"


@pytest.fixture(scope="module")
def source(data_dir: Path) -> FolderSource:
    return FolderSource(data_dir / "mimic-iv-demo-fhir")


@pytest.fixture(scope="module")
def census(source: FolderSource, tmp_path_factory: pytest.TempPathFactory) -> Census:
    folder = tmp_path_factory.mktemp("census")
    parts = source.plan(["Patient", "Encounter"])
    files = {
        kind: [source.materialise(part, folder) for part in parts if part.resource_type == kind]
        for kind in ("Patient", "Encounter")
    }
    return read_census(
        patients=files["Patient"], encounters=files["Encounter"], subject_system=SYSTEM, default_zone=None
    )


@pytest.mark.data
def test_every_patient_and_stay_is_accounted_for(census: Census) -> None:
    assert census.subjects.height == 73
    assert census.pulled == 527 == census.accepted + census.quarantine.filter("whole").height
    kinds = dict(census.encounters["kind"].value_counts().iter_rows())
    assert kinds == {"icu": 108, "hospital": 191, "emergency": 155}
    check_table(census.encounters, "encounters")
    check_table(census.outcomes, "outcomes")


@pytest.mark.data
def test_subject_ids_are_the_sites_own_numbers(census: Census) -> None:
    assert 10007795 in census.subjects["subject_id"].to_list()


@pytest.mark.data
def test_icu_stays_take_their_hospital_stays_fate(census: Census, data_dir: Path) -> None:
    stays = pl.read_csv(data_dir / "mimic-iv-demo" / "hosp" / "admissions.csv.gz")
    died = stays.filter(pl.col("hospital_expire_flag") == 1).height
    outcomes = census.outcomes.join(census.encounters.select("encounter_id", "kind"), on="encounter_id")
    assert outcomes.filter((pl.col("kind") == "hospital") & pl.col("died_in_hospital")).height == died
    icu = outcomes.filter(pl.col("kind") == "icu")
    assert icu["died_in_hospital"].null_count() == 0
    assert icu["icu_days"].min() > 0


@pytest.mark.data
def test_ed_vital_signs_are_extracted_with_their_panels(
    source: FolderSource, census: Census, tmp_path: Path
) -> None:
    (part,) = [part for part in source.plan(["Observation"]) if "VitalSignsED" in part.name]
    summary = extract_part(
        part,
        source.materialise(part, tmp_path),
        census_subjects=census.subjects,
        run_folder=tmp_path,
        n_shards=3,
    )
    assert (summary.pulled, summary.accepted, summary.quarantined) == (4545, 4002, 543)
    rows = pl.concat(
        pl.read_parquet(tmp_path / m["path"]) for m in summary.manifests if m["table"] == "observations"
    )
    pressure = rows.filter(pl.col("component") > 0)
    assert set(pressure["codings"].explode().unique()) == {
        "http://loinc.org|8480-6",
        "http://loinc.org|8462-4",
    }
    assert rows.filter(pl.col("codings").list.contains("http://loinc.org|85354-9")).is_empty()
    assert rows["time"].dtype.time_zone == "UTC"
