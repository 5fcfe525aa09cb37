from __future__ import annotations

import csv
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ward_tables import NIGHT, table

from validation.contracts.store import check_table
from validation.ecg_quality import STANDARD_LEADS, ECGLimits, judge_recordings, measure_recording
from validation.image_quality import CHEST_TEMPLATE, ImageLimits, judge_images, measure_image

RATE = 250


def heartbeats(rate: float = 75.0, seconds: float = 10.0) -> np.ndarray:
    """Return twelve leads of narrow bumps at a steady rate, in millivolts."""
    time = np.arange(int(seconds * RATE)) / RATE
    beat = np.zeros_like(time)
    for centre in np.arange(0.4, seconds, 60 / rate):
        beat += np.exp(-((time - centre) ** 2) / (2 * 0.012**2))
        beat += 0.25 * np.exp(-((time - centre - 0.25) ** 2) / (2 * 0.05**2))
    noise = np.random.default_rng(1).normal(0, 0.01, (12, time.size))
    return (np.linspace(0.6, 1.6, 12)[:, None] * beat + noise).astype(np.float32)


def recording(folder: Path, samples: np.ndarray, name: str = "r", **fields):
    np.save(folder / f"{name}.npy", samples)
    row = {
        "recording_id": name,
        "subject_id": 1,
        "time": NIGHT,
        "available_time": NIGHT,
        "sampling_rate": float(RATE),
        "leads": list(STANDARD_LEADS)[: samples.shape[0]],
        "samples": samples.shape[1],
        "unit": "mV",
        "array_path": f"{name}.npy",
        "array_sha256": name,
        "carrier": "wfdb",
        "source_ref": f"DocumentReference/{name}",
        "source_file": "f",
        "source_line": 1,
    }
    return row | fields


def flat(x: np.ndarray) -> np.ndarray:
    x[2:6] = 0.003
    return x


def clipped(x: np.ndarray) -> np.ndarray:
    return np.clip(x, -0.05, 0.12)


def in_microvolts(x: np.ndarray) -> np.ndarray:
    return x * 1000


def drifting(x: np.ndarray) -> np.ndarray:
    return x + 4 * np.sin(2 * np.pi * 0.2 * np.arange(x.shape[1]) / RATE).astype(np.float32)


def humming(x: np.ndarray) -> np.ndarray:
    return x + 0.8 * np.sin(2 * np.pi * 50 * np.arange(x.shape[1]) / RATE).astype(np.float32)


def shaking(x: np.ndarray) -> np.ndarray:
    return x + np.random.default_rng(0).normal(0, 1.0, x.shape).astype(np.float32)


def broken_number(x: np.ndarray) -> np.ndarray:
    x[3, 7] = np.nan
    return x


ECG_FAULTS = [
    (flat, "ecg.flat"),
    (clipped, "ecg.saturated"),
    (in_microvolts, "ecg.amplitude_implausible"),
    (drifting, "ecg.noise"),
    (humming, "ecg.noise"),
    (shaking, "ecg.noise"),
    (broken_number, "value.invalid"),
    (lambda x: x[:6], "ecg.leads_missing"),
    (lambda x: x[:, :500], "ecg.too_short"),
    (lambda x: heartbeats(rate=11.0), "ecg.rate_implausible"),
]


@pytest.mark.parametrize(("spoil", "reason"), ECG_FAULTS)
def test_a_spoilt_ecg_is_named(tmp_path: Path, spoil, reason: str) -> None:
    rows = table(
        "recordings",
        [recording(tmp_path, heartbeats(), "good"), recording(tmp_path, spoil(heartbeats()), "bad")],
    )
    judgement = judge_recordings(rows, tmp_path)
    assert judgement.counts == {reason: 1}
    assert judgement.accepted["recording_id"].to_list() == ["good"]
    assert judgement.quarantine["whole"].to_list() == [True]
    check_table(judgement.quarantine, "quarantine")


@pytest.mark.parametrize("rate", [35, 60, 110, 190])
def test_the_rate_found_is_the_rate(rate: int) -> None:
    measures = measure_recording(heartbeats(rate), leads=list(STANDARD_LEADS), sampling_rate=RATE)
    assert measures.rate == pytest.approx(rate, rel=0.05)


def test_lead_names_are_compared_without_case_and_four_leads_may_be_derived(tmp_path: Path) -> None:
    keep = [0, 1, *range(6, 12)]
    row = recording(tmp_path, heartbeats()[keep], leads=["i", "II", "v1", "V2", "V3", "V4", "V5", "V6"])
    assert judge_recordings(table("recordings", [row]), tmp_path).counts == {}


def test_the_same_samples_again_are_a_duplicate_for_the_same_patient_only(tmp_path: Path) -> None:
    first = recording(tmp_path, heartbeats(), "a", array_sha256="same")
    later = recording(tmp_path, heartbeats(), "b", array_sha256="same", time=NIGHT + timedelta(hours=1))
    other = recording(tmp_path, heartbeats(), "c", array_sha256="same", subject_id=2)
    judgement = judge_recordings(table("recordings", [later, first, other]), tmp_path)
    assert judgement.counts == {"ecg.duplicate": 1}
    assert judgement.quarantine["source_ref"].to_list() == ["DocumentReference/b"]


