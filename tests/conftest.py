"""Fixtures shared by every kind of test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
# Rich reads these once, when a module makes its console: the width of who started the tests is not part of them.
for size in ("COLUMNS", "LINES"):
    os.environ.pop(size, None)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real open data; the test skips where the site has none."""
    folder = Path(os.environ.get("NIGHTINGALE_DATA", PROJECT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no open data at {folder}; set NIGHTINGALE_DATA to run this test")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make fast` runs: unit and contract tests that are not slow."""
    for item in items:
        kind = item.path.relative_to(PROJECT / "tests").parts[0]
        if kind in {"unit", "contract"} and item.get_closest_marker("slow") is None:
            item.add_marker(pytest.mark.fast)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how long each kind of test took, so that the slow kind is known."""
    seconds: dict[str, float] = {}
    tests: dict[str, set[str]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport) and report.nodeid.startswith("tests/"):
                kind = report.nodeid.split("/")[1]
                seconds[kind] = seconds.get(kind, 0.0) + report.duration
                tests.setdefault(kind, set()).add(report.nodeid)
    told = [f"{kind} {len(tests[kind])} in {seconds[kind]:.0f} s" for kind in sorted(seconds)]
    if told:
        terminalreporter.write_line("tests by kind: " + ", ".join(told))
