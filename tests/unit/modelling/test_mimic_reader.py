"""MIMIC-IV's official layout: values, times, knowledge, shards, resuming, and faults that are named."""

from __future__ import annotations

import gzip
import json
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mimic_ward import FILES, write_mimic

from modelling.catalogue import load_catalogue
from modelling.errors import SourceTableError
from modelling.mimic import map_mimic
from modelling.mimic.clock import ZONE, to_utc
from modelling.mimic.staging import Staging
from validation.contracts import TABLES

CATALOGUE = load_catalogue()
FIRST, LAST = datetime(2110, 1, 1), datetime(2209, 12, 31)  # noqa: DTZ001 - wall times
ELEVEN = datetime(2150, 1, 10, 16, tzinfo=UTC)  # 11:00 in Boston's winter


def mapped(root: Path, out: Path, **options: Any) -> tuple[dict[str, Any], pl.DataFrame]:
    summary = map_mimic(mimic=root, out=out, catalogue=CATALOGUE, **options)
    return summary, pl.read_parquet(out / "events" / "*.parquet").sort("subject_id", "time", "code")


def test_values_units_and_times(tmp_path: Path) -> None:
    summary, events = mapped(write_mimic(tmp_path / "mimic"), tmp_path / "out")
    first = events.filter(pl.col("time") == ELEVEN)
    values = dict(first.select("code", "numeric_value").iter_rows())
    assert values == {
        "heart_rate": 90,
        "temperature": pytest.approx(37.0),
        "capillary_refill": 0,
        "gcs_eye": 4,
        "gcs_verbal": 1,
        "gcs_motor": 6,
        "gcs_total": 11,
        "creatinine": pytest.approx(1.4),
        "troponin_t": pytest.approx(0.01),
    }
    known = dict(first.select("code", "available_time").iter_rows())
    assert known["creatinine"] == ELEVEN + timedelta(minutes=90)
    assert known["gcs_total"] == ELEVEN + timedelta(minutes=9)
    assert known["heart_rate"] == ELEVEN + timedelta(minutes=5)
    summer = events.filter((pl.col("subject_id") == 20) & (pl.col("code") == "heart_rate"))
    assert summer["time"].item() == datetime(2160, 7, 1, 16, tzinfo=UTC)
    assert events.filter(pl.col("code") == "fio2")["numeric_value"].item() == pytest.approx(0.4)
    urine = events.filter(pl.col("code") == "urine_output")
    assert urine["numeric_value"].item() == 120  # the chest drain is not urine
    glucose = events.filter(pl.col("code") == "glucose")
    assert glucose["numeric_value"].to_list() == [88]  # not the one in urine
    assert summary["counts"]["not_read"] == 3
    assert summary["reasons"] == {
        "value.type_not_supported": 1
    }  # "2 SPECIMENS RECEIVED" is no potassium of 2


def test_what_is_left_out_is_listed_by_frequency(tmp_path: Path) -> None:
    mapped(write_mimic(tmp_path / "mimic"), tmp_path / "out")
    listed = pl.read_csv(tmp_path / "out" / "unmapped.csv")
    assert listed["coding"].str.split("|").list.last().to_list() == ["227969", "226588", "51478"]
    assert listed.filter(pl.col("coding").str.ends_with("|51478")).row(0)[1:] == (1, "Glucose", "Urine")


def test_stays_outcomes_and_diagnoses(tmp_path: Path) -> None:
    mapped(write_mimic(tmp_path / "mimic"), tmp_path / "out")
    encounters = pl.read_parquet(tmp_path / "out" / "encounters.parquet")
    TABLES["encounters"].validate(encounters)
    second = encounters.filter(pl.col("encounter_id") == "32").row(0, named=True)
    assert second["kind"] == "icu"
    assert second["part_of"] == "200"
    assert second["start"] == datetime(2150, 1, 16, 15, tzinfo=UTC)
    assert [move["ward"] for move in second["moves"]] == ["Medical Intensive Care Unit (MICU)"]
    hospital = encounters.filter(pl.col("encounter_id") == "200").row(0, named=True)
    assert len(hospital["moves"]) == 4
    assert hospital["sex"] == "female"
    outcomes = pl.read_parquet(tmp_path / "out" / "outcomes.parquet")
    died = dict(outcomes.select("encounter_id", "died_in_hospital").iter_rows())
    assert died == {"200": True, "31": True, "32": True, "300": False, "33": False}
    diagnoses = pl.read_parquet(tmp_path / "out" / "diagnoses.parquet")
    assert diagnoses.filter(pl.col("position") == 1)["icd_code"].to_list() == ["A419", "41401"]
    procedures = pl.read_parquet(tmp_path / "out" / "procedures.parquet")
    assert procedures.select("encounter_id", "icd_version", "icd_code", "date").rows() == [
        ("200", 10, "5A1955Z", date(2150, 1, 10)),
        ("300", 9, "3615", date(2160, 7, 1)),
    ]


