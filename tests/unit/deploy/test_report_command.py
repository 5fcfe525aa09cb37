"""``nightingale report`` finds the right run, prints it, and serves nothing else."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.command_line.report import app


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the site's runs: two with a report, of which the older name was written last, and one without."""
    site = tmp_path / "runs" / "ward"
    for moment, (name, written) in enumerate(
        [("2026-01-19", True), ("2026-01-18", True), ("2026-01-20", False)]
    ):
        (site / name).mkdir(parents=True)
        (site / name / "run.json").write_text("{}")
        if written:
            folder = site / name / "report"
            folder.mkdir()
            (folder / "index.html").write_text(f"<p>{name}</p>")
            (folder / "report.json").write_text(json.dumps({"partition": name}))
            os.utime(folder / "index.html", (1000 + moment, 1000 + moment))
    (tmp_path / "site.toml").write_text(
        f'[site]\nname = "ward"\n[source]\nfolder = "{tmp_path}"\n[storage]\nruns = "{tmp_path / "runs"}"\n'
    )
    monkeypatch.setenv("NIGHTINGALE_CONFIG", str(tmp_path / "site.toml"))
    return site


def test_the_latest_is_the_one_written_last(runs: Path) -> None:
    result = CliRunner().invoke(app, ["--latest"])
    assert result.exit_code == 0
    assert result.output.strip() == str(runs / "2026-01-18" / "report" / "index.html")
    assert CliRunner().invoke(app, []).output == result.output


def test_a_run_can_be_named_and_printed_as_json(runs: Path) -> None:
    result = CliRunner().invoke(app, ["--run", "2026-01-19", "--json"])
    assert json.loads(result.output) == {"partition": "2026-01-19"}


@pytest.mark.parametrize("arguments", [["--run", "2026-01-20"], ["--run", "2026-01-19", "--latest"]])
def test_what_cannot_be_shown_is_said_in_one_line(runs: Path, arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.output.startswith("error:")


def test_serving_ends_with_the_keyboard(runs: Path) -> None:
    command = [sys.executable, "-c", "from deploy.command_line.report import app; app()", "--serve"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        line = child.stderr.readline()
        match = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert match, line
        connection = http.client.HTTPConnection("127.0.0.1", int(match[1]), timeout=10)
        for path, status in (("/report/index.html", 200), ("/run.json", 404)):
            connection.request("GET", path)
            reply = connection.getresponse()
            body = reply.read()
            assert reply.status == status
            assert (b"2026-01-18" in body) is (status == 200)
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=10) == 0
