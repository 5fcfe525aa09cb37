"""Adapter, mapper and judges read the demo hospital: each planted fault gets its reason, and nothing else."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from deploy.demo_hospital import build_hospital
from fhir_adapter.census import Census, read_census
from fhir_adapter.extract import PartSummary, extract_part
from fhir_adapter.images.archive import FolderArchive
from fhir_adapter.sources.folder import FolderSource
from modelling.catalogue import load_catalogue
from modelling.mapping import map_observations
from validation.ecg_quality import judge_recordings
from validation.image_quality import judge_images
from validation.rules import judge_events

Place = tuple[str, int]


class Reading:
    """A hospital read to its end, as the night does it."""

    def __init__(self, hospital: Path, run: Path) -> None:
        source = FolderSource(hospital / "fhir")
        files = {
            kind: [source.materialise(part, run) for part in source.plan([kind])]
            for kind in ("Patient", "Encounter")
        }
        self.census: Census = read_census(
            patients=files["Patient"], encounters=files["Encounter"], subject_system=None, default_zone=None
        )
        self.run = run
        self.parts: list[PartSummary] = [
            extract_part(
                part,
                source.materialise(part, run),
                census_subjects=self.census.subjects,
                run_folder=run,
                n_shards=3,
                waveform_archive=hospital / "wfdb",
                image_archive=FolderArchive(hospital / "dicom"),
            )
            for part in source.plan(["Observation", "DocumentReference", "ImagingStudy"])
        ]
        catalogue = load_catalogue()
        self.observations = self.table("observations")
        self.mapping = map_observations(self.observations, catalogue)
        limits = catalogue.features.select(pl.col("feature").alias("code"), "low", "high")
        self.events = judge_events(self.mapping.events, limits, encounters=self.census.encounters)
        self.recordings = judge_recordings(self.table("recordings"), run)
        self.images = judge_images(self.table("images"), run)

    def table(self, name: str) -> pl.DataFrame:
        """Return all rows of a table over parts and shards."""
        paths = [
            self.run / manifest["path"]
            for part in self.parts
            for manifest in part.manifests
            if manifest["table"] == name
        ]
        return pl.concat([pl.read_parquet(path) for path in paths])

    def reasons(self) -> dict[Place, set[str]]:
        """Return reasons by file and line, over all stages."""
        places = {
            row["source_ref"]: (row["source_file"], row["source_line"])
            for table in ("observations", "recordings", "images")
            for row in self.table(table)
            .select("source_ref", "source_file", "source_line")
            .iter_rows(named=True)
        }
        found: dict[Place, set[str]] = defaultdict(set)
        frames = [self.table("quarantine"), self.mapping.quarantine]
        frames += [judged.quarantine for judged in (self.events, self.recordings, self.images)]
        for frame in frames:
            for row in frame.iter_rows(named=True):
                place = (row["source_file"], row["source_line"])
                found[place if row["source_line"] else places[row["source_ref"]]].add(row["reason"])
        return found


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reading]:
    folder = tmp_path_factory.mktemp("reading")
    build_hospital(folder / "hospital", patients=30, night=date(2026, 1, 15), history=False)
    return folder / "hospital", Reading(folder / "hospital", folder / "run")


def test_every_planted_fault_gets_its_reason_and_nothing_else_is_refused(
    reading: tuple[Path, Reading],
) -> None:
    hospital, read = reading
    planted = {
        (Path(item["file"]).name, item["line"]): item["reason"]
        for item in json.loads((hospital / "faults.json").read_text("utf-8"))
    }
    assert read.reasons() == {place: {reason} for place, reason in planted.items()}


def test_pulled_is_accepted_and_quarantined(reading: tuple[Path, Reading]) -> None:
    _, read = reading
    for part in read.parts:
        assert part.pulled == part.accepted + part.quarantined
    assert read.census.pulled == read.census.accepted
    assert sum(part.pulled for part in read.parts) > 8_000


def test_wards_units_and_answers_come_to_the_same_scale(reading: tuple[Path, Reading]) -> None:
    _, read = reading
    medians = {
        row["code"]: row["numeric_value"]
        for row in read.events.accepted.group_by("code")
        .agg(pl.col("numeric_value").median())
        .iter_rows(named=True)
    }
    assert (
        36 < medians["temperature"] < 38.5 and 50 < medians["weight"] < 130 and 140 < medians["height"] < 205
    )
    assert 0.2 < medians["fio2"] < 0.7 and 70 < medians["glucose"] < 250 and 90 < medians["systolic_bp"] < 150
    scores = read.events.accepted.filter(pl.col("code") == "gcs_verbal")
    carriers = read.observations.filter(pl.col("codings").list.contains("http://loinc.org|9270-0"))
    assert scores.height == carriers.height and scores["numeric_value"].is_between(1, 5).all()
    assert carriers["text_value"].is_not_null().any() and carriers["value"].is_not_null().any()
    assert read.mapping.unmapped["coding"].to_list() == ["https://demo-hospital.invalid/codes|NRS"]


def test_both_carriers_of_ecgs_are_read(reading: tuple[Path, Reading]) -> None:
    _, read = reading
    accepted = read.recordings.accepted
    assert set(accepted["carrier"]) == {"wfdb", "sampled-data"}
    assert set(accepted["sampling_rate"]) == {250.0, 500.0}
    assert read.images.accepted["view"].is_in(["AP", "PA"]).all()
