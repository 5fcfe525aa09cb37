"""MIMIC-IV-ECG and MIMIC-CXR beside the tables: arrays, times, stays, sentinels, and what is refused."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from mimic_archives import ECGS, PICTURES, write_cxr_archive, write_ecg_archive
from mimic_ward import write_mimic

from deploy.mimic_archives import archives, read_picture, read_signal
from fhir_adapter.arrays import store_array as adapter_store
from fhir_adapter.limits import Limits
from fhir_adapter.waveforms.wfdb_record import read_wfdb
from modelling.catalogue import load_catalogue
from modelling.cohorts.cardiovascular import cardiovascular_samples
from modelling.cohorts.splits import read_splits
from modelling.errors import SourceTableError
from modelling.mapping.arrays import store_array
from modelling.mimic import map_mimic
from modelling.mimic.archives import UnusableError
from validation.contracts.store import check_table
from validation.reasons import Reason

CATALOGUE = load_catalogue()


def map_all(tmp_path: Path, out: Path, **options: Any) -> dict[str, Any]:
    mimic = tmp_path / "mimic"
    if not mimic.is_dir():
        write_mimic(mimic)
    return map_mimic(
        mimic=mimic,
        out=out,
        catalogue=CATALOGUE,
        n_shards=2,
        beside=archives(ecg=tmp_path / "ecg", cxr=tmp_path / "cxr"),
        **options,
    )


def table(out: Path, name: str) -> pl.DataFrame:
    return check_table(pl.read_parquet(out / name / "*.parquet"), name).sort("source_ref")


@pytest.fixture(scope="module")
def archived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both archives and the ward's tables, written once; tests change copies."""
    root = tmp_path_factory.mktemp("archived")
    write_mimic(root / "mimic")
    write_ecg_archive(root / "ecg")
    write_cxr_archive(root / "cxr")
    return root


@pytest.fixture(scope="module")
def ward(archived: Path) -> tuple[Path, dict[str, Any]]:
    return archived, map_all(archived, archived / "out")


def test_recordings_hold_the_signal_its_time_and_its_stay(ward: tuple[Path, dict[str, Any]]) -> None:
    root, summary = ward
    recordings = table(root / "out", "recordings")
    assert recordings.select("recording_id", "subject_id", "encounter_id").rows() == [
        ("record_list:1001", 10, "31"),
        ("record_list:1002", 10, None),
        ("record_list:1003", 20, "33"),
    ]
    first = recordings.row(0, named=True)
    assert first["time"] == first["available_time"] == datetime(2150, 1, 11, 14, tzinfo=UTC)
    assert first["sampling_rate"] == 500
    samples = np.load(root / "out" / first["array_path"])
    assert samples.shape == (12, first["samples"]) == (12, 5000)
    # Goldberger: aVF is the mean of II and III, whatever the order of the file.
    leads = {name: samples[row] for row, name in enumerate(first["leads"])}
    assert np.allclose(leads["aVF"], (leads["II"] + leads["III"]) / 2, atol=2e-3)
    assert summary["recordings"] == {
        "listed": 6,
        "kept": 3,
        "refused": 3,
        "attachment.missing": 1,
        "ecg.signal_truncated": 1,
        "time.invalid": 1,
    }
    assert summary["ecgs_of_other_patients"] == 1


def test_machine_measurements_lose_their_sentinels(ward: tuple[Path, dict[str, Any]]) -> None:
    root, summary = ward
    findings = pl.read_parquet(root / "out" / "findings.parquet")
    one = findings.filter(pl.col("recording_id") == "record_list:1001")
    measured = dict(one.drop_nulls("value").select("name", "value").iter_rows())
    assert measured == {
        "rr_interval": 750,
        "p_end": 40,
        "qrs_onset": 40,
        "qrs_end": 40,
        "t_end": 40,
        "t_axis": -30,
    }
    said = one.filter(pl.col("value").is_null())["name"].to_list()
    assert said == ["possible inferior infarct", "sinus rhythm"]
    assert summary["ecg_measurements_cleaned"] == 3 * 5
    assert not findings["recording_id"].is_in(["record_list:1007"]).any()


def test_images_are_frontal_and_in_their_stay(ward: tuple[Path, dict[str, Any]]) -> None:
    root, summary = ward
    images = table(root / "out", "images")
    assert images.select("instance_uid", "view", "encounter_id").rows() == [
        ("a1", "AP", "31"),
        ("b1", "PA", "33"),
    ]
    # The table holds 00:30:14 as 3014.531; Boston's winter is five hours behind.
    assert images["time"].to_list() == [
        datetime(2150, 1, 11, 5, 30, 14, tzinfo=UTC),
        datetime(2160, 7, 1, 19, 15, tzinfo=UTC),
    ]
    assert images["pixel_spacing"].to_list() == [None, pytest.approx(0.2)]
    pixels = np.load(root / "out" / images["array_path"][0])
    assert (pixels.shape, pixels.dtype) == ((256, 256), np.uint8)
    assert summary["images"] == {
        "listed": 5,
        "kept": 2,
        "refused": 3,
        "image.not_found": 1,
        "image.unreadable": 1,
        "image.view_not_frontal": 1,
    }
    assert summary["images_of_other_patients"] == 1


def test_what_chexpert_does_not_mention_has_no_row(ward: tuple[Path, dict[str, Any]]) -> None:
    labels = pl.read_parquet(ward[0] / "out" / "image_labels.parquet")
    assert labels.rows() == [
        (10, "501", "Edema", "positive"),
        (10, "501", "Pneumonia", "uncertain"),
        (10, "501", "Pneumothorax", "negative"),
    ]


