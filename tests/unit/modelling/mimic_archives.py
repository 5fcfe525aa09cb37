"""Small folders of MIMIC-IV-ECG and MIMIC-CXR in the official layout, beside the ward of ``mimic_ward``.

Patient 10 lies in intensive care (stay 31) at the first ECG and film; patient 99 is not in the ward's tables.
"""

from __future__ import annotations

import csv
import gzip
import shutil
from datetime import datetime
from pathlib import Path

import numpy as np
from PIL import Image

from deploy.demo_hospital.dicom import Uids, add_pixels, make_header, write_dicom
from deploy.demo_hospital.electrocardiogram import synthesise, write_wfdb
from deploy.demo_hospital.radiograph import draw_chest
from modelling.mimic.cxr import CHEXPERT_LABELS
from modelling.mimic.ecg import MEASUREMENTS, REPORT_LINES

ECGS = (
    (10, 1001, "2150-01-11 09:00:00"),
    (10, 1002, "2150-01-05 09:00:00"),
    (20, 1003, "2160-07-01 10:00:00"),
    (20, 1004, "2160-07-02 10:00:00"),
    (20, 1005, "2160-07-02 11:00:00"),
    (20, 1006, "yesterday"),
    (99, 1007, "2150-01-11 09:00:00"),
)
"""Patient, study, time; 1004's signal is cut off, 1005 is listed without files."""
PICTURES = (
    (10, 501, "a1", "AP", "21500111", "3014.531"),
    (10, 501, "a2", "LATERAL", "21500111", "3014.531"),
    (20, 502, "b1", "", "21600701", "151500"),
    (20, 503, "c1", "PA", "21600702", "90000.0"),
    (20, 504, "d1", "PA", "21600702", "100000"),
    (99, 505, "e1", "PA", "21500111", "120000"),
)
"""Patient, study, picture, view, date, time; b1 is a DICOM file, c1 is no JPEG, d1 is not there."""


def _write_csv(path: Path, names: list[str], rows: list[list[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", newline="") as file:  # type: ignore[operator]
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows)


def write_ecg_archive(root: Path, *, record: Path | None = None) -> Path:
    """Write a MIMIC-IV-ECG folder; ``record`` (path without suffix) stands for study 1001's signal."""
    listed, machine = [], []
    for subject, study, time in ECGS:
        folder = f"files/p{str(subject)[:4]}/p{subject}/s{study}"
        listed.append([subject, study, study, time, f"{folder}/{study}"])
        if study == 1005:
            continue
        if record is not None and study == 1001:
            (root / folder).mkdir(parents=True)
            for suffix in (".hea", ".dat"):
                shutil.copy(record.with_suffix(suffix), root / folder / f"{record.name}{suffix}")
            listed[-1][-1] = f"{folder}/{record.name}"
        else:
            samples = synthesise(
                heart_rate=80, severity=0, sampling_rate=500, rng=np.random.default_rng(study)
            )
            write_wfdb(
                root / folder,
                str(study),
                samples,
                sampling_rate=500,
                recorded=datetime(2150, 1, 11, 9),  # noqa: DTZ001 - a wall time
            )
        if study == 1004:
            signal = root / folder / f"{study}.dat"
            signal.write_bytes(signal.read_bytes()[:1000])
        numbers: dict[str, object] = dict.fromkeys(MEASUREMENTS, 40)
        numbers |= {"rr_interval": 750, "p_onset": 29999, "p_axis": 32767, "t_axis": -30, "qrs_axis": 65535}
        lines = ["Sinus rhythm", "Possible inferior infarct.", *[""] * (len(REPORT_LINES) - 2)]
        machine.append([subject, study, 1, time, *lines, "0.005-150 Hz", "60 Hz", *numbers.values()])
    _write_csv(root / "record_list.csv", ["subject_id", "study_id", "file_name", "ecg_time", "path"], listed)
    head = ["subject_id", "study_id", "cart_id", "ecg_time", *REPORT_LINES, "bandwidth", "filtering"]
    _write_csv(root / "machine_measurements.csv", [*head, *MEASUREMENTS], machine)
    return root


def write_cxr_archive(root: Path) -> Path:
    """Write a MIMIC-CXR-JPG folder with one picture as DICOM."""
    for subject, study, picture, view, date, time in PICTURES:
        folder = root / f"files/p{str(subject)[:2]}/p{subject}/s{study}"
        folder.mkdir(parents=True, exist_ok=True)
        seed = np.random.default_rng(study)
        pixels = draw_chest(lungs=0, heart=0, size=256, portable=view == "AP", rng=seed)
        grey = np.rint(pixels * 255).astype(np.uint8)
        if picture == "b1":
            uids = Uids("1.2.3", "1.2.3.4", "1.2.3.4.5")
            taken = datetime.fromisoformat("2160-07-01T15:15:00-04:00")
            data = make_header(
                uids=uids, patient_id="x", taken=taken, view="PA", patient_name="x", note="test"
            )
            add_pixels(data, grey, bits=8, inverted=False, spacing=0.2)
            write_dicom(data, folder, uids).replace(folder / "b1.dcm")
        elif picture == "c1":
            (folder / "c1.jpg").write_bytes(b"\xff\xd8 not a picture")
        elif picture != "d1":
            Image.fromarray(grey).save(folder / f"{picture}.jpg", quality=95)
        del date, time
    head = ["dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition"]
    _write_csv(
        root / "mimic-cxr-2.0.0-metadata.csv.gz",
        [*head, "Rows", "Columns", "StudyDate", "StudyTime"],
        [[p, subject, study, "", view, 256, 256, d, t] for subject, study, p, view, d, t in PICTURES],
    )
    mentions = {"Edema": 1.0, "Pneumonia": -1.0, "Pneumothorax": 0.0}
    _write_csv(
        root / "mimic-cxr-2.0.0-chexpert.csv.gz",
        ["subject_id", "study_id", *CHEXPERT_LABELS],
        [[10, 501, *[mentions.get(label, "") for label in CHEXPERT_LABELS]]],
    )
    return root
