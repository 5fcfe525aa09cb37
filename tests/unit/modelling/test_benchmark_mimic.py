"""The papers' tables: every row's settings build, and a table goes on where it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from mapped_folder import write_mapped

from modelling.benchmarks.mimic import TABLES, PaperTable, markdown, run_table, settings_of
from modelling.catalogue import load_catalogue
from modelling.cohorts.tasks import get_task
from modelling.errors import BenchmarkError
from modelling.evaluation.mapped import read_mapped
from modelling.models import model_config


@pytest.mark.parametrize("smoke", [False, True])
def test_every_row_of_every_table_has_settings_that_exist(smoke: bool) -> None:
    for table in TABLES.values():
        assert get_task(table.task)
        for model, changes in table.rows.values():
            config = settings_of(model, changes, smoke=smoke)
            assert model_config(model, config.model)
            assert config.epochs == 1 if smoke else config.epochs >= 20
    fusions = [
        changes.get("model", {}).get("fusion")
        for _, changes in TABLES["medfuse-mortality-paired"].rows.values()
    ]
    assert {"early", "joint", "unified", "mmtm", "daft"} <= set(fusions)


def test_a_table_runs_and_goes_on_where_it_was(tmp_path: Path) -> None:
    write_mapped(tmp_path / "data", n=100)
    folder = read_mapped(tmp_path / "data")
    table = PaperTable(task="in-hospital-mortality", rows={"MuFuse": ("mufuse", {})})
    said: list[str] = []
    given = {"out": tmp_path / "out", "seeds": 2, "smoke": True, "say": said.append}
    found = run_table(table, folder, load_catalogue(), **given)
    assert len(said) == 2 and len(found["MuFuse"]) == 2
    assert run_table(table, folder, load_catalogue(), **given) == found and len(said) == 2
    assert markdown(found).splitlines()[0] == "| model | samples | auroc | average_precision |"
    paired = PaperTable(task=table.task, rows=table.rows, paired=True, needs="--cxr")
    with pytest.raises(BenchmarkError, match="no sample has an image; map with --cxr"):
        run_table(paired, folder, load_catalogue(), **given)


def test_missing_figures_are_dashes_and_seeds_have_a_spread() -> None:
    runs = {"a": [{"samples": 9, "mae": 1.0}, {"samples": 9, "mae": 2.0}], "b": [{"samples": 9, "mae": None}]}
    assert markdown(runs).splitlines()[2:] == ["| a | 9 | 1.500 ± 0.707 |", "| b | 9 | – |"]
