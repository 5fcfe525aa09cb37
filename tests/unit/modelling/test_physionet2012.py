"""PhysioNet 2012: both layouts give the same tables, values keep their meaning, and faults are named."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from modelling.catalogue import load_catalogue
from modelling.errors import SourceTableError
from modelling.physionet2012 import map_physionet2012, read_outcomes, read_records
from modelling.physionet2012.reader import START
from validation.contracts import TABLES

RECORD = """Time,Parameter,Value
00:00,RecordID,{number}
00:00,Age,54
00:00,Gender,1
00:00,Height,-1
00:00,ICUType,4
00:00,Weight,81.5
00:07,GCS,15
00:07,HR,73
00:07,NISysABP,147
00:07,SysABP,120
00:07,FiO2,0.5
07:37,Temp,35.6
07:37,Urine,60
47:10,MechVent,1
47:10,Mg,1.9
"""
OUTCOMES = """RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death
{number},6,1,5,-1,0
"""


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "set-a"
    folder.mkdir()
    for number in (132539, 132540):
        (folder / f"{number}.txt").write_text(RECORD.format(number=number), "utf-8")
    (tmp_path / "Outcomes-a.txt").write_text(OUTCOMES.format(number=132539) + "132540,1,1,1,1,1\n", "utf-8")
    return folder


def as_parquet(folder: Path) -> Path:
    path = folder.parent / "set-a.parquet"
    records = read_records(folder).filter(pl.col("feature") != "RecordID").drop("line")
    records.with_columns(
        pl.col("patient").cast(pl.Int32), pl.col("value").cast(pl.Float32), pl.col("time_min").cast(pl.Int16)
    ).write_parquet(path)
    return path


def test_texts_and_parquet_give_the_same_events(texts: Path, tmp_path: Path) -> None:
    summaries, events = [], []
    for name, records in (("text", texts), ("parquet", as_parquet(texts))):
        out = tmp_path / name
        summaries.append(
            map_physionet2012(
                records=records,
                outcomes_file=tmp_path / "Outcomes-a.txt",
                out=out,
                catalogue=load_catalogue(),
                n_shards=2,
            )
        )
        frame = pl.read_parquet(out / "events" / "*.parquet")
        events.append(frame.drop("source_ref").sort("subject_id", "time", "code"))
        for table in ("encounters", "outcomes", "samples"):
            assert TABLES[table].is_valid(pl.read_parquet(out / f"{table}.parquet"))
    assert events[0].equals(events[1])
    assert summaries[0]["counts"]["events_kept"] == summaries[1]["counts"]["events_kept"] == 20
    assert summaries[0]["samples"] == 2
    assert summaries[0]["deaths"] == 1


def test_values_keep_their_meaning(texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    map_physionet2012(
        records=texts,
        outcomes_file=tmp_path / "Outcomes-a.txt",
        out=out,
        catalogue=load_catalogue(),
        n_shards=1,
    )
    events = pl.read_parquet(out / "events" / "0000.parquet").filter(pl.col("subject_id") == 132539)
    values = dict(events.select("code", "numeric_value").iter_rows())
    assert values["systolic_bp"] == 147
    assert values["systolic_bp_invasive"] == 120
    assert values["fio2"] == 0.5
    assert values["gcs_total"] == 15
    assert values["mechanical_ventilation"] == 1
    assert "height" not in values  # -1 is unknown
    quarantine = pl.read_parquet(out / "quarantine" / "0000.parquet")
    assert quarantine.select("reason", "feature").unique().rows() == [("value.missing", "height")]
    assert (events["available_time"] == events["time"]).all()
    times = dict(events.select("code", "time").iter_rows())
    assert times["urine_output"] - START == timedelta(hours=7, minutes=37)
    encounter = pl.read_parquet(out / "encounters.parquet").row(0, named=True)
    assert (encounter["ward"], encounter["sex"], encounter["end"]) == ("Surgical ICU", "male", None)
    assert 54 <= (START.date() - encounter["birth_date"]).days / 365.2425 < 54.01
    outcomes = pl.read_parquet(out / "outcomes.parquet").sort("subject_id")
    assert outcomes["died_in_hospital"].to_list() == [False, True]
    assert outcomes["death_time"].to_list()[0] is None
    assert outcomes["death_time"].to_list()[1] > START + timedelta(hours=48)


def test_a_finished_folder_is_not_mapped_again_and_another_source_is_refused(
    texts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = {"outcomes_file": tmp_path / "Outcomes-a.txt", "out": out, "catalogue": load_catalogue()}
    first = map_physionet2012(records=texts, **arguments)
    written = (out / "events" / "0000.parquet").stat().st_mtime_ns
    seen: list[tuple[str, int, int]] = []
    again = map_physionet2012(records=texts, progress=lambda *step: seen.append(step), **arguments)
    assert again == first
    assert seen == [("map", 0, 0)]
    assert (out / "events" / "0000.parquet").stat().st_mtime_ns == written
    with pytest.raises(SourceTableError, match="give an empty folder"):
        map_physionet2012(records=as_parquet(texts), **arguments)
    assert json.loads((out / "summary.json").read_text("utf-8"))["counts"]["rows"] == 30


def test_a_lost_shard_is_written_again(texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = {"outcomes_file": tmp_path / "Outcomes-a.txt", "out": out, "catalogue": load_catalogue()}
    first = map_physionet2012(records=texts, n_shards=2, **arguments)
    (out / "shards" / "0001.json").unlink()
    seen: list[tuple[str, int, int]] = []
    again = map_physionet2012(
        records=texts, n_shards=2, progress=lambda *step: seen.append(step), **arguments
    )
    assert again == first
    assert seen == [("map", 0, 1), ("map", 1, 1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Time,Parameter\n00:00,HR\n", "1.txt: column Value is missing; expected Time, Parameter, Value"),
        ("Time,Parameter,Value\nnoon,HR,7\n", "1.txt: column Time is not of the form HH:MM"),
    ],
)
def test_faulty_records_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "1.txt").write_text(content, "utf-8")
    with pytest.raises(SourceTableError, match=re.escape(message)):
        read_records(tmp_path)


def test_faulty_files_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "set-a.parquet"
    broken.write_bytes(b"PAR1 but no more")
    with pytest.raises(SourceTableError, match=r"set-a.parquet: cannot be read as Parquet"):
        read_records(broken)
    with pytest.raises(SourceTableError, match="no such file"):
        read_outcomes(tmp_path / "Outcomes-a.txt")
    with pytest.raises(SourceTableError, match="no records"):
        read_records(tmp_path / "nowhere")


@pytest.mark.data
def test_the_open_set_maps_without_loss(data_dir: Path, tmp_path: Path) -> None:
    folder = data_dir / "physionet2012"
    some = pl.scan_parquet(folder / "set-a.parquet").filter(pl.col("patient") < 133000).collect()
    some.write_parquet(tmp_path / "part.parquet")
    summary = map_physionet2012(
        records=tmp_path / "part.parquet",
        outcomes_file=folder / "outcomes-a.parquet",
        out=tmp_path / "out",
        catalogue=load_catalogue(),
    )
    counts = summary["counts"]
    assert counts["rows"] == some.height == counts["observations"] + counts["descriptors"]
    assert counts["observations"] == counts["events"] + counts["merged"] + counts["quarantined"]
    assert counts["unmapped"] == 0
    assert counts["events_kept"] > 0.99 * counts["observations"]
    assert summary["samples"] == some["patient"].n_unique()