def test_shards_and_parts_on_disk_change_nothing(tmp_path: Path) -> None:
    root = write_mimic(tmp_path / "mimic")
    summary, events = mapped(root, tmp_path / "one", n_shards=1)
    parts_summary, parts_events = mapped(root, tmp_path / "many", n_shards=3, rows_in_memory=2)
    assert parts_events.equals(events)
    assert parts_summary["counts"] == summary["counts"]
    assert len(list((tmp_path / "many" / "events").glob("*.parquet"))) == 3
    assert not (tmp_path / "many" / "staging" / "chartevents").exists()


def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_mimic(tmp_path / "mimic")
    expected, events = mapped(root, tmp_path / "whole", n_shards=3, rows_in_memory=2)
    out = tmp_path / "out"

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "map" and done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mapped(root, out, n_shards=3, rows_in_memory=2, progress=stop)
    assert json.loads((out / "staging" / "chartevents" / "done.json").read_text("utf-8"))["rows"] == 9
    read: list[str] = []
    again, resumed = mapped(
        root, out, n_shards=3, rows_in_memory=2, progress=lambda stage, done, total: read.append(stage)
    )
    assert again == expected
    assert resumed.equals(events)
    assert "read chartevents" not in read  # its parts were complete


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"icu__chartevents": None}, "icu/chartevents.csv.gz is missing in"),
        ({"hosp__patients": None}, "hosp/patients.csv.gz is missing in"),
        ({"hosp__procedures_icd": None}, "hosp/procedures_icd.csv.gz is missing in"),
        (
            {"icu__chartevents": FILES["icu/chartevents"].replace(",itemid,", ",item,")},
            "chartevents.csv.gz: column itemid is missing",
        ),
        (
            {"hosp__labevents": FILES["hosp/labevents"].replace(",50912,", ",abc,")},
            "labevents.csv.gz: column itemid holds something that is not of its type",
        ),
        ({"icu__outputevents": ""}, "outputevents.csv.gz cannot be read"),
        (
            {"hosp__d_labitems": FILES["hosp/d_labitems"].replace("51003,Troponin T", "51003,Ferritin")},
            "d_labitems: item 51003 means something else here",
        ),
        (
            {
                "hosp__d_labitems": FILES["hosp/d_labitems"].replace(
                    "50931,Glucose,Blood", "50931,Glucose,Ascites"
                )
            },
            "d_labitems: item 50931 means something else here",
        ),
    ],
)
def test_faults_name_file_column_and_remedy(
    tmp_path: Path, changed: dict[str, str | None], message: str
) -> None:
    with pytest.raises(SourceTableError, match=re.escape(message)) as caught:
        mapped(write_mimic(tmp_path / "mimic", **changed), tmp_path / "out")
    assert "abc" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    root = write_mimic(tmp_path / "mimic")
    path = root / "icu" / "chartevents.csv.gz"
    lines = FILES["icu/chartevents"] + "".join(
        f"10,200,31,1,2150-01-10 11:{n % 60:02d}:00,,220045,{n * 7919 % 251},{n * 7919 % 251},bpm,0\n"
        for n in range(30_000)
    )
    whole = gzip.compress(lines.encode(), mtime=0)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceTableError, match=r"chartevents\.csv\.gz cannot be read"):
        mapped(root, tmp_path / "out")


def test_a_folder_of_another_source_is_refused(tmp_path: Path) -> None:
    mapped(write_mimic(tmp_path / "mimic"), tmp_path / "out")
    other = write_mimic(tmp_path / "other", icu__chartevents=FILES["icu/chartevents"] * 2)
    with pytest.raises(SourceTableError, match="give an empty folder"):
        mapped(other, tmp_path / "out")


def test_staging_of_an_empty_table(tmp_path: Path) -> None:
    staging = Staging(tmp_path, n_shards=2)
    assert staging.read(0).is_empty()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.datetimes(FIRST, LAST), min_size=1, max_size=50))
def test_wall_times_follow_the_zone_s_rule_for_ever(moments: list[datetime]) -> None:
    converted = pl.DataFrame({"t": moments}, schema={"t": pl.Datetime("us")}).select(to_utc(pl.col("t")))["t"]
    for moment, utc in zip(moments, converted, strict=True):
        readings = {moment.replace(tzinfo=ZoneInfo(ZONE), fold=fold).astimezone(UTC) for fold in (0, 1)}
        assert utc in readings


def test_the_hour_that_comes_twice_is_standard_time() -> None:
    twice = datetime(2180, 11, 5, 1, 30)  # noqa: DTZ001 - a wall time
    assert pl.select(to_utc(pl.lit(twice))).item() == datetime(2180, 11, 5, 6, 30, tzinfo=UTC)
