"""``nightingale withdraw`` takes back what a night wrote, and nothing that was not named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner
from ward_scores import DIGEST, NIGHT, resources

from deploy.command_line.withdraw import app
from deploy.errors import SettingsError
from deploy.night.writing import open_destination
from deploy.settings import load_settings
from fhir_adapter.store import Ledger
from fhir_adapter.write_back import deliver


@pytest.fixture
def drop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a site whose night was written."""
    config = tmp_path / "site.toml"
    config.write_text(
        f'[site]\nname = "ward"\n[source]\nfolder = "{tmp_path}"\n'
        f'[storage]\ndatabase = "sqlite:///{tmp_path / "site.sqlite"}"\n'
        f'[destination]\nfolder = "{tmp_path / "written"}"\n'
    )
    monkeypatch.setenv("NIGHTINGALE_CONFIG", str(config))
    settings = load_settings()
    ledger = Ledger.open(settings.storage.database)
    deliver(resources(), ledger=ledger, destination=open_destination(settings), partition=NIGHT)
    ledger.close()
    return tmp_path / "written" / "ward"


def statuses(drop: Path) -> set[str]:
    return {
        json.loads(line)["status"]
        for line in (drop / f"RiskAssessment.{NIGHT}.ndjson").read_text("utf-8").splitlines()
    }


@pytest.mark.parametrize(
    "named", [["--run", NIGHT], ["--model", DIGEST[:8]], ["--run", NIGHT, "--model", DIGEST]]
)
def test_by_run_by_model_or_both(drop: Path, named: list[str]) -> None:
    result = CliRunner().invoke(app, [*named, "--yes", "--json"])
    assert result.exit_code == 0, result.output
    counts = json.loads(result.stdout)
    assert (counts["selected"], counts["withdrawn"], counts["failed"]) == (3, 3, 0)
    assert statuses(drop) == {"entered-in-error"}


def test_it_asks_first(drop: Path) -> None:
    refused = CliRunner().invoke(app, ["--run", NIGHT], input="n\n")
    assert refused.exit_code == 1
    assert "Mark 3 score(s) entered-in-error?" in refused.output
    assert statuses(drop) == {"final"}
    agreed = CliRunner().invoke(app, ["--run", NIGHT], input="y\n")
    assert agreed.exit_code == 0
    assert statuses(drop) == {"entered-in-error"}


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ([], None),
        (["--yes"], "say what to withdraw"),
        (
            ["--run", "2026-01-18", "--yes"],
            f"no score of that run or model was written; latest runs: {NIGHT}",
        ),
        (["--model", "ffffffff", "--yes"], f"they are: {DIGEST[:12]}"),
        (["--model", DIGEST[:4], "--yes"], "names no single model"),
    ],
)
def test_what_names_nothing_changes_nothing(drop: Path, named: list[str], words: str | None) -> None:
    result = CliRunner().invoke(app, named)
    if words is None:
        assert "Usage" in result.output
    else:
        assert isinstance(result.exception, SettingsError)
        assert words in str(result.exception)
    assert statuses(drop) == {"final"}


def test_a_second_time_there_is_nothing_left(drop: Path) -> None:
    assert CliRunner().invoke(app, ["--run", NIGHT, "--yes"]).exit_code == 0
    again = CliRunner().invoke(app, ["--run", NIGHT, "--yes"])
    assert isinstance(again.exception, SettingsError)
