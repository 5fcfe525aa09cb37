"""A pool of ECGs and radiographs: drawn once, used by many patients.

An ECG's files are referred to by as many DocumentReferences as there are. A DICOM instance belongs to one
study, and the adapter refuses its second use; so a film of the pool is stamped with the identifiers of each
study and written once more. Its pixels stay the same, and so does the array that the adapter keeps of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha512
from io import BytesIO
from pathlib import Path

import numpy as np

from deploy.demo_hospital.dicom import Uids, add_pixels, make_header
from deploy.demo_hospital.electrocardiogram import synthesise, write_wfdb
from deploy.demo_hospital.radiograph import draw_chest
from deploy.demo_hospital.resources import WFDB_HEADER, WFDB_SIGNAL, attachment

IMAGE_SIZE = 192


def fixed_uids(seed: int, image: str) -> Uids:
    """Return UIDs of 44 characters each (UUID-derived, DICOM PS3.5 B.2), so that one can replace another."""

    def uid(level: str) -> str:
        number = int.from_bytes(sha512(f"{seed}|{image}|{level}".encode()).digest()) % 10**38
        return f"2.25.1{number:038d}"

    return Uids(uid("study"), uid("series"), uid("instance"))


@dataclass(frozen=True)
class Film:
    """A radiograph as a DICOM file, and the identifiers in it."""

    content: bytes
    uids: Uids

    def stamped(self, uids: Uids) -> bytes:
        """Return the file with other identifiers."""
        content = self.content
        for old, new in (
            (self.uids.study, uids.study),
            (self.uids.series, uids.series),
            (self.uids.instance, uids.instance),
        ):
            content = content.replace(old.encode(), new.encode())
        return content


@dataclass(frozen=True)
class Pool:
    """What the patients' resources are about.

    Attributes
    ----------
    contents
        ``DocumentReference.content`` of each ECG, as JSON text.
    films
        Each radiograph.
    """

    contents: list[str]
    films: list[Film]


def build_pool(folder: Path, *, size: int, seed: int, moment: datetime) -> Pool:
    """Write ``size`` ECGs below ``wfdb/pool``, and draw as many radiographs."""
    contents, films = [], []
    created = moment.replace(microsecond=0).isoformat()
    for number in range(size):
        rng = np.random.default_rng([seed, 3, number])
        severity = float(rng.normal())
        samples = synthesise(
            heart_rate=float(np.clip(80 + 12 * severity, 45, 150)),
            severity=severity,
            sampling_rate=250,
            rng=rng,
        )
        name = f"ecg-{number:04d}"
        archive = folder / "wfdb" / "pool"
        write_wfdb(archive, name, samples, sampling_rate=250, recorded=moment)
        items = [
            attachment(kind, f"pool/{path.name}", path.read_bytes(), path.name, created)
            for kind, path in (
                (WFDB_HEADER, archive / f"{name}.hea"),
                (WFDB_SIGNAL, archive / f"{name}.dat"),
            )
        ]
        contents.append(json.dumps([{"attachment": item} for item in items], separators=(",", ":")))
        films.append(_film(number, rng, seed=seed, severity=severity, moment=moment))
    return Pool(contents, films)


def _film(number: int, rng: np.random.Generator, *, seed: int, severity: float, moment: datetime) -> Film:
    uids = fixed_uids(seed, f"pool-{number}")
    pixels = draw_chest(lungs=severity, heart=severity, size=IMAGE_SIZE, portable=True, rng=rng)
    data = make_header(
        uids=uids,
        patient_id="pool",
        patient_name="Synthetic^Pool",
        taken=moment,
        view="AP",
        note="SYNTHETIC test data: drawn by a program, shows no patient",
    )
    stored = np.round(pixels * 4095 * 0.9).astype(np.uint16)
    add_pixels(data, stored, bits=12, inverted=False, spacing=1.8, syntax="jpeg-ls")
    file = BytesIO()
    data.save_as(file, enforce_file_format=True)
    return Film(file.getvalue(), uids)
