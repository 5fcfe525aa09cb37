"""MIMIC-IV demo on FHIR with borrowed ECGs and films: the adapter reads every one of them."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from deploy.pairing import pair
from fhir_adapter.census import read_census
from fhir_adapter.extract import extract_part
from fhir_adapter.images.archive import FolderArchive
from fhir_adapter.sources.folder import FolderSource
from validation.ecg_quality import judge_recordings
from validation.image_quality import judge_images


@pytest.mark.data
def test_borrowed_recordings_are_read_and_pass_their_judges(data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "paired"
    summary = pair(
        data_dir / "mimic-iv-demo-fhir",
        data_dir / "ptbxl",
        data_dir / "nih-cxr14",
        out,
        share=0.5,
        include_source=True,
    )
    assert summary.stays > 90 and summary.ecgs > 30 and summary.radiographs > 30
    source, run = FolderSource(out / "fhir"), tmp_path / "run"
    files = {
        kind: [source.materialise(part, run) for part in source.plan([kind])]
        for kind in ("Patient", "Encounter")
    }
    census = read_census(
        patients=files["Patient"], encounters=files["Encounter"], subject_system=None, default_zone=None
    )
    tables: dict[str, list[pl.DataFrame]] = {"recordings": [], "images": [], "quarantine": []}
    for part in source.plan(["DocumentReference", "ImagingStudy"]):
        found = extract_part(
            part,
            source.materialise(part, run),
            census_subjects=census.subjects,
            run_folder=run,
            n_shards=2,
            waveform_archive=out / "wfdb",
            image_archive=FolderArchive(out / "dicom"),
        )
        for manifest in found.manifests:
            tables.setdefault(manifest["table"], []).append(pl.read_parquet(run / manifest["path"]))
    recordings, images = pl.concat(tables["recordings"]), pl.concat(tables["images"])
    assert (recordings.height, images.height) == (summary.ecgs, summary.radiographs)
    assert pl.concat(tables["quarantine"]).height == 0
    stays = census.encounters.select("encounter_id", "start")
    late = pl.concat([recordings.select("encounter_id", "time"), images.select("encounter_id", "time")]).join(
        stays, on="encounter_id"
    )
    assert late.height == summary.ecgs + summary.radiographs
    assert late.filter(pl.col("time") - pl.col("start") > pl.duration(hours=48)).height == 0
    judged = judge_recordings(recordings, run), judge_images(images, run)
    assert [
        part.accepted.height / (part.accepted.height + part.quarantine.height) > 0.9 for part in judged
    ] == [True, True]