def test_every_listed_file_is_kept_or_in_quarantine(ward: tuple[Path, dict[str, Any]]) -> None:
    out = ward[0] / "out"
    for name, listed in (("recordings", ECGS), ("images", PICTURES)):
        quarantine = check_table(pl.read_parquet(out / "quarantine" / f"{name}-*.parquet"), "quarantine")
        lines = {row["source_line"] for row in table(out, name).iter_rows(named=True)}
        assert lines | set(quarantine["source_line"]) == {
            number for number, row in enumerate(listed, start=1) if row[0] != 99
        }
        assert quarantine["whole"].all()


def copied(archived: Path, target: Path) -> None:
    shutil.copytree(archived, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("out"))


def test_mapping_again_reads_nothing_and_a_lost_shard_alone(archived: Path, tmp_path: Path) -> None:
    copied(archived, tmp_path)
    first = map_all(tmp_path, tmp_path / "out")
    seen: list[tuple[str, int, int]] = []
    assert map_all(tmp_path, tmp_path / "out", progress=lambda *step: seen.append(step)) == first
    assert not [step for step in seen if step[0].startswith("read ")]
    (tmp_path / "out" / "shards" / "recordings-0000.json").unlink()
    assert map_all(tmp_path, tmp_path / "out", progress=lambda *step: seen.append(step)) == first
    assert {step[0] for step in seen if step[1]} == {"read recordings"}
    (tmp_path / "ecg" / "record_list.csv").open("a").write("10,1,1,2150-01-01 00:00:00,files/x\n")
    with pytest.raises(SourceTableError, match="recordings of another source; give an empty folder"):
        map_all(tmp_path, tmp_path / "out")


def test_training_and_serving_read_the_same_array(archived: Path, tmp_path: Path) -> None:
    root = archived / "ecg"
    folder = root / "files/p10/p10/s1001"
    served = read_wfdb(
        (folder / "1001.hea").read_bytes(), lambda name: (folder / name).read_bytes(), Limits()
    )
    trained = read_signal(root, "files/p10/p10/s1001/1001")
    assert trained.leads == served.leads
    assert np.array_equal(trained.samples, served.samples)
    assert store_array(trained.samples, tmp_path / "a") == adapter_store(served.samples, tmp_path / "b")


@pytest.mark.data
def test_a_real_recording_keeps_its_values(data_dir: Path, tmp_path: Path) -> None:
    import wfdb

    record = sorted((data_dir / "ptbxl" / "records500").rglob("*.hea"))[0].with_suffix("")
    write_ecg_archive(tmp_path / "ecg", record=record)
    write_cxr_archive(tmp_path / "cxr")
    map_all(tmp_path, tmp_path / "out")
    row = table(tmp_path / "out", "recordings").row(0, named=True)
    samples = np.load(tmp_path / "out" / row["array_path"])
    reference = wfdb.rdrecord(str(record))
    order = [
        reference.sig_name.index(lead.upper() if lead.startswith("aV") else lead) for lead in row["leads"]
    ]
    assert np.allclose(samples, reference.p_signal[:, order].T, atol=1e-6)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "files/../../secret", ""])
def test_a_list_cannot_lead_out_of_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.hea").write_text("x")
    (tmp_path / "archive").mkdir()
    for read in (read_signal, read_picture):
        with pytest.raises(UnusableError) as caught:
            read(tmp_path / "archive", name)
        assert caught.value.reason in {Reason.ATTACHMENT_OUTSIDE_ARCHIVE, Reason.ATTACHMENT_MISSING}


@pytest.mark.parametrize(
    ("path", "old", "new", "message"),
    [
        ("ecg/record_list.csv", None, None, "record_list.csv.gz is missing in"),
        (
            "ecg/record_list.csv",
            "ecg_time",
            "when",
            "record_list.csv: column ecg_time is missing; MIMIC-IV-ECG",
        ),
        (
            "ecg/machine_measurements.csv",
            "p_axis",
            "axis",
            "machine_measurements.csv: column p_axis is missing",
        ),
        ("ecg/machine_measurements.csv", "750", "abc", "column rr_interval holds something"),
        ("cxr/mimic-cxr-2.0.0-metadata.csv.gz", None, None, "mimic-cxr-2.0.0-metadata.csv.gz is missing in"),
        ("cxr/mimic-cxr-2.0.0-chexpert.csv.gz", None, None, "mimic-cxr-2.0.0-chexpert.csv.gz is missing in"),
    ],
)
def test_faults_name_file_column_and_remedy(
    archived: Path, tmp_path: Path, path: str, old: str | None, new: str | None, message: str
) -> None:
    copied(archived, tmp_path)
    file = tmp_path / path
    if old is None or new is None:
        file.unlink()
    else:
        file.write_text(file.read_text().replace(old, new))
    with pytest.raises(SourceTableError, match=re.escape(message)):
        map_all(tmp_path, tmp_path / "out")


def test_recordings_feed_the_cardiovascular_question(ward: tuple[Path, dict[str, Any]]) -> None:
    out = ward[0] / "out"
    cohort = cardiovascular_samples(
        table(out, "recordings"),
        pl.read_parquet(out / "encounters.parquet"),
        pl.read_parquet(out / "diagnoses.parquet"),
    )
    # Only the ECG of 5 January lies before an admission.
    assert cohort.samples.select("encounter_id", "float_value").rows() == [("200", 0.0)]


def test_the_split_table_of_mimic_cxr_is_a_published_split(tmp_path: Path) -> None:
    path = tmp_path / "mimic-cxr-2.0.0-split.csv"
    path.write_text(
        "dicom_id,study_id,subject_id,split\na1,501,10,train\na2,501,10,train\nb1,502,20,validate\n"
    )
    assert read_splits(path)["split"].to_list() == ["train", "tuning"]
