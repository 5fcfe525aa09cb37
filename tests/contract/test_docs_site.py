"""The documentation site builds strictly (all pages, all links) and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def test_the_site_builds_strictly_and_loads_nothing_from_other_hosts(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=PROJECT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 30
    loaded = re.compile(
        r'<(?:script|img|iframe)[^>]*\ssrc="https?://|<link[^>]*rel="stylesheet"[^>]*href="https?://'
    )
    assert [page.name for page in pages if loaded.search(page.read_text("utf-8"))] == []
    commands = (tmp_path / "site" / "commands.html").read_text("utf-8")
    assert "nightingale airflow backfill" in commands
    assert "deploy.settings" in (tmp_path / "site" / "api.html").read_text("utf-8")
