"""Lend open ECGs and radiographs to the patients of the MIMIC-IV demo, in MIMIC-IV-ECG's and MIMIC-CXR's layout.

No open data set links tables, ECGs and radiographs of one patient. What this writes is artificial: recordings
of PTB-XL and pictures of the NIH excerpt, one ECG ten days before each admission and one of each in every ICU
stay. It shows that ``map-mimic --ecg --cxr`` and the cardiovascular cohort work at some size, never how well
a model does.

Run as ``python tests/benchmark/lend_archives.py --out DIR``; it writes ``DIR/ecg`` and ``DIR/cxr``.
"""

from __future__ import annotations

import argparse
import os
import shutil
from datetime import timedelta
from pathlib import Path

import polars as pl

from modelling.mimic.cxr import CHEXPERT_LABELS
from modelling.mimic.ecg import MEASUREMENTS, REPORT_LINES

PROJECT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("NIGHTINGALE_DATA", PROJECT.parent / "shared" / "data"))
BEFORE_ADMISSION = timedelta(days=10)
IN_STAY = timedelta(hours=2)


def moments(mimic: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return ``subject_id``, ``time`` of the ECGs (before admissions and in stays) and of the pictures."""
    wall = pl.Datetime("us")

    def shifted(table: str, column: str, by: timedelta) -> pl.DataFrame:
        frame = pl.read_csv(mimic / f"{table}.csv.gz", columns=["subject_id", column])
        return frame.select("subject_id", (pl.col(column).str.to_datetime().cast(wall) + by).alias("time"))

    stays = shifted("icu/icustays", "intime", IN_STAY)
    ecgs = pl.concat([shifted("hosp/admissions", "admittime", -BEFORE_ADMISSION), stays])
    return ecgs.sort("subject_id", "time"), stays.sort("subject_id", "time")


def lend_ecgs(asked: pl.DataFrame, ptbxl: Path, out: Path) -> int:
    """Write a MIMIC-IV-ECG folder; return the number of recordings."""
    records = sorted((ptbxl / "records500").rglob("*.hea")) + sorted((ptbxl / "records100").rglob("*.hea"))
    listed, machine = [], []
    for number, (subject, time) in enumerate(asked.iter_rows()):
        study = 40_000_000 + number
        header = records[number % len(records)]
        folder = f"files/p{str(subject)[:4]}/p{subject}/s{study}"
        (out / folder).mkdir(parents=True, exist_ok=True)
        for file in (header, header.with_suffix(".dat")):
            shutil.copy(file, out / folder / file.name)
        shown = f"{time:%Y-%m-%d %H:%M:%S}"
        listed.append((subject, study, study, shown, f"{folder}/{header.stem}"))
        numbers = [29999 if number % 7 == 0 and name == "p_onset" else 100 for name in MEASUREMENTS]
        numbers[0] = 32767 if number % 11 == 0 else 800
        machine.append((subject, study, 1, shown, *[""] * len(REPORT_LINES), "", "", *numbers))
    names = ["subject_id", "study_id", "file_name", "ecg_time", "path"]
    pl.DataFrame(listed, schema=names, orient="row").write_csv(out / "record_list.csv")
    names = ["subject_id", "study_id", "cart_id", "ecg_time", *REPORT_LINES, "bandwidth", "filtering"]
    pl.DataFrame(machine, schema=[*names, *MEASUREMENTS], orient="row").write_csv(
        out / "machine_measurements.csv"
    )
    return len(listed)


def lend_pictures(asked: pl.DataFrame, nih: Path, out: Path) -> int:
    """Write a MIMIC-CXR-JPG folder; return the number of pictures."""
    labels = pl.read_csv(nih / "labels.csv").sort("Image Index")
    rows, mentions = [], []
    for number, (subject, time) in enumerate(asked.iter_rows()):
        picture = labels.row(number % labels.height, named=True)
        study, name = 50_000_000 + number, f"{number:08x}"
        folder = out / f"files/p{str(subject)[:2]}/p{subject}/s{study}"
        folder.mkdir(parents=True, exist_ok=True)
        source = nih / "images" / Path(picture["Image Index"]).with_suffix(".jpg").name
        shutil.copy(source, folder / f"{name}.jpg")
        date, clock = int(f"{time:%Y%m%d}"), float(f"{time:%H%M%S}.5")
        rows.append((name, subject, study, "", picture["View Position"], 512, 512, date, clock))
        mentions.append(
            (subject, study, *(float(bool(picture.get(label, 0))) or None for label in CHEXPERT_LABELS))
        )
    head = ["dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition"]
    pl.DataFrame(rows, schema=[*head, "Rows", "Columns", "StudyDate", "StudyTime"], orient="row").write_csv(
        out / "mimic-cxr-2.0.0-metadata.csv"
    )
    types = dict.fromkeys(CHEXPERT_LABELS, pl.Float64)
    schema = {"subject_id": pl.Int64, "study_id": pl.Int64, **types}
    pl.DataFrame(mentions, schema=schema, orient="row").write_csv(out / "mimic-cxr-2.0.0-chexpert.csv")
    return len(rows)


def main() -> None:
    """Write both folders."""
    parser = argparse.ArgumentParser(description="Lend open ECGs and radiographs to the MIMIC-IV demo")
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    ecgs, pictures = moments(DATA / "mimic-iv-demo")
    (out / "cxr").mkdir(parents=True, exist_ok=True)
    (out / "ecg").mkdir(parents=True, exist_ok=True)
    print(f"{lend_ecgs(ecgs, DATA / 'ptbxl', out / 'ecg')} ECGs in {out / 'ecg'}")
    print(f"{lend_pictures(pictures, DATA / 'nih-cxr14', out / 'cxr')} pictures in {out / 'cxr'}")


if __name__ == "__main__":
    main()
