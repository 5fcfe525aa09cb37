"""DICOMweb against a real Orthanc: metadata first, then only frontal chest views."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from deploy.servers.orthanc import Orthanc
from fhir_adapter.errors import Refusal
from fhir_adapter.extract import extract_part
from fhir_adapter.images.archive import Instance
from fhir_adapter.images.dicomweb import DicomWebArchive
from fhir_adapter.smart import BasicAuth
from fhir_adapter.sources import Part
from fhir_adapter.transport import Interaction, Transport

pytestmark = [pytest.mark.orthanc]

STUDY = "1.2.826.0.1.3680043.8.498.1"
VIEWS = {
    "1": ("DX", "PA", "CHEST"),
    "2": ("DX", "LL", "CHEST"),
    "3": ("CT", "", "CHEST"),
    "4": ("DX", "AP", "CHEST"),
    "5": ("CR", "", ""),
}


def picture(seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    small = Image.fromarray(draw.integers(0, 255, (8, 8), dtype=np.uint8))
    return np.asarray(small.resize((96, 80), Image.Resampling.BICUBIC)).astype(np.uint16) * 16


def made(number: str, syntax: str | None) -> bytes:
    from io import BytesIO

    modality, view, part = VIEWS[number]
    pixels = picture(int(number))
    item = Dataset()
    item.file_meta = FileMetaDataset()
    item.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    item.SOPClassUID = item.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    item.SOPInstanceUID = item.file_meta.MediaStorageSOPInstanceUID = f"{STUDY}.{number}.1"
    item.StudyInstanceUID, item.SeriesInstanceUID = STUDY, f"{STUDY}.{number}"
    item.PatientID, item.Modality, item.ViewPosition, item.BodyPartExamined = "x", modality, view, part
    item.Rows, item.Columns = pixels.shape
    item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 12, 11, 0
    item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
    item.PixelData = pixels.tobytes()
    if syntax:
        item.compress(syntax)
    buffer = BytesIO()
    item.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pacs() -> Iterator[Orthanc]:
    syntaxes = {"1": JPEGLSLossless, "2": None, "3": None, "4": JPEG2000Lossless, "5": RLELossless}
    with Orthanc() as server:
        url = server.dicomweb_url.removesuffix("/dicom-web") + "/instances"
        for number, syntax in syntaxes.items():
            httpx.post(
                url, content=made(number, syntax), auth=(server.user, server.password)
            ).raise_for_status()
        yield server


@pytest.fixture
def archive(pacs: Orthanc) -> Iterator[tuple[DicomWebArchive, list[Interaction]]]:
    log: list[Interaction] = []
    with Transport(
        pacs.dicomweb_url, auth=BasicAuth(pacs.user, pacs.password), audit=log.append
    ) as transport:
        yield DicomWebArchive(transport), log


def study(uid: str = STUDY, **fields: Any) -> dict[str, Any]:
    return {
        "resourceType": "ImagingStudy",
        "id": "s1",
        "status": "available",
        "subject": {"reference": "Patient/p1"},
        "started": "2026-01-01T10:00:00Z",
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}],
    } | fields


def test_only_frontal_chest_views_are_listed(archive: tuple[DicomWebArchive, list[Interaction]]) -> None:
    found = archive[0].list_instances(STUDY)
    assert [item.series_uid.rsplit(".", 1)[-1] for item in found] == ["1", "4", "5"]


def test_a_study_comes_through_the_night(
    archive: tuple[DicomWebArchive, list[Interaction]], tmp_path: Path
) -> None:
    path = tmp_path / "ImagingStudy.ndjson"
    path.write_text("\n".join(json.dumps(item) for item in (study(), study("1.2.3.9", id="s2"))))
    summary = extract_part(
        Part(path.name, "ImagingStudy", {"file": path.name}),
        path,
        census_subjects=pl.DataFrame({"patient_id": ["p1"], "subject_id": [7]}),
        run_folder=tmp_path / "run",
        n_shards=1,
        image_archive=archive[0],
    )
    assert (summary.pulled, summary.accepted, summary.quarantined) == (2, 1, 1)
    rows = pl.read_parquet(tmp_path / "run" / summary.manifests[0]["path"])
    assert rows["view"].to_list() == ["PA", "AP", None]
    for row, number in zip(rows.iter_rows(named=True), (1, 4, 5), strict=True):
        pixels = picture(number).astype(float)
        expected = np.rint((pixels - pixels.min()) / (pixels.max() - pixels.min()) * 255)
        np.testing.assert_array_equal(np.load(tmp_path / "run" / row["array_path"]), expected)
    pulled = [entry for entry in archive[1] if "/series/" in entry.path]
    assert len(pulled) == 3, "pixels of the lateral view and the CT must stay where they are"


def test_what_the_pacs_does_not_hold_is_named(archive: tuple[DicomWebArchive, list[Interaction]]) -> None:
    with pytest.raises(Refusal, match=r"image\.not_found"):
        archive[0].list_instances("1.2.3.9")
    with pytest.raises(Refusal, match=r"image\.not_found"):
        archive[0].read(Instance(STUDY, f"{STUDY}.1", "1.2.3"), max_bytes=10_000_000)
    with pytest.raises(Refusal, match=r"image\.too_large"):
        archive[0].read(Instance(STUDY, f"{STUDY}.2", f"{STUDY}.2.1"), max_bytes=100)
