"""Refused lines of the demo hospital, read again as they are and after a fix."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from deploy.demo_hospital import build_hospital
from deploy.night.replay import ReplayResult, replay_lines
from deploy.settings import Settings
from fhir_adapter.census import read_census
from fhir_adapter.extract import extract_part
from fhir_adapter.images.archive import FolderArchive
from fhir_adapter.sources.folder import FolderSource
from modelling.catalogue import load_catalogue
from modelling.mapping import map_observations
from validation.contracts import write_table
from validation.quarantine import choose_refusals, read_quarantine


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Callable[[pl.DataFrame], ReplayResult]]:
    folder = tmp_path_factory.mktemp("replay")
    hospital, run = folder / "hospital", folder / "run"
    run.mkdir()
    build_hospital(hospital, patients=14, night=date(2026, 1, 15), history=False)
    source = FolderSource(hospital / "fhir")
    files = {
        kind: [source.materialise(part, run) for part in source.plan([kind])]
        for kind in ("Patient", "Encounter")
    }
    census = read_census(
        patients=files["Patient"], encounters=files["Encounter"], subject_system=None, default_zone=None
    )
    census.subjects.write_parquet(run / "subjects.parquet")
    archives = {"waveform_archive": hospital / "wfdb", "image_archive": FolderArchive(hospital / "dicom")}
    for part in source.plan(["Observation", "DocumentReference", "ImagingStudy"]):
        extract_part(
            part,
            source.materialise(part, run),
            census_subjects=census.subjects,
            run_folder=run,
            n_shards=1,
            **archives,
        )
    observations = pl.concat(pl.read_parquet(path) for path in run.glob("extract/*/observations-*.parquet"))
    refused = map_observations(observations, load_catalogue()).quarantine
    write_table(refused, "quarantine", run / "quarantine" / "map-0000.parquet")
    settings = Settings(source={"kind": "folder", "folder": hospital / "fhir"})

    def replay(rows: pl.DataFrame) -> ReplayResult:
        return replay_lines(
            settings,
            run,
            rows,
            target=run / "replay" / "now",
            waveforms=hospital / "wfdb",
            images=FolderArchive(hospital / "dicom"),
        )

    return hospital, replay


def test_without_a_fix_the_same_reasons_come_again(night) -> None:
    hospital, replay = night
    run = hospital.parent / "run"
    for reason in ("unit.missing", "status.not_accepted", "ecg.checksum_mismatch", "image.not_found"):
        rows = choose_refusals(read_quarantine(run), reason=reason)
        assert rows.height, reason
        result = replay(rows)
        assert (result.lines, result.accepted, result.lost) == (rows.height, 0, 0)
        assert result.outcomes.rows() == [(reason, rows.height)]
    assert not list((run / "replay").iterdir())


def test_after_a_fix_the_lines_are_accepted(night) -> None:
    hospital, replay = night
    rows = choose_refusals(read_quarantine(hospital.parent / "run"), reason="unit.missing", feature="glucose")
    assert rows.height
    unit = '"system":"http://unitsofmeasure.org","code":"mmol/L"'
    for name, number in rows.select("source_file", "source_line").iter_rows():
        path = hospital / "fhir" / name
        lines = path.read_text("utf-8").split("\n")
        lines[number - 1] = lines[number - 1].replace('"valueQuantity":{', f'"valueQuantity":{{{unit},')
        path.write_text("\n".join(lines), encoding="utf-8")
    result = replay(rows)
    assert result.accepted == rows.height
    assert result.outcomes["outcome"].to_list() == ["accepted"]
