"""The open archives that are paired: PTB-XL (WFDB) and NIH ChestX-ray14 (JPEG), read as they are."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deploy.errors import DeployError


@dataclass(frozen=True)
class Ecg:
    """One PTB-XL recording: path without ending, and the person it belongs to."""

    record: Path
    person: str


@dataclass(frozen=True)
class Radiograph:
    """One NIH image.

    ``spacing`` is the pixel spacing in mm at the stored size.
    """

    path: Path
    person: str
    view: str
    spacing: float


def list_ecgs(ptbxl: Path) -> list[Ecg]:
    """Return one recording a person, in the order of the archive; 500 Hz where the excerpt holds it.

    Raises
    ------
    DeployError
        If the folder is not PTB-XL's.
    """
    chosen: dict[str, Ecg] = {}
    for row in _rows(ptbxl / "ptbxl_database.csv", "PTB-XL"):
        names = (row["filename_hr"], row["filename_lr"])
        found = [ptbxl / name for name in names if (ptbxl / f"{name}.hea").is_file()]
        if found:
            chosen.setdefault(row["patient_id"], Ecg(found[0], row["patient_id"]))
    return list(chosen.values())


def list_radiographs(images: Path) -> list[Radiograph]:
    """Return one image a person, in the order of the label file.

    Raises
    ------
    DeployError
        If the folder is not that of the NIH excerpt.
    """
    chosen: dict[str, Radiograph] = {}
    for row in _rows(images / "labels.csv", "NIH ChestX-ray14"):
        path = images / "images" / Path(row["Image Index"]).with_suffix(".jpg").name
        if not path.is_file() or row["Patient ID"] in chosen:
            continue
        with Image.open(path) as image:
            width = image.width
        spacing = float(row["OriginalImagePixelSpacing[x"]) * float(row["OriginalImage[Width"]) / width
        chosen[row["Patient ID"]] = Radiograph(path, row["Patient ID"], row["View Position"], spacing)
    return list(chosen.values())


def _rows(path: Path, archive: str) -> list[dict[str, str]]:
    if not path.is_file():
        raise DeployError(f"no {archive} archive: {path} is missing")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def redate_header(header: str, *, name: str, recorded: datetime, note: str) -> str:
    """Return a single-segment WFDB header under another record name, with a start time and a comment.

    Checksums stay, since the samples do (https://physionet.org/physiotools/wag/header-5.htm).

    Examples
    --------
    >>> print(redate_header("a 1 100 10\\na.dat 16 1/mV 16 0 5 7 0 I\\n", name="b",
    ...       recorded=datetime(2150, 1, 2, 3, 4, 5), note="paired"))
    b 1 100 10 03:04:05 02/01/2150
    b.dat 16 1/mV 16 0 5 7 0 I
    # paired
    """
    lines = [line for line in header.splitlines() if line.strip() and not line.startswith("#")]
    fields = lines[0].split()
    first = [name, *fields[1:4], recorded.strftime("%H:%M:%S"), recorded.strftime("%d/%m/%Y")]
    signals = [re.sub(r"^\S+\.dat", f"{name}.dat", line) for line in lines[1:]]
    return "\n".join([" ".join(first), *signals, f"# {note}"])


def read_grey(path: Path) -> NDArray[np.uint8]:
    """Return an image as 8-bit grey values, shape ``[rows, columns]``."""
    with Image.open(path) as image:
        return np.asarray(image.convert("L"), dtype=np.uint8)
