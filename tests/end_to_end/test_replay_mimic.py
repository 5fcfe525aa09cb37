"""Real patients: MIMIC-IV demo on FHIR through a replay clock, scored by the shipped model."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from deploy.command_line.app import build


@pytest.mark.data
@pytest.mark.slow
def test_every_icu_stay_is_scored_or_skipped_with_a_reason(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "STORAGE__RUNS": tmp_path / "runs",
        "STORAGE__DATABASE": f"sqlite:///{tmp_path / 'nightingale.sqlite'}",
        "DESTINATION__FOLDER": tmp_path / "written",
    }.items():
        monkeypatch.setenv(f"NIGHTINGALE_{name}", str(value))
    for name in ("SOURCE__KIND", "SOURCE__FOLDER"):  # set by the command, taken back by the test
        monkeypatch.setenv(f"NIGHTINGALE_{name}", "")
    answer = CliRunner().invoke(
        build(),
        ["night", "--source", str(data_dir / "mimic-iv-demo-fhir"), "--replay", "icu+48h"],
        catch_exceptions=False,
    )
    assert answer.exit_code == 0, answer.output
    (folder,) = tmp_path.glob("runs/*/replay-icu+48h")
    encounters = pl.read_parquet(folder / "encounters.parquet")
    stays = encounters.filter(pl.col("kind") == "icu").with_columns(
        ((pl.col("end") - pl.col("start")).dt.total_seconds() / 3600).alias("hours")
    )
    scored = pl.concat([pl.read_parquet(path) for path in folder.glob("scores/*.parquet")])
    skipped = pl.concat([pl.read_parquet(path) for path in folder.glob("skipped/*.parquet")])
    assert sorted([*scored["encounter_id"], *skipped["encounter_id"]]) == sorted(stays["encounter_id"])
    assert skipped["reason"].null_count() == 0
    long_enough = set(stays.filter(pl.col("hours") >= 48)["encounter_id"])
    assert long_enough - set(scored["encounter_id"]) <= set(skipped["encounter_id"])
    assert len(long_enough & set(scored["encounter_id"])) > 40
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    assert all(item["holds"] for item in summary["equations"])
    assert (
        scored["prediction_time"] - scored.join(stays, on="encounter_id", maintain_order="left")["start"]
    ).dt.total_hours().unique().to_list() == [48]
