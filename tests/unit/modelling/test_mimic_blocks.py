"""Blocks of large tables: no line is cut or lost, in whatever pieces the file comes, and damage names the file."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from modelling.errors import SourceTableError
from modelling.mimic import blocks
from modelling.mimic.blocks import look_through

SCHEMA = {"itemid": pl.Int32, "value": pl.String}
texts = st.one_of(st.none(), st.text(st.sampled_from('ab ",\n'), min_size=1, max_size=12))


def read(path: Path) -> pl.DataFrame:
    """Return the table as the mapper sees it: ``line`` counted through all blocks."""
    found = [
        frame.with_columns(pl.col("line") + before)
        for before, _, frame in look_through(path, SCHEMA, lambda block: block)
    ]
    columns = {"line": pl.get_index_type(), **SCHEMA}
    return pl.concat(found) if found else pl.DataFrame(schema=columns)


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(texts, max_size=40), piece=st.sampled_from([1, 7, 64, 1 << 20]), pieces=st.integers(1, 3)
)
def test_a_table_in_blocks_is_the_table(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    values: list[str | None],
    piece: int,
    pieces: int,
) -> None:
    monkeypatch.setattr(blocks, "PIECE_BYTES", piece)
    monkeypatch.setattr(blocks, "PIECES", pieces)
    monkeypatch.setattr(blocks, "ROWS_A_BLOCK", 3)
    table = pl.DataFrame(
        {"extra": 7.5, "itemid": range(len(values)), "value": values},
        schema={"extra": pl.Float64, **SCHEMA},
    )
    path = tmp_path / name
    if path.suffix == ".parquet":
        table.write_parquet(path)
    else:
        text = table.write_csv().encode()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    assert_frame_equal(read(path), table.drop("extra").with_row_index("line"))


def test_members_of_a_gzip_file_are_read_one_after_another(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"itemid,value\n1,a\n") + gzip.compress(b"2,b\n"))
    assert read(path)["itemid"].to_list() == [1, 2]


@pytest.mark.parametrize("damage", ["cut", "flipped", "checksum"])
def test_damage_of_a_compressed_file_names_the_file(tmp_path: Path, damage: str) -> None:
    data = bytearray(
        gzip.compress(b"itemid,value\n" + b"".join(b"%d,x%d\n" % (n, n * n) for n in range(50_000)))
    )
    if damage == "cut":
        del data[len(data) // 2 :]
    else:
        data[-6 if damage == "checksum" else len(data) // 2] ^= 0xFF
    path = tmp_path / "chartevents.csv.gz"
    path.write_bytes(data)
    with pytest.raises(SourceTableError, match=r"chartevents\.csv\.gz"):
        read(path)


def test_a_value_of_another_type_names_the_column_and_shows_no_value(tmp_path: Path) -> None:
    path = tmp_path / "chartevents.csv"
    path.write_text("itemid,value\n1,a\nSmith,b\n", "utf-8")
    with pytest.raises(SourceTableError, match=r"chartevents\.csv: column itemid") as caught:
        read(path)
    assert "Smith" not in str(caught.value)


def test_a_quotation_mark_too_many_ends_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "PIECE_BYTES", 100)
    monkeypatch.setattr(blocks, "LONGEST_LINE", 1000)
    path = tmp_path / "chartevents.csv"
    path.write_text("itemid,value\n" + '1,"a\n' + "2,b\n" * 1000, "utf-8")
    with pytest.raises(SourceTableError, match=r"chartevents.csv cannot be read"):
        read(path)
