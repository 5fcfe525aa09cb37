"""The report in headless Chromium under axe-core (Deque), by day, by night and at phone width."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from validation.report import render_page

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "validation"))
from report_facts import full_facts

AXE = "axe-core@4.14.1"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
SCRIPT = """
addEventListener('load', () => {
  document.querySelectorAll('details').forEach(part => { part.open = true });
  axe.run({runOnly: RULES}).then(found => {
    const result = document.createElement('pre');
    result.id = 'axe-result';
    result.textContent = JSON.stringify({
      passes: found.passes.length,
      wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
      violations: found.violations.map(v => [v.id, v.impact, v.nodes.map(n => n.html.slice(0, 120))])});
    document.body.append(result) }) })
"""


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return axe-core's source: the file that NIGHTINGALE_AXE names, or the one from the npm registry."""
    if named := os.environ.get("NIGHTINGALE_AXE"):
        return Path(named).read_text("utf-8")
    npm = shutil.which("npm")
    if not npm:
        pytest.skip("neither NIGHTINGALE_AXE nor npm: no axe-core to check with")
    folder = tmp_path_factory.mktemp("axe")
    packed = subprocess.run(
        [npm, "pack", AXE, "--silent"], cwd=folder, capture_output=True, timeout=60, check=False
    )
    archives = list(folder.glob("axe-core-*.tgz"))
    if packed.returncode or not archives:
        pytest.skip("the npm registry did not give axe-core")
    with tarfile.open(archives[0]) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode("utf-8")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the browser."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    return found


@pytest.mark.parametrize(("night", "width"), [(False, 1280), (True, 1280), (False, 500), (True, 500)])
def test_the_report_has_no_accessibility_violation(
    tmp_path: Path, axe: str, chromium: str, night: bool, width: int
) -> None:
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", render_page(full_facts()))
    if night:
        page = page.replace("@media (prefers-color-scheme: dark)", "@media all")
    script = SCRIPT.replace("RULES", json.dumps(RULES))
    page = page.replace("</body>", f"<script>{axe}</script><script>{script}</script></body>")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    command = [
        chromium,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--window-size={width},900",
        "--virtual-time-budget=20000",
        "--dump-dom",
        f"file://{tmp_path / 'page.html'}",
    ]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout
    match = re.search(r'<pre id="axe-result">(.*?)</pre>', shown, re.DOTALL)
    assert match, "axe-core did not finish"
    result = json.loads(html.unescape(match[1]))
    assert result["violations"] == []
    assert result["passes"] > 30
    assert result["wide"] <= 0, "the page scrolls sideways"
