from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner
from ward_tables import table

from deploy.command_line.quarantine import app
from validation.contracts import empty
from validation.errors import ValidationError
from validation.quarantine import choose_refusals, collect_lines, list_refusals, read_quarantine


def lines_of(path: Path, wanted: set[int]) -> dict[int, bytes]:
    return {n: line for n, line in enumerate(path.read_bytes().splitlines(), start=1) if n in wanted}


@pytest.fixture()
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "2026-01-19"
    extract, later = folder / "extract" / "part", folder / "quarantine"
    extract.mkdir(parents=True)
    later.mkdir()
    (folder / "run.json").write_text("{}")
    table(
        "quarantine",
        [
            {
                "stage": "extract",
                "reason": "json.unreadable",
                "source_file": "a.ndjson",
                "source_line": 2,
                "whole": True,
            },
            {
                "stage": "extract",
                "reason": "json.unreadable",
                "source_file": "gone.ndjson",
                "source_line": 1,
                "whole": True,
            },
        ],
    ).write_parquet(extract / "quarantine.parquet")
    known = table(
        "observations",
        [{"subject_id": 1, "source_ref": "Observation/3", "source_file": "a.ndjson", "source_line": 3}],
    )
    known.write_parquet(extract / "observations-0000.parquet")
    table(
        "quarantine",
        [
            {
                "stage": "map",
                "reason": "unit.missing",
                "source_ref": "Observation/3",
                "feature": "weight",
                "whole": True,
            },
            {
                "stage": "map",
                "reason": "unit.missing",
                "source_ref": "Observation/unknown",
                "feature": "weight",
                "whole": False,
            },
        ],
    ).write_parquet(later / "map-0000.parquet")
    return folder


def test_every_stage_is_read_and_resources_find_their_lines(run: Path) -> None:
    frame = read_quarantine(run)
    assert frame.schema == empty("quarantine").schema
    assert sorted(frame["source_line"].drop_nulls()) == [1, 2, 3]
    listed = list_refusals(frame)
    assert listed.select("stage", "reason", "feature", "rows", "resources").rows() == [
        ("extract", "json.unreadable", None, 2, 2),
        ("map", "unit.missing", "weight", 2, 1),
    ]
    assert listed["explanation"][1] == "There is no unit, and the feature needs a proven one."


def test_filters_and_a_code_that_does_not_exist(run: Path) -> None:
    frame = read_quarantine(run)
    assert choose_refusals(frame, reason="unit.missing", source_ref="Observation/3").height == 1
    with pytest.raises(ValidationError, match="is no reason code"):
        choose_refusals(frame, reason="unit.misssing")


def test_lines_are_collected_and_losses_counted(run: Path, tmp_path: Path) -> None:
    source = tmp_path / "a.ndjson"
    source.write_text('{"n": 1}\n{"n": 2}\n{"n": 3}\n')
    replay = collect_lines(
        read_quarantine(run),
        locate=lambda name: source if name == "a.ndjson" else None,
        target=tmp_path / "replay",
        read_lines=lines_of,
    )
    assert (replay.lines, replay.lost) == (2, 2)
    assert replay.files["a.ndjson"].read_text() == '{"n": 2}\n{"n": 3}\n'


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="no run folder"):
        read_quarantine(tmp_path / "nothing")


class TestCommands:
    def test_list_and_show(self, run: Path) -> None:
        listed = CliRunner().invoke(app, ["list", "--run", str(run)], env={"COLUMNS": "200"})
        assert listed.exit_code == 0, listed.output
        assert "json.unreadable" in listed.output
        shown = CliRunner().invoke(app, ["show", "unit.missing", "--run", str(run)], env={"COLUMNS": "200"})
        assert shown.exit_code == 0
        assert "2 refused row(s) in 2026-01-19" in shown.output
        assert "Observation/3" in shown.output
        assert "json.unreadable" not in shown.output

    def test_a_wrong_reason_is_an_error_of_the_user(self, run: Path) -> None:
        result = CliRunner().invoke(app, ["show", "nonsense", "--run", str(run)])
        assert result.exit_code == 2
