"""ECGs of every carrier as millivolts, and every lie that a header can tell."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pydicom
import pytest
import wfdb
from ecg_files import LEADS, attachment, document, header, sampled, samples
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_adapter.errors import Refusal
from fhir_adapter.extract import PartSummary, extract_part
from fhir_adapter.limits import Limits
from fhir_adapter.sources import Part
from fhir_adapter.waveforms.archive import WaveformArchive
from fhir_adapter.waveforms.attachments import read_signals
from fhir_adapter.waveforms.dicom_ecg import read_dicom_ecg
from fhir_adapter.waveforms.sampled_data import read_sampled_data
from fhir_adapter.waveforms.signal import LEADS as STANDARD
from fhir_adapter.waveforms.wfdb_header import parse_header
from fhir_adapter.waveforms.wfdb_record import read_wfdb
from validation.contracts import Manifest, read_table

LIMITS = Limits()
SUBJECTS = pl.DataFrame({"patient_id": ["p1"], "subject_id": [7]})


def extract(
    resources: list[dict[str, Any]], folder: Path, kind: str, **options: Any
) -> tuple[PartSummary, pl.DataFrame]:
    path = folder / f"{kind}.ndjson"
    path.write_text("\n".join(map(json.dumps, resources)))
    summary = extract_part(
        Part(path.name, kind, {"file": path.name}),
        path,
        census_subjects=SUBJECTS,
        run_folder=folder / "run",
        n_shards=3,
        **options,
    )
    assert summary.pulled == summary.accepted + summary.quarantined
    return summary, read_table(Manifest.from_dict(summary.manifests[-1]), folder=folder / "run")


def refused(call: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(Refusal) as error:
        call(*arguments, **options)
    return str(error.value.reason)


def read_pair(text: str | bytes, data: bytes) -> str:
    raw = text.encode() if isinstance(text, str) else text
    return refused(read_wfdb, raw, {"rec.dat": data}.__getitem__, LIMITS)


# Carriers


def test_a_wfdb_pair_gives_millivolts_in_standard_order() -> None:
    digital = samples()
    signal = read_wfdb(header(digital).encode(), {"rec.dat": digital.tobytes()}.__getitem__, LIMITS)
    assert signal.leads == STANDARD
    assert signal.sampling_rate == 500
    np.testing.assert_allclose(signal.samples, digital.T / 1000, atol=1e-6)


@pytest.mark.data
def test_ptb_xl_comes_as_the_wfdb_package_reads_it(data_dir: Path) -> None:
    for path in sorted((data_dir / "ptbxl" / "records500").rglob("*.hea"))[:5]:
        archive = WaveformArchive(path.parent)
        (signal,) = read_signals(document({"url": path.name}), archive, LIMITS)
        theirs = wfdb.rdrecord(str(path.with_suffix("")))
        order = [[name.lower() for name in theirs.sig_name].index(lead.lower()) for lead in STANDARD]
        np.testing.assert_allclose(signal.samples, theirs.p_signal[:, order].T, atol=1e-6)
        assert signal.sampling_rate == theirs.fs


@pytest.mark.data
def test_a_dicom_ecg_comes_as_pydicom_calibrates_it(data_dir: Path) -> None:
    data = (data_dir / "dicom-ecg" / "waveform_ecg.dcm").read_bytes()
    signal = read_dicom_ecg(data, LIMITS)
    theirs = pydicom.dcmread(BytesIO(data)).waveform_array(0)
    np.testing.assert_allclose(signal.samples, theirs.T / 1000, atol=1e-5)
    assert (signal.leads, signal.sampling_rate) == (STANDARD, 1000.0)


def test_sampled_data_gives_origin_plus_factor_times_data() -> None:
    digital = samples()
    signal, others = read_sampled_data(sampled(digital, origin={"value": 100, "code": "uV"}), LIMITS)
    np.testing.assert_allclose(signal.samples[0], (digital[:, 0] * 5 + 100) / 1000, atol=1e-6)
    assert (signal.leads, signal.sampling_rate, others) == (STANDARD, 500.0, [])


def test_error_and_limit_tokens_become_gaps_and_limits() -> None:
    resource = sampled(samples(4), lowerLimit=-3000, upperLimit=3000)
    resource["component"][0]["valueSampledData"]["data"] = "1 E L U"
    signal, _ = read_sampled_data(resource, LIMITS)
    np.testing.assert_allclose(signal.samples[0], [0.005, np.nan, -3.0, 3.0])
    del resource["component"][0]["valueSampledData"]["lowerLimit"]
    assert np.isnan(read_sampled_data(resource, LIMITS)[0].samples[0, 2])


def test_a_multi_segment_record_is_put_together_with_gaps() -> None:
    digital = samples(300)
    first, second = digital[:100], digital[200:]
    files = {
        "a.hea": header(first, name="a", file="a.dat").encode(),
        "a.dat": first.tobytes(),
        "b.hea": header(second, name="b", file="b.dat").encode(),
        "b.dat": second.tobytes(),
    }
    master = b"rec/3 12 500 300\na 100\n~ 100\nb 100\n"
    signal = read_wfdb(master, files.__getitem__, LIMITS)
    np.testing.assert_allclose(signal.samples[:, :100], first.T / 1000, atol=1e-6)
    assert np.isnan(signal.samples[:, 100:200]).all()
    np.testing.assert_allclose(signal.samples[:, 200:], second.T / 1000, atol=1e-6)
    assert (
        refused(read_wfdb, b"rec/2 12 500 300\na 100\nb 100\n", files.__getitem__, LIMITS)
        == "ecg.header_invalid"
    )
    assert (
        refused(read_wfdb, b"rec/2 12 500 150\na 100\nb 50\n", files.__getitem__, LIMITS)
        == "ecg.header_invalid"
    )


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_digital_signal_survives_the_round_trip(data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 40))
    flat = data.draw(st.lists(st.integers(-32767, 32767), min_size=12 * length, max_size=12 * length))
    digital = np.array(flat, dtype=np.int16).reshape(length, 12)
    signal = read_wfdb(header(digital).encode(), {"rec.dat": digital.tobytes()}.__getitem__, LIMITS)
    np.testing.assert_allclose(signal.samples, digital.T / 1000, rtol=1e-6, atol=1e-9)
    again, _ = read_sampled_data(sampled(digital, factor=1), LIMITS)
    np.testing.assert_allclose(again.samples, digital.T / 1000, rtol=1e-6, atol=1e-9)


# Lies


@pytest.mark.parametrize(
    "line",
    [
        "rec 12 1e308 500",
        "rec 12 0 500",
        "rec 12 -500 500",
        "rec 12 nan 500",
        "rec 12 500 -500",
        "rec 0 500 500",
        "rec 9999 500 500",
        "../rec 12 500 500",
        "rec 12 500 five",
        "",
        "rec",
    ],
)
def test_a_record_line_that_lies_is_refused(line: str) -> None:
    digital = samples()
    text = "\n".join([line, *header(digital).splitlines()[1:]])
    assert read_pair(text, digital.tobytes()) == "ecg.header_invalid"


def test_a_huge_length_is_refused_before_memory_is_asked_for() -> None:
    digital = samples()
    assert read_pair(header(digital).replace("500 500", "500 999999999999"), b"") == "attachment.too_large"


@pytest.mark.parametrize(
    "gain", ["0", "-1000", "1e400", "nan", "", "1000(0)/mV 16 0 0 0 0 I extra\nrec.dat 16"]
)
def test_a_gain_that_proves_nothing_is_refused(gain: str) -> None:
    digital = samples()
    assert read_pair(header(digital, gain=gain), digital.tobytes()) == "ecg.header_invalid"


def test_a_unit_that_is_no_voltage_is_refused() -> None:
    digital = samples()
    assert read_pair(header(digital, gain="1000(0)/mmHg"), digital.tobytes()) == "unit.unknown"


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..", "s3://bucket/rec.dat", "a/b.dat", "~/x", ".dat"]
)
def test_a_signal_file_name_never_leaves_the_record(name: str) -> None:
    digital = samples()
    asked: list[str] = []

    def spy(file: str) -> bytes:
        asked.append(file)
        return digital.tobytes()

    assert refused(read_wfdb, header(digital, file=name).encode(), spy, LIMITS) == "ecg.header_invalid"
    assert asked == []


@pytest.mark.parametrize(
    ("keep", "reason"),
    [(0, "ecg.signal_truncated"), (0.5, "ecg.signal_truncated"), (0.999, "ecg.signal_truncated")],
)
def test_a_truncated_signal_is_refused(keep: float, reason: str) -> None:
    digital = samples()
    data = digital.tobytes()
    assert read_pair(header(digital), data[: int(len(data) * keep)]) == reason


def test_a_changed_sample_breaks_the_checksum() -> None:
    digital = samples()
    data = bytearray(digital.tobytes())
    data[100] ^= 1
    assert read_pair(header(digital), bytes(data)) == "ecg.checksum_mismatch"


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe",
        b"rec 12 500 500\n" + b"x\n" * 60_000,
        b"rec 1 500 10\nrec.dat 999 1000\n",
        b"rec 1 500 10\nrec.dat 16x4 1000 16 0 0 0 0 I\n",
    ],
)
def test_an_odd_header_is_refused(text: bytes) -> None:
    assert refused(parse_header, text, LIMITS) == "ecg.header_invalid"


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=300))
def test_random_bytes_are_refused_and_never_crash(text: bytes, data: bytes) -> None:
    good = header(samples(3)).encode()
    for candidate in (text, good[: len(text)] + text):
        try:
            read_wfdb(candidate, lambda name: data, LIMITS)
        except Refusal:
            continue


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"period": 0}, "ecg.header_invalid"),
        ({"period": -2}, "ecg.header_invalid"),
        ({"period": 1e-9}, "ecg.header_invalid"),
        ({"period": None}, "ecg.header_invalid"),
        ({"period": True}, "ecg.header_invalid"),
        ({"factor": 0}, "ecg.header_invalid"),
        ({"factor": "5"}, "ecg.header_invalid"),
        ({"dimensions": 2}, "ecg.header_invalid"),
        ({"origin": {"value": 0}}, "unit.missing"),
        ({"origin": {"value": 0, "unit": "mm[Hg]"}}, "unit.unknown"),
        ({"origin": {"unit": "uV"}}, "ecg.header_invalid"),
        ({"data": ""}, "ecg.unreadable"),
        ({"data": "1 2 nan"}, "ecg.unreadable"),
        ({"data": "1 2 0x10"}, "ecg.unreadable"),
        ({"data": "1 2 --3"}, "ecg.unreadable"),
        ({"data": "E E E"}, "ecg.unreadable"),
        ({"data": "1e44 1e44"}, "ecg.header_invalid"),
        ({"data": "1 " * 3_000_000}, "attachment.too_large"),
    ],
)
def test_sampled_data_that_lies_is_refused(change: dict[str, Any], reason: str) -> None:
    assert refused(read_sampled_data, sampled(samples(3), **change), LIMITS) == reason


def test_leads_of_different_lengths_or_periods_are_refused() -> None:
    resource = sampled(samples(5))
    resource["component"][3]["valueSampledData"]["data"] = "1 2"
    assert refused(read_sampled_data, resource, LIMITS) == "ecg.header_invalid"
    resource = sampled(samples(5))
    resource["component"][3]["valueSampledData"]["period"] = 4
    assert refused(read_sampled_data, resource, LIMITS) == "ecg.header_invalid"
    resource["component"][3]["code"] = {"text": "Pleth"}
    assert refused(read_sampled_data, resource, LIMITS) == "ecg.leads_missing"


# Documents


def test_documents_and_observations_become_rows_with_their_times(tmp_path: Path) -> None:
    digital = samples()
    pair = (
        attachment(header(digital).encode(), title="rec.hea"),
        attachment(digital.tobytes(), title="rec.dat"),
    )
    summary, quarantine = extract([document(*pair)], tmp_path, "DocumentReference")
    rows = read_table(Manifest.from_dict(summary.manifests[0]), folder=tmp_path / "run")
    row = rows.row(0, named=True)
    assert (row["carrier"], row["encounter_id"], row["unit"], row["samples"]) == ("wfdb", "e1", "mV", 500)
    assert (row["time"].minute, row["available_time"].minute) == (0, 5)
    array = np.load(tmp_path / "run" / row["array_path"])
    assert (array.dtype, array.shape) == (np.float32, (12, 500))
    assert (
        hashlib.sha256((tmp_path / "run" / row["array_path"]).read_bytes()).hexdigest() == row["array_sha256"]
    )
    assert quarantine.is_empty()
    summary, _ = extract([sampled(digital)], tmp_path, "Observation")
    assert summary.rows == {"observations": 0, "recordings": 1, "images": 0}


def test_only_the_newest_version_of_a_document_is_kept(tmp_path: Path) -> None:
    digital = samples()
    pair = (
        attachment(header(digital).encode(), title="rec.hea"),
        attachment(digital.tobytes(), title="rec.dat"),
    )
    old, new = (document(*pair, meta={"versionId": version}) for version in "12")
    summary, quarantine = extract([old, new, copy.deepcopy(new)], tmp_path, "DocumentReference")
    assert (summary.pulled, summary.accepted, summary.quarantined) == (3, 1, 2)
    assert quarantine.select("source_line", "reason").rows() == [
        (1, "resource.superseded"),
        (3, "resource.duplicate"),
    ]


def broken_documents() -> dict[str, tuple[dict[str, Any], str]]:
    digital = samples()
    head, data = header(digital).encode(), digital.tobytes()
    good = (attachment(head, title="rec.hea"), attachment(data, title="rec.dat"))
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("../../../../tmp/evil", "x")
    laughs = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd"><!ENTITY b "&a;&a;">]><x>&b;</x>'
    return {
        "aECG with a DTD": (
            document(attachment(laughs, contentType="application/xml", title="ecg.xml")),
            "attachment.type_not_supported",
        ),
        "hash": (document(good[0], good[1] | {"hash": "AAAA"}), "attachment.hash_mismatch"),
        "size": (document(good[0], good[1] | {"size": 5}), "attachment.hash_mismatch"),
        "base64": (document({"title": "rec.hea", "data": "%%%"}), "attachment.missing"),
        "no signal": (document(good[0]), "attachment.missing"),
        "empty": (document(), "attachment.missing"),
        "pdf": (
            document(attachment(b"%PDF", contentType="application/pdf")),
            "attachment.type_not_supported",
        ),
        "zip slip": (
            document(attachment(archive.getvalue(), contentType="application/zip")),
            "attachment.type_not_supported",
        ),
        "climb": (document({"url": "../outside.hea"}), "attachment.outside_archive"),
        "encoded climb": (document({"url": "%2e%2e/outside.hea"}), "attachment.outside_archive"),
        "absolute": (document({"url": "/etc/passwd.hea"}), "attachment.outside_archive"),
        "file url": (document({"url": "file:///etc/passwd.hea"}), "attachment.host_not_allowed"),
        "metadata service": (
            document({"url": "http://169.254.169.254/x.hea"}),
            "attachment.host_not_allowed",
        ),
        "s3": (document({"url": "s3://bucket/x.hea"}), "attachment.host_not_allowed"),
        "symbolic link": (document({"url": "link.hea"}), "attachment.outside_archive"),
        "not there": (document({"url": "nothing.hea"}), "attachment.missing"),
        "too large": (document({"url": "large.hea"}), "attachment.too_large"),
        "superseded": (document(*good, status="superseded"), "status.not_accepted"),
        "preliminary": (document(*good, docStatus="preliminary"), "status.not_accepted"),
        "stranger": (document(*good, subject={"reference": "Patient/other"}), "subject.unknown"),
        "modifier": (document(*good, modifierExtension=[{"url": "x"}]), "resource.modifier"),
        "dicom bytes": (document(attachment(b"\0" * 128 + b"DICMxxxx", title="x.dcm")), "image.unreadable"),
    }


@pytest.mark.parametrize("name", sorted(broken_documents()))
def test_a_broken_document_is_quarantined_with_its_reason(name: str, tmp_path: Path) -> None:
    resource, reason = broken_documents()[name]
    root = tmp_path / "archive"
    root.mkdir()
    (tmp_path / "outside.hea").write_text(header(samples()))
    (root / "link.hea").symlink_to(tmp_path / "outside.hea")
    (root / "large.hea").write_bytes(b"x" * 200_001)
    summary, quarantine = extract(
        [resource],
        tmp_path,
        "DocumentReference",
        waveform_archive=root,
        limits=Limits(max_attachment_bytes=200_000),
    )
    assert (summary.accepted, quarantine["reason"].to_list()) == (0, [reason])


def test_hash_and_size_that_agree_are_accepted() -> None:
    digital = samples()
    data = digital.tobytes()
    digest = base64.b64encode(hashlib.sha1(data).digest()).decode()
    pair = (
        attachment(header(digital).encode(), title="rec.hea"),
        attachment(data, title="rec.dat", size=len(data), hash=digest),
    )
    (signal,) = read_signals(document(*pair), None, LIMITS)
    assert signal.samples.shape == (len(LEADS), 500)
