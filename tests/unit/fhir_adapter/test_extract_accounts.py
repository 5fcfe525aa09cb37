"""pulled = accepted + quarantined, whatever a file holds."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_adapter.errors import SourceError
from fhir_adapter.extract import PartSummary, extract_part
from fhir_adapter.limits import Limits
from fhir_adapter.ndjson import read_blocks
from fhir_adapter.sources import FolderSource, Part
from validation.contracts import Manifest, read_table

SUBJECTS = pl.DataFrame({"patient_id": ["p1", "p2"], "subject_id": [7, -3]})


def observation(key: str = "a", *, value: float = 1, status: str = "final", **meta: str) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": key,
        "meta": meta,
        "status": status,
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
        "subject": {"reference": "Patient/p1"},
        "effectiveDateTime": "2026-01-01T10:00:00Z",
        "valueQuantity": {"value": value},
    }


def extract(content: bytes, folder: Path, *, name: str = "Observation.ndjson", **options: Any) -> PartSummary:
    path = folder / name
    path.write_bytes(content)
    summary = extract_part(
        Part(name, "Observation", {"file": name}),
        path,
        census_subjects=SUBJECTS,
        run_folder=folder / "run",
        n_shards=3,
        **options,
    )
    assert summary.pulled == summary.accepted + summary.quarantined
    assert PartSummary.from_dict(json.loads(json.dumps(summary.to_dict()))) == summary
    return summary


def tables(summary: PartSummary, folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    frames = {"observations": [], "quarantine": []}
    for fields in summary.manifests:
        manifest = Manifest.from_dict(fields)
        frames[manifest.table].append(read_table(manifest, folder=folder / "run"))
    rows = pl.concat(frames["observations"]) if frames["observations"] else pl.DataFrame()
    return rows, frames["quarantine"][0]


def lines(*resources: dict[str, Any]) -> bytes:
    return b"\n".join(json.dumps(item).encode() for item in resources) + b"\n"


def test_the_newest_version_wins_even_if_it_comes_first(tmp_path: Path) -> None:
    old = observation(value=1, lastUpdated="2026-01-01T00:00:00Z")
    new = observation(value=2, lastUpdated="2026-01-01T02:30:00+01:00")
    summary = extract(lines(new, old, new), tmp_path)
    rows, quarantine = tables(summary, tmp_path)
    assert rows["value"].to_list() == [2.0]
    assert quarantine.sort("source_line").select("source_line", "reason").rows() == [
        (2, "resource.superseded"),
        (3, "resource.duplicate"),
    ]


def test_an_entry_in_error_takes_its_older_value_with_it(tmp_path: Path) -> None:
    good = observation(versionId="1")
    withdrawn = observation(versionId="2", status="entered-in-error")
    summary = extract(lines(good, withdrawn, observation("b")), tmp_path)
    rows, quarantine = tables(summary, tmp_path)
    assert rows["source_ref"].to_list() == ["Observation/b"]
    assert set(quarantine.select("source_line", "reason").rows()) == {
        (1, "resource.superseded"),
        (2, "status.not_accepted"),
    }


def test_a_line_over_the_limit_is_skipped_and_the_others_keep_their_numbers(tmp_path: Path) -> None:
    long = observation("long", value=1) | {"note": "x" * 40_000}
    content = lines(observation("a"), long, observation("b")) + b"\n\n" + lines(observation("c"))
    for block_bytes in (500, 5_000, 1_000_000):
        limits = Limits(max_line_bytes=10_000, block_bytes=block_bytes)
        summary = extract(content, tmp_path, limits=limits)
        rows, quarantine = tables(summary, tmp_path)
        assert rows.sort("source_line").select("source_line", "source_ref").rows() == [
            (1, "Observation/a"),
            (3, "Observation/b"),
            (6, "Observation/c"),
        ]
        assert quarantine.select("source_line", "reason").rows() == [(2, "json.too_long")]
        assert summary.pulled == 4


@pytest.mark.parametrize(
    "key",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "a/b",
        "%2e%2e",
        "x'); DROP TABLE ledger;--",
        "a\0b",
        "a\nb",
        "x" * 65,
    ],
)
def test_an_id_that_would_climb_or_inject_costs_its_line(key: str, tmp_path: Path) -> None:
    before = {path for path in tmp_path.parent.rglob("*") if not path.is_relative_to(tmp_path)}
    stranger = observation("c") | {"subject": {"reference": f"Patient/{key}"}}
    summary = extract(lines(observation(key), stranger, observation("b")), tmp_path)
    rows, quarantine = tables(summary, tmp_path)
    assert rows["source_ref"].to_list() == ["Observation/b"]
    assert quarantine.sort("source_line").select("source_line", "reason").rows() == [
        (1, "resource.id_invalid"),
        (2, "subject.missing"),
    ]
    assert not any(key in str(cell) for row in quarantine.rows() for cell in row)
    assert {path for path in tmp_path.parent.rglob("*") if not path.is_relative_to(tmp_path)} == before


@pytest.mark.parametrize("depth", [600, 5_000, 100_000])
def test_deep_nesting_costs_one_line(depth: int, tmp_path: Path) -> None:
    bomb = b'{"resourceType":"Observation","id":"x","status":' + b"[" * depth + b"]" * depth + b"}\n"
    summary = extract(bomb + lines(observation()), tmp_path)
    _, quarantine = tables(summary, tmp_path)
    assert (summary.accepted, quarantine["reason"].to_list()) == (1, ["json.too_deep"])


@pytest.mark.parametrize("damage", ["cut", "bit"])
def test_a_broken_gzip_file_fails_as_a_whole_and_leaves_nothing(damage: str, tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(lines(*(observation(str(n)) for n in range(2000)))))
    content = bytes(packed[: len(packed) // 2]) if damage == "cut" else bytes(packed[:-6] + b"\0\0\0\0\0\0")
    with pytest.raises(SourceError, match="cannot be read to its end"):
        extract(content, tmp_path, name="Observation.ndjson.gz")
    assert list((tmp_path / "run").rglob("*.parquet")) == []


def test_a_second_extraction_gives_the_same_bytes(tmp_path: Path) -> None:
    content = lines(*(observation(str(n), value=n) for n in range(50)), observation("x", status="unknown"))
    first, second = extract(content, tmp_path), extract(content, tmp_path)
    assert first == second


def test_rows_lie_in_the_shard_of_their_subject(tmp_path: Path) -> None:
    other = observation("b") | {"subject": {"reference": "http://ehr.example/fhir/Patient/p2"}}
    summary = extract(lines(observation("a"), other), tmp_path)
    for fields in summary.manifests[:-1]:
        rows = pl.read_parquet(tmp_path / "run" / fields["path"])
        assert [value % 2**64 % 3 for value in rows["subject_id"]] == [fields["shard"]] * rows.height


def test_quarantine_details_hold_no_value(tmp_path: Path) -> None:
    secret = "Meier"
    bad = observation("a") | {
        "valueQuantity": {"value": secret},
        secret: {"x": secret},
        "effectiveDateTime": secret,
    }
    worse = observation("b") | {
        "component": [{"code": secret, secret: 1}],
        "valueQuantity": secret,
        "issued": secret,
    }
    summary = extract(lines(bad, worse, {"resourceType": secret, "id": "c"}), tmp_path)
    _, quarantine = tables(summary, tmp_path)
    assert quarantine.height == 3
    assert secret not in quarantine.write_csv()


def test_the_slow_paths_say_which_element_breaks_r4(tmp_path: Path) -> None:
    summary = extract(lines(observation() | {"valueQuantity": {"value": "high"}}), tmp_path)
    _, quarantine = tables(summary, tmp_path)
    assert quarantine["reason"].to_list() == ["value.invalid"]
    assert "valueQuantity.value: value_error" in quarantine["detail"][0]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.one_of(st.sampled_from([b"", b" ", b"{}", b"x" * 50]), st.binary(max_size=30)), max_size=12),
    st.integers(1, 40),
    st.integers(5, 60),
)
def test_blocks_give_every_line_once_with_its_number(
    pieces: list[bytes], block_bytes: int, limit: int
) -> None:
    pieces = [piece.replace(b"\n", b"") for piece in pieces]
    path = Path("/tmp") / f"nightingale-lines-{os.getpid()}"
    content = b"\n".join(pieces)
    if content[:2] == b"\x1f\x8b":
        return
    path.write_bytes(content)
    try:
        blocks = list(read_blocks(path, block_bytes=block_bytes, max_line_bytes=limit))
    finally:
        path.unlink()
    got = [item for block in blocks for item in block.numbered]
    long = [number for block in blocks for number in block.too_long]
    wanted = [(number, piece) for number, piece in enumerate(content.split(b"\n"), start=1) if piece.strip()]
    assert got == [(number, piece) for number, piece in wanted if len(piece) <= limit]
    blank_long = {
        number for number, piece in enumerate(pieces, start=1) if len(piece) > limit and not piece.strip()
    }
    assert set(long) - blank_long == {number for number, piece in wanted if len(piece) > limit}


def test_a_folder_is_planned_by_content_and_never_left(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside.ndjson"
    (root / "ward").mkdir(parents=True)
    outside.write_bytes(lines(observation()))
    (root / "link.ndjson").symlink_to(outside)
    (root / "MimicObservationX.ndjson.gz").write_bytes(gzip.compress(lines(observation())))
    (root / "ward" / "odd-name.ndjson").write_bytes(b"\n" + lines(observation()))
    (root / "Observation.broken.ndjson").write_bytes(b"{not json\n")
    (root / "Patient.ndjson").write_bytes(lines({"resourceType": "Patient", "id": "p"}))
    source = FolderSource(root)
    parts = source.plan(["Observation", "Patient"])
    assert [(part.name, part.resource_type) for part in parts] == [
        ("MimicObservationX.ndjson.gz", "Observation"),
        ("Observation.broken.ndjson", "Observation"),
        ("ward__odd-name.ndjson", "Observation"),
        ("Patient.ndjson", "Patient"),
    ]
    assert source.materialise(parts[2], tmp_path).read_bytes()
    with pytest.raises(SourceError):
        source.materialise(Part("x", "Observation", {"file": "../outside.ndjson"}), tmp_path)
    with pytest.raises(SourceError):
        FolderSource(tmp_path / "nothing").plan(["Patient"])
