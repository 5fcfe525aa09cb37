"""Chest radiographs: transfer syntaxes, grey scales, the choice of views, and attacks on the decoder."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from radiographs import INSTANCE, SERIES, STUDY, compressed, dataset, dicom_bytes, jpeg_lossless, pixels

from fhir_adapter.errors import Refusal
from fhir_adapter.extract import PartSummary, extract_part
from fhir_adapter.images.archive import FolderArchive, Instance
from fhir_adapter.images.decode import decode_image, shrink
from fhir_adapter.limits import Limits
from fhir_adapter.sources import Part
from fhir_adapter.worker import DecodeWorker
from validation.contracts import Manifest, read_table

LIMITS = Limits()


def refused(data: bytes, limits: Limits = LIMITS, decode: Any = decode_image) -> str:
    with pytest.raises(Refusal) as error:
        decode(data, limits)
    return str(error.value.reason)


def expected(picture: np.ndarray) -> np.ndarray:
    low, high = int(picture.min()), int(picture.max())
    return np.rint((picture.astype(float) - low) / (high - low) * 255).astype(np.uint8)


# Transfer syntaxes


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_native_and_rle_pixels(syntax: str) -> None:
    picture = pixels()
    made = dataset(picture)
    if syntax == RLELossless:
        made.compress(RLELossless)
    elif syntax == ExplicitVRBigEndian:
        made.PixelData = picture.astype(">u2").tobytes()
        made.file_meta.TransferSyntaxUID = syntax
    else:
        made.file_meta.TransferSyntaxUID = syntax
    np.testing.assert_array_equal(decode_image(dicom_bytes(made), LIMITS).pixels, expected(picture))


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_jpeg_lossless_that_this_test_wrote_bit_by_bit(bits: int) -> None:
    picture = pixels(top=2**bits - 1)
    data = compressed(picture, jpeg_lossless(picture, bits=bits), JPEGLosslessSV1, bits=bits)
    np.testing.assert_array_equal(decode_image(data, LIMITS).pixels, expected(picture))
    data = compressed(picture, jpeg_lossless(picture, bits=bits), "1.2.840.10008.1.2.4.57", bits=bits)
    np.testing.assert_array_equal(decode_image(data, LIMITS).pixels, expected(picture))


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
def test_jpeg_ls_and_jpeg_2000_lossless(syntax: str) -> None:
    picture = pixels()
    made = dataset(picture)
    made.compress(syntax)
    np.testing.assert_array_equal(decode_image(dicom_bytes(made), LIMITS).pixels, expected(picture))


def test_jpeg_baseline() -> None:
    picture = pixels(top=255)
    buffer = io.BytesIO()
    Image.fromarray(picture.astype(np.uint8)).save(buffer, "JPEG", quality=98)
    data = compressed(picture, buffer.getvalue(), JPEGBaseline8Bit, bits=8)
    difference = decode_image(data, LIMITS).pixels.astype(int) - expected(picture)
    assert np.abs(difference).mean() < 3


def test_gdcm_is_there_for_jpeg_lossless() -> None:
    from pydicom.pixels import get_decoder

    assert "gdcm" in get_decoder(JPEGLosslessSV1).available_plugins


# Grey scale


def test_monochrome1_is_turned_around() -> None:
    picture = pixels()
    turned = decode_image(
        dicom_bytes(dataset(4095 - picture, PhotometricInterpretation="MONOCHROME1")), LIMITS
    )
    assert np.abs(turned.pixels.astype(int) - expected(picture)).max() <= 1


@pytest.mark.parametrize(
    ("function", "value", "grey"),
    [
        ("LINEAR", 100, 0),
        ("LINEAR", 2000, 128),
        ("LINEAR", 4000, 255),
        ("LINEAR", 1500, 64),
        ("LINEAR_EXACT", 1500, 64),
        ("SIGMOID", 2000, 128),
    ],
)
def test_a_window_maps_as_the_standard_says(function: str, value: int, grey: int) -> None:
    picture = np.full((4, 4), value, dtype=np.uint16)
    made = dataset(picture, WindowCenter="2000", WindowWidth="2000", VOILUTFunction=function)
    assert abs(int(decode_image(dicom_bytes(made), LIMITS).pixels[0, 0]) - grey) <= 1


def test_rescale_comes_before_the_window() -> None:
    picture = np.full((4, 4), 1000, dtype=np.uint16)
    made = dataset(
        picture,
        RescaleSlope="2",
        RescaleIntercept="-1000",
        WindowCenter=["1000", "5"],
        WindowWidth=["2000", "9"],
    )
    assert abs(int(decode_image(dicom_bytes(made), LIMITS).pixels[0, 0]) - 128) <= 1


def test_a_lookup_table_is_applied() -> None:
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    table.LUTData = np.linspace(65535, 0, 4096).astype("<u2").tobytes()
    table["LUTData"].VR = "OW"
    made = dataset(np.array([[0, 4095], [2048, 2048]], dtype=np.uint16), VOILUTSequence=[table])
    got = decode_image(dicom_bytes(made), LIMITS).pixels
    assert (got[0, 0], got[0, 1]) == (255, 0)
    assert abs(int(got[1, 0]) - 128) <= 1


def test_padding_does_not_stretch_the_scale() -> None:
    picture = pixels()
    picture[:5] = 65535
    made = dataset(picture, bits=16, PixelPaddingValue=65535)
    got = decode_image(dicom_bytes(made), LIMITS).pixels
    assert (got[:5] == 0).all()
    np.testing.assert_array_equal(got[5:], expected(picture[5:]))


def test_a_large_picture_is_shrunk_by_area_and_its_spacing_grows() -> None:
    picture = pixels(300, 200)
    made = dataset(picture, PixelSpacing=["0.2", "0.2"])
    got = decode_image(dicom_bytes(made), Limits(longest_side=100))
    assert got.pixels.shape == (100, 67)
    assert got.pixel_spacing == pytest.approx(0.6)
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    assert np.abs(shrink(board.astype(np.uint8), 32)[0].astype(int) - 127).max() <= 1


# Choice


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"Modality": "CT"}, "image.not_chest"),
        ({"BodyPartExamined": "HAND"}, "image.not_chest"),
        ({"ViewPosition": "LL"}, "image.view_not_frontal"),
        ({"ViewPosition": "", "SeriesDescription": "Thorax LAT"}, "image.view_not_frontal"),
        ({"PixelData": None}, "image.no_pixels"),
        ({"PixelData": b""}, "image.no_pixels"),
        ({"Rows": 0}, "image.unreadable"),
        ({"Rows": 60000, "Columns": 60000}, "image.too_large"),
        ({"NumberOfFrames": "2147483647"}, "image.too_large"),
        ({"NumberOfFrames": "-1"}, "image.unreadable"),
        ({"Rows": 640}, "image.unreadable"),
        ({"WindowCenter": "1", "WindowWidth": "0"}, "image.unreadable"),
        ({"SamplesPerPixel": 7}, "image.unreadable"),
    ],
)
def test_an_object_that_is_no_frontal_chest_view_is_refused(elements: dict[str, Any], reason: str) -> None:
    assert refused(dicom_bytes(dataset(pixels(), **elements))) == reason


def test_the_view_is_taken_from_where_it_stands() -> None:
    assert decode_image(dicom_bytes(dataset(pixels())), LIMITS).view == "PA"
    made = dataset(pixels(), ViewPosition="", SeriesDescription="Chest AP bedside")
    assert decode_image(dicom_bytes(made), LIMITS).view == "AP"
    assert decode_image(dicom_bytes(dataset(pixels(), ViewPosition="")), LIMITS).view is None


# Attacks, through the worker as in a night


@pytest.fixture(scope="module")
def worker() -> Any:
    with DecodeWorker("image", Limits(worker_memory=600_000_000, worker_seconds=20)) as made:
        yield made


def deflate_bomb() -> bytes:
    """A deflated object of half a megabyte that inflates to 500 MB (PS3.5 A.5)."""
    made = dataset(pixels())
    made.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data = dicom_bytes(made)
    at = data.index(b"DICM") + 4
    length = struct.unpack_from("<I", data, at + 8)[0]
    meta = data[: at + 12 + length]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = b"".join(packer.compress(b"\0" * 10_000_000) for _ in range(50)) + packer.flush()
    return meta + body


def rle_bomb() -> bytes:
    """A run-length frame whose segments unpack to 128 bytes for every two."""
    frame = struct.pack("<16L", 1, 64, *([0] * 14)) + b"\x81\x00" * 200_000
    return compressed(pixels(), frame, RLELossless)


def nested(depth: int) -> bytes:
    """Sequences within sequences, of undefined length."""
    made = dataset(pixels())
    data = dicom_bytes(made)
    pixel_data = data.index(struct.pack("<HH", 0x7FE0, 0x0010))
    opened = struct.pack("<HH2sHL", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    closed = struct.pack("<HHL", 0xFFFE, 0xE00D, 0) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    return data[:pixel_data] + opened * depth + closed * depth + data[pixel_data:]


def test_a_deflate_bomb_is_refused_unopened(worker: DecodeWorker) -> None:
    bomb = deflate_bomb()
    assert len(bomb) < 600_000
    assert refused(bomb, decode=worker) == "image.syntax_not_supported"


def test_a_run_length_bomb_is_refused(worker: DecodeWorker) -> None:
    assert refused(rle_bomb(), decode=worker) == "image.unreadable"


@pytest.mark.parametrize("depth", [300, 3_000, 30_000])
def test_nested_sequences_are_refused_or_read_but_never_fatal(worker: DecodeWorker, depth: int) -> None:
    assert refused(nested(depth), decode=worker) in {"image.unreadable", "image.too_large"}
    picture = pixels()
    np.testing.assert_array_equal(worker(dicom_bytes(dataset(picture)), LIMITS).pixels, expected(picture))


def test_a_worker_that_runs_out_of_memory_costs_one_object_only() -> None:
    picture = pixels(3000, 3000)
    data = dicom_bytes(dataset(picture))
    with DecodeWorker("image", Limits(worker_memory=60_000_000)) as tight:
        assert refused(data, decode=tight) == "image.too_large"
        small = pixels()
        np.testing.assert_array_equal(tight(dicom_bytes(dataset(small)), LIMITS).pixels, expected(small))


def test_a_worker_that_takes_too_long_is_ended_and_replaced() -> None:
    data = dicom_bytes(dataset(pixels(2500, 2500)))
    with DecodeWorker("image", LIMITS) as slow:
        small = pixels()
        slow(dicom_bytes(dataset(small)), LIMITS)
        assert refused(data, Limits(worker_seconds=0.001), decode=slow) == "image.unreadable"
        np.testing.assert_array_equal(slow(dicom_bytes(dataset(small)), LIMITS).pixels, expected(small))


def test_the_worker_gives_what_the_decoder_gives(worker: DecodeWorker) -> None:
    data = dicom_bytes(dataset(pixels(), PixelSpacing=["0.1", "0.1"]))
    here, there = decode_image(data, LIMITS), worker(data, LIMITS)
    np.testing.assert_array_equal(here.pixels, there.pixels)
    assert (here.view, here.pixel_spacing, here.instance_uid) == (
        there.view,
        there.pixel_spacing,
        there.instance_uid,
    )


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_damaged_objects_are_refused_or_decoded_and_never_crash(data: st.DataObject) -> None:
    whole = bytearray(dicom_bytes(dataset(pixels(8, 8))))
    cut = data.draw(st.integers(0, len(whole)))
    for _ in range(data.draw(st.integers(0, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode_image(bytes(whole[:cut]), Limits(max_pixels=10_000))
    except Refusal as refusal:
        assert str(refusal.reason).startswith("image.")


# Studies


def study(**fields: Any) -> dict[str, Any]:
    return {
        "resourceType": "ImagingStudy",
        "id": "s1",
        "status": "available",
        "subject": {"reference": "Patient/p1"},
        "encounter": {"reference": "Encounter/e1"},
        "started": "2026-01-01T10:00:00Z",
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{STUDY}"}],
        "modality": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "DX"}],
    } | fields


def store(folder: Path, made: Dataset) -> None:
    path = folder / "dicom" / made.StudyInstanceUID / made.SeriesInstanceUID / f"{made.SOPInstanceUID}.dcm"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dicom_bytes(made))


def extract(resources: list[dict[str, Any]], folder: Path) -> tuple[PartSummary, pl.DataFrame]:
    path = folder / "ImagingStudy.ndjson"
    path.write_text("\n".join(map(json.dumps, resources)))
    summary = extract_part(
        Part(path.name, "ImagingStudy", {"file": path.name}),
        path,
        census_subjects=pl.DataFrame({"patient_id": ["p1"], "subject_id": [7]}),
        run_folder=folder / "run",
        n_shards=2,
        image_archive=FolderArchive(folder / "dicom"),
    )
    assert summary.pulled == summary.accepted + summary.quarantined
    return summary, read_table(Manifest.from_dict(summary.manifests[-1]), folder=folder / "run")


def test_a_study_gives_its_frontal_views_and_says_what_it_left_out(tmp_path: Path) -> None:
    store(tmp_path, dataset(pixels()))
    store(tmp_path, dataset(pixels(), SOPInstanceUID="1.2.3.4.6", ViewPosition="LL"))
    summary, quarantine = extract([study()], tmp_path)
    (manifest,) = [item for item in summary.manifests if item["table"] == "images"]
    row = read_table(Manifest.from_dict(manifest), folder=tmp_path / "run").row(0, named=True)
    assert (row["image_id"], row["view"], row["height_px"], row["width_px"]) == (INSTANCE, "PA", 64, 48)
    assert quarantine.select("reason", "whole").rows() == [("image.view_not_frontal", False)]
    array = np.load(tmp_path / "run" / row["array_path"])
    np.testing.assert_array_equal(array, expected(pixels()))


@pytest.mark.parametrize(
    ("resource", "reason"),
    [
        (study(identifier=[]), "image.not_found"),
        (study(identifier=[{"system": "urn:dicom:uid", "value": "urn:oid:9.9.9"}]), "image.not_found"),
        (study(identifier=[{"system": "urn:dicom:uid", "value": "urn:oid:../../etc"}]), "image.not_found"),
        (study(status="cancelled"), "status.not_accepted"),
        (study(modality=[{"code": "CT"}]), "image.not_chest"),
        (study(started=None), "time.missing"),
        (study(started="2026-01-01"), "time.partial"),
        (study(subject={"reference": "Patient/x"}), "subject.unknown"),
        (study(series=[{"uid": SERIES, "instance": [{"uid": "1.2.3.4.99"}]}]), "image.not_found"),
    ],
)
def test_a_study_that_cannot_be_used_is_quarantined(
    resource: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    store(tmp_path, dataset(pixels()))
    summary, quarantine = extract([resource], tmp_path)
    assert (summary.accepted, quarantine["reason"].to_list()) == (0, [reason])


def test_one_instance_behind_two_studies_counts_once(tmp_path: Path) -> None:
    store(tmp_path, dataset(pixels()))
    summary, quarantine = extract([study(), study(id="s2")], tmp_path)
    assert (summary.accepted, summary.quarantined) == (1, 1)
    assert quarantine["reason"].to_list() == ["image.duplicate"]


def test_a_file_under_another_objects_name_is_refused(tmp_path: Path) -> None:
    store(tmp_path, dataset(pixels()))
    path = tmp_path / "dicom" / STUDY / SERIES / f"{INSTANCE}.dcm"
    path.write_bytes(dicom_bytes(dataset(pixels(), StudyInstanceUID="7.7.7")))
    _, quarantine = extract([study()], tmp_path)
    assert quarantine["reason"].to_list() == ["image.unreadable"]


@pytest.mark.parametrize("uid", ["..", "../..", "/etc", "1.2/../3", ""])
def test_the_folder_archive_stays_in_its_root(uid: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal):
        FolderArchive(tmp_path).read(Instance(uid, uid, uid), max_bytes=10)
    with pytest.raises(Refusal):
        FolderArchive(tmp_path).list_instances(uid)
