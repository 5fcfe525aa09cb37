"""The commands of catalogue, mapping and cohorts: what they print, write, and say when a table is at fault."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import typer
from mimic_archives import write_cxr_archive, write_ecg_archive
from mimic_ward import FILES, write_mimic
from typer.testing import CliRunner

from deploy.command_line import cohort, mapping
from validation.contracts.store import check_table

RUN = CliRunner()


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    both = typer.Typer()
    both.add_typer(mapping.app)
    both.add_typer(cohort.app)
    return both


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory, app: typer.Typer) -> Path:
    root = tmp_path_factory.mktemp("ward")
    write_mimic(root / "mimic")
    write_ecg_archive(root / "ecg")
    write_cxr_archive(root / "cxr")
    arguments = ["--mimic", "mimic", "--ecg", "ecg", "--cxr", "cxr", "--out", "out", "--meds", "meds"]
    shown = [word if word.startswith("--") else str(root / word) for word in arguments]
    result = RUN.invoke(app, ["map-mimic", *shown], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "ecg.signal_truncated" in result.output
    assert "Bed Locked in Low Position" not in result.output  # the ward's dictionary does not name it
    assert "chartevents-d-items|227969" in result.output
    return root


def test_everything_is_written(ward: Path) -> None:
    out = ward / "out"
    for name in ("encounters", "outcomes", "diagnoses", "procedures", "findings", "image_labels"):
        assert (out / f"{name}.parquet").is_file(), name
    for name in ("events", "recordings", "images"):
        check_table(pl.read_parquet(out / name / "*.parquet"), name)
    assert (ward / "meds" / "metadata" / "subject_splits.parquet").is_file()


def test_a_cohort_is_shown_and_written(ward: Path, app: typer.Typer) -> None:
    out = ward / "cohort"
    arguments = ["--task", "phenotyping", "--data", str(ward / "out"), "--out", str(out)]
    result = RUN.invoke(app, ["cohort", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    assert "no transfer between ICUs" in result.output
    assert "patients: " in result.output
    samples = check_table(pl.read_parquet(out / "phenotyping" / "samples.parquet"), "samples")
    assert samples["encounter_id"].to_list() == ["33"]
    assert pl.read_parquet(out / "phenotyping" / "labels.parquet").height == 1
    splits = pl.read_parquet(out / "phenotyping" / "splits.parquet")
    assert splits["subject_id"].to_list() == [20]


def test_all_tasks_say_which_cannot_be_asked_here(ward: Path, app: typer.Typer) -> None:
    result = RUN.invoke(app, ["cohort", "--task", "all", "--data", str(ward / "out"), "--landmark"])
    assert result.exit_code == 0
    assert "sepsis: not possible here: task 'sepsis' needs the table of suspected infections" in result.output
    assert "nights at 06:00" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cohort", "--task", "fortune", "--data", "{root}/out"], "no task 'fortune'; there are"),
        (["cohort", "--task", "sepsis", "--data", "{root}/none"], "holds no mapped tables"),
        (
            ["map-mimic", "--mimic", "{root}/none", "--out", "{root}/x"],
            "hosp/d_labitems.csv.gz is missing in",
        ),
    ],
)
def test_faults_end_with_their_message_and_code_2(
    ward: Path, app: typer.Typer, arguments: list[str], message: str
) -> None:
    result = RUN.invoke(app, [word.format(root=ward) for word in arguments])
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


def test_a_column_at_fault_is_named_by_the_command(tmp_path: Path, app: typer.Typer) -> None:
    broken = FILES["icu/chartevents"].replace(",220045,90,90,", ",220045,90,ninety,")
    root = write_mimic(tmp_path / "mimic", icu__chartevents=broken)
    result = RUN.invoke(app, ["map-mimic", "--mimic", str(root), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "chartevents.csv.gz: column valuenum holds something that is not of its type" in result.output
    assert "ninety" not in result.output


def test_the_catalogue_is_printed_with_its_codes(app: typer.Typer, tmp_path: Path) -> None:
    printed = RUN.invoke(app, ["catalogue"])
    assert printed.exit_code == 0
    assert "features, catalogue" in printed.output
    listed = tmp_path / "codes.csv"
    assert RUN.invoke(app, ["catalogue", "--codes", "--csv", str(listed)]).exit_code == 0
    codes = pl.read_csv(listed, infer_schema_length=None)
    assert codes.filter(pl.col("code") == "50813")["expected"].to_list() == ["Lactate"]
