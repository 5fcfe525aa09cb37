"""The morning report as resources in the drop folder, only where the site asks for it."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploy.night.report_delivery import deliver_report
from deploy.settings import Settings
from validation.equations import Counts
from validation.report import ReportFacts, render_page

FACTS = ReportFacts(
    site="ward",
    partition="replay-icu+48h",
    prediction_time=None,
    replay="icu+48h",
    generated_at=datetime(2026, 1, 15, 5, 30, tzinfo=UTC),
    counts=Counts(pulled=5, accepted=4, quarantined=1),
)


@pytest.mark.parametrize(
    ("wanted", "kinds"),
    [
        ("none", []),
        ("counts", ["MeasureReport"]),
        ("counts-and-page", ["DocumentReference", "MeasureReport"]),
    ],
)
def test_what_the_site_asks_for_is_written_and_replaced(
    tmp_path: Path, wanted: str, kinds: list[str]
) -> None:
    settings = Settings(
        site={"name": "ward"},
        source={"kind": "folder", "folder": tmp_path},
        destination={"folder": tmp_path / "written", "report": wanted},
    )
    page = render_page(FACTS)
    for _ in range(2):
        assert sorted(deliver_report(settings, FACTS, page)) == kinds
    files = sorted((tmp_path / "written").rglob("*.ndjson"))
    written = [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
    assert sorted(item["resourceType"] for item in written) == kinds
    for item in written:
        if item["resourceType"] == "MeasureReport":
            numbers = {
                entry["code"]["coding"][0]["code"]: entry["count"] for entry in item["group"][0]["population"]
            }
            assert numbers == {"pulled": 5, "accepted": 4, "quarantined": 1}
        else:
            assert base64.b64decode(item["content"][0]["attachment"]["data"]).decode() == page
