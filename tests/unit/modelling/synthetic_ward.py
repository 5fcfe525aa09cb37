"""A ward of stays with a latent risk that EHR, ECG and X-ray each show a part of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import numpy as np
import polars as pl

from modelling.batches.settings import STANDARD_LEADS
from validation.contracts import empty

START = datetime(2026, 1, 1, tzinfo=UTC)
FEATURES = (
    # code, kind, benchmark variable, mean, deviation, effect of the risk
    ("heart-rate", "continuous", "Heart Rate", 85.0, 12.0, 9.0),
    ("systolic-pressure", "continuous", "Systolic blood pressure", 120.0, 15.0, -10.0),
    ("systolic-pressure-invasive", "continuous", "Systolic blood pressure", 118.0, 15.0, -10.0),
    ("respiratory-rate", "continuous", "Respiratory rate", 18.0, 4.0, 3.0),
    ("temperature", "continuous", "Temperature", 36.8, 0.5, 0.1),
    ("gcs-eye", "ordinal", "Glascow coma scale eye opening", 3.0, 0.8, -0.6),
    ("lactate", "continuous", None, 2.0, 1.0, 0.8),
    ("rhythm", "categorical", None, 2.0, 0.8, 0.5),
)


@dataclass(frozen=True)
class SmallCatalogue:
    """What an encoding reads of a catalogue."""

    features: pl.DataFrame
    levels: pl.DataFrame
    digest: str = "0" * 64


def catalogue() -> SmallCatalogue:
    features = pl.DataFrame(
        [
            (code, kind, benchmark, "vital" if benchmark and kind == "continuous" else "lab")
            for code, kind, benchmark, *_ in FEATURES
        ],
        schema={"feature": pl.String, "kind": pl.String, "benchmark": pl.String, "direction": pl.String},
        orient="row",
    )
    levels = pl.DataFrame(
        [("rhythm", float(n), f"level {n}") for n in (1, 2, 3)]
        + [("gcs-eye", float(n), str(n)) for n in (1, 2, 3, 4)],
        schema={"feature": pl.String, "level": pl.Float64, "name": pl.String},
        orient="row",
    )
    return SmallCatalogue(features, levels)


@dataclass(frozen=True)
class Ward:
    samples: pl.DataFrame
    encounters: pl.DataFrame
    events: pl.DataFrame
    recordings: pl.DataFrame
    images: pl.DataFrame
    run_folder: Path

    def tables(self) -> dict[str, object]:
        return {
            "samples": self.samples,
            "encounters": self.encounters,
            "events": self.events,
            "recordings": self.recordings,
            "images": self.images,
            "run_folder": self.run_folder,
        }


def _save(array: np.ndarray, folder: Path, name: str) -> tuple[str, str]:
    path = folder / "arrays" / f"{name}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return str(path.relative_to(folder)), sha256(path.read_bytes()).hexdigest()


def ward(
    folder: Path,
    *,
    n: int = 40,
    seed: int = 0,
    values: int = 6,
    ecg_share: float = 0.6,
    image_share: float = 0.6,
    ehr_share: float = 1.0,
    pixels: int = 96,
) -> Ward:
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=n)
    labels = risk + 0.4 * rng.normal(size=n) > 0.5
    samples, encounters, events, recordings, images = [], [], [], [], []
    for index in range(n):
        subject, encounter = 1000 + index, f"stay-{index}"
        admitted = START + timedelta(hours=index)
        prediction = admitted + timedelta(hours=48)
        samples.append((subject, prediction, bool(labels[index]), None, encounter, "mortality", admitted))
        encounters.append(
            {
                "encounter_id": encounter,
                "subject_id": subject,
                "patient_ref": f"Patient/p{index}",
                "encounter_ref": f"Encounter/{encounter}",
                "kind": "icu",
                "encounter_class": "IMP",
                "status": "in-progress",
                "part_of": None,
                "start": admitted,
                "end": None,
                "ward": "A",
                "moves": [],
                "birth_date": date(1950 + index % 40, 3, 1) if index % 7 else None,
                "sex": ("male", "female", "unknown")[index % 3],
                "admission_source": None,
                "source_file": "f",
                "source_line": index,
            }
        )
        if rng.random() < ehr_share:
            for code, kind, _, mean, deviation, effect in FEATURES:
                for number in range(rng.integers(1, values + 1)):
                    time = admitted + timedelta(hours=float(rng.uniform(0, 48)))
                    value = mean + deviation * 0.7 * rng.normal() + effect * risk[index]
                    if kind != "continuous":
                        value = float(np.clip(round(value), 1, 3 if code == "rhythm" else 4))
                    events.append(
                        (
                            subject,
                            time,
                            code,
                            value,
                            None,
                            time,
                            encounter,
                            f"Observation/{index}-{code}-{number}",
                            False,
                        )
                    )
        if rng.random() < ecg_share:
            for number in range(rng.integers(1, 3)):
                t = np.arange(5000) / 500.0
                rate = 1.1 + 0.25 * risk[index]
                beat = np.sin(2 * np.pi * rate * t) ** 15
                array = np.stack([beat * (0.5 + 0.1 * lead) for lead in range(12)]) + 0.05 * rng.normal(
                    size=(12, 5000)
                )
                path, digest = _save(array.astype(np.float32), folder, f"ecg-{index}-{number}")
                time = prediction - timedelta(hours=float(rng.uniform(1, 40)))
                recordings.append(
                    {
                        "recording_id": f"r{index}-{number}",
                        "subject_id": subject,
                        "encounter_id": encounter,
                        "time": time,
                        "available_time": time,
                        "sampling_rate": 500.0,
                        "leads": list(STANDARD_LEADS),
                        "samples": 5000,
                        "unit": "mV",
                        "array_path": path,
                        "array_sha256": digest,
                        "carrier": "wfdb",
                        "source_ref": f"DocumentReference/{index}-{number}",
                        "source_file": "f",
                        "source_line": 0,
                    }
                )
        if rng.random() < image_share:
            picture = np.clip(
                110 + 40 * risk[index] + 25 * rng.normal(size=(pixels, pixels + 16)), 0, 255
            ).astype(np.uint8)
            path, digest = _save(picture, folder, f"cxr-{index}")
            time = prediction - timedelta(hours=float(rng.uniform(1, 40)))
            images.append(
                {
                    "image_id": f"i{index}",
                    "subject_id": subject,
                    "encounter_id": encounter,
                    "time": time,
                    "available_time": time,
                    "view": "AP",
                    "height_px": pixels,
                    "width_px": pixels + 16,
                    "pixel_spacing": None,
                    "array_path": path,
                    "array_sha256": digest,
                    "study_uid": "1.2",
                    "series_uid": "1.3",
                    "instance_uid": f"1.4.{index}",
                    "source_ref": f"ImagingStudy/{index}",
                    "source_file": "f",
                    "source_line": 0,
                }
            )

    def frame(rows: list, table: str) -> pl.DataFrame:
        schema = empty(table).schema
        return pl.DataFrame(rows, schema=schema, orient="row") if rows else empty(table)

    return Ward(
        samples=frame(samples, "samples"),
        encounters=frame(encounters, "encounters"),
        events=frame(events, "events"),
        recordings=frame(recordings, "recordings"),
        images=frame(images, "images"),
        run_folder=folder,
    )