@pytest.mark.parametrize("content", [b"", b"no array", np.arange(3).tobytes()])
def test_a_file_that_is_no_array_is_refused(tmp_path: Path, content: bytes) -> None:
    row = recording(tmp_path, heartbeats())
    (tmp_path / "r.npy").write_bytes(content)
    assert judge_recordings(table("recordings", [row]), tmp_path).counts == {"ecg.unreadable": 1}
    (tmp_path / "r.npy").unlink()
    assert judge_recordings(table("recordings", [row]), tmp_path).counts == {"ecg.unreadable": 1}


def test_a_pickled_array_is_never_loaded(tmp_path: Path) -> None:
    row = recording(tmp_path, heartbeats())
    np.save(tmp_path / "r.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert judge_recordings(table("recordings", [row]), tmp_path).counts == {"ecg.unreadable": 1}


def chest(size: int = 256) -> np.ndarray:
    """Return a smooth chest-like picture: the template, enlarged."""
    whole = np.hstack([CHEST_TEMPLATE, CHEST_TEMPLATE[:, ::-1]])
    scaled = np.uint8(np.round(255 * (whole - whole.min()) / np.ptp(whole)))
    pixels = np.asarray(Image.fromarray(scaled).resize((size, size), Image.Resampling.BICUBIC)).astype(float)
    noise = np.random.default_rng(0).normal(0, 6, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def image(folder: Path, pixels: np.ndarray, name: str = "i", **fields):
    np.save(folder / f"{name}.npy", pixels)
    row = {
        "image_id": name,
        "subject_id": 1,
        "time": NIGHT,
        "available_time": NIGHT,
        "view": "AP",
        "height_px": max(1, pixels.shape[0]),
        "width_px": max(1, pixels.shape[-1]),
        "array_path": f"{name}.npy",
        "array_sha256": name,
        "study_uid": "1",
        "series_uid": "1",
        "instance_uid": "1",
        "source_ref": f"ImagingStudy/{name}",
        "source_file": "f",
        "source_line": 1,
    }
    return row | fields


def framed(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[:60], x[-40:], x[:, :50], x[:, -40:] = 0, 0, 0, 255
    return x


IMAGE_FAULTS = [
    (lambda x: 255 - x, "image.inverted"),
    (lambda x: x[::-1], "image.turned"),
    (lambda x: np.full_like(x, 90), "image.blank"),
    (lambda x: (x // 16 + 100).astype(np.uint8), "image.blank"),
    (lambda x: x[::4, ::4], "image.tiny"),
    (framed, "image.border"),
    (lambda x: np.hstack([x, x, x]), "image.not_chest"),
    (lambda x: x.astype(np.float32), "image.unreadable"),
    (lambda x: np.stack([x, x]), "image.unreadable"),
]


@pytest.mark.parametrize(("spoil", "reason"), IMAGE_FAULTS)
def test_a_spoilt_image_is_named(tmp_path: Path, spoil, reason: str) -> None:
    rows = table(
        "images",
        [image(tmp_path, chest(), "good"), image(tmp_path, np.ascontiguousarray(spoil(chest())), "bad")],
    )
    judgement = judge_images(rows, tmp_path)
    assert judgement.counts == {reason: 1}
    check_table(judgement.quarantine, "quarantine")


def test_views_and_duplicates(tmp_path: Path) -> None:
    rows = [
        image(tmp_path, chest(), "a"),
        image(tmp_path, chest(), "b", view="LL"),
        image(tmp_path, chest(), "c", view=None),
        image(tmp_path, chest(), "d", array_sha256="a", time=NIGHT + timedelta(hours=1)),
    ]
    judgement = judge_images(table("images", rows), tmp_path)
    assert judgement.counts == {"image.duplicate": 1, "image.view_not_frontal": 1}


@pytest.mark.data
def test_false_alarms_on_real_ecgs_stay_below_one_in_a_hundred(data_dir: Path) -> None:
    wfdb = pytest.importorskip("wfdb")
    from validation.ecg_quality import judge_measures

    headers = sorted((data_dir / "ptbxl" / "records100").rglob("*.hea"))[::3]
    refused = 0
    for header in headers:
        signal, fields = wfdb.rdsamp(str(header.with_suffix("")))
        measures = measure_recording(
            signal.T.astype(np.float32), leads=fields["sig_name"], sampling_rate=fields["fs"]
        )
        refused += judge_measures(measures, ECGLimits()) is not None
    assert len(headers) > 100
    assert refused / len(headers) < 0.01


@pytest.mark.data
def test_false_alarms_on_real_radiographs_stay_below_one_in_a_hundred(data_dir: Path) -> None:
    from validation.image_quality import judge_measures

    with (data_dir / "nih-cxr14" / "labels.csv").open(encoding="utf-8") as file:
        names = [Path(row["Image Index"]).stem for row in csv.DictReader(file)][::4]
    limits = ImageLimits()
    missed = false_alarms = 0
    for name in names:
        pixels = np.asarray(Image.open(data_dir / "nih-cxr14" / "images" / f"{name}.jpg").convert("L"))
        false_alarms += judge_measures(measure_image(pixels), limits) is not None
        missed += judge_measures(measure_image(255 - pixels), limits) is None
    assert len(names) == 100
    assert false_alarms <= 1
    assert missed <= 5
