from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest
from ward_tables import ward

from validation.contracts import empty
from validation.equations import Counts
from validation.errors import GateStopped
from validation.gate import GateDecision, GateThresholds, decide
from validation.gate.checkpoint import evaluate, read_suites
from validation.gate.data_docs import rewrite_page
from validation.profiles import Profiles, profile_night

COUNTS = Counts(pulled=1200, accepted=1188, quarantined=12, eligible=26, skipped=2)
CADENCE = {"heart_rate": 12.0}


def profiles(counts: Counts = COUNTS, **tables: pl.DataFrame) -> Profiles:
    return profile_night(**{**ward(), **tables}, counts=counts, cadence=CADENCE)


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> tuple[GateDecision, Path]:
    folder = tmp_path_factory.mktemp("gate")
    return decide(profiles(), work_folder=folder, run_name="2026-01-19"), folder


def test_a_good_night_passes_and_the_decision_is_on_disk(passed) -> None:
    decision, folder = passed
    assert decision.decision == "pass"
    assert decision.reasons == ()
    assert decision.evaluated == 26
    assert decision.require_pass() is decision
    assert GateDecision.from_dict(json.loads((folder / "decision.json").read_text())) == decision


def test_the_data_docs_load_nothing_from_outside(passed) -> None:
    _, folder = passed
    pages = list((folder / "data_docs").rglob("*.html"))
    assert len(pages) >= 11
    for page in pages:
        text = page.read_text("utf-8")
        assert not re.search(r"(?:src|href|action)\s*=\s*[\"']?\s*(?:https?:)?//", text, re.IGNORECASE)
        assert not re.search(
            r"<script|<link|<iframe|@import|url\(\s*[\"']?(?:https?:)?//", text, re.IGNORECASE
        )
        for link in re.findall(r"<a\b[^>]*\bhref=\"([^\"#]+)\"", text):
            assert (page.parent / link).resolve().is_file(), link
    index = (folder / "data_docs" / "index.html").read_text("utf-8")
    assert index.count('<a href="validations/') == index.count('<a href="expectations/') == 5
    assert '<html lang="en"' in index


@pytest.mark.parametrize(
    ("counts", "tables", "words"),
    [
        (
            Counts(pulled=1000, accepted=880, quarantined=120, eligible=26),
            {},
            "share of resources in quarantine is below the site's limit",
        ),
        (
            Counts(pulled=1000, accepted=990, quarantined=5, eligible=26),
            {},
            "Every resource pulled was accepted or quarantined",
        ),
        (
            Counts(pulled=1000, accepted=1000, eligible=26, skipped=25),
            {},
            "skipped is below the site's limit",
        ),
        (
            Counts(pulled=1000, accepted=1000, eligible=0),
            {"samples": empty("samples")},
            "At least one encounter is eligible",
        ),
        (
            Counts(),
            {name: empty(name) for name in ("events", "encounters", "samples", "recordings")},
            "empty pull is a broken connection",
        ),
        (
            Counts(pulled=1000, accepted=1000, eligible=26),
            {"events": empty("events")},
            "At least one event was accepted",
        ),
    ],
)
def test_a_bad_night_is_stopped_for_its_reason(tmp_path: Path, counts, tables, words: str) -> None:
    decision = decide(profiles(counts, **tables), work_folder=tmp_path)
    assert decision.decision == "stop"
    assert any(words in reason and reason.startswith("critical") for reason in decision.reasons)
    with pytest.raises(GateStopped, match="the gate stopped the night"):
        decision.require_pass()


def test_warnings_name_the_feature_and_the_number(tmp_path: Path) -> None:
    refused = pl.concat(
        [
            empty("quarantine"),
            pl.DataFrame(
                [{"stage": "rules", "reason": "value.out_of_range", "feature": "heart_rate", "whole": True}]
                * 40
            ),
        ],
        how="diagonal_relaxed",
    )
    counts = Counts(pulled=1000, accepted=960, quarantined=40, eligible=26)
    decision = decide(profiles(counts, quarantine=refused), work_folder=tmp_path)
    assert decision.decision == "pass_with_warnings"
    assert any(
        "out_of_range_rate: heart_rate 0.122 (allowed up to 0.05)" in reason for reason in decision.reasons
    )
    assert any("quarantined_share: 0.04 (allowed up to 0.03)" in reason for reason in decision.reasons)


def test_thresholds_are_the_sites(tmp_path: Path) -> None:
    strict = GateThresholds(quarantined_share=0.005, quarantined_share_warning=0.001)
    assert decide(profiles(), thresholds=strict, work_folder=tmp_path).decision == "stop"
    with pytest.raises(ValueError, match="skipped_share"):
        GateThresholds(skipped_share=1.5)


def test_an_override_lets_the_night_pass_and_stays_on_record(tmp_path: Path) -> None:
    counts = Counts(pulled=1000, accepted=880, quarantined=120, eligible=26)
    decision = decide(
        profiles(counts), work_folder=tmp_path, override="Dr. A. Example: known export fault, ticket 17"
    )
    assert decision.decision == "pass_with_warnings"
    assert (
        decision.reasons[0]
        == "override of 1 critical finding(s) by Dr. A. Example: known export fault, ticket 17"
    )
    assert json.loads((tmp_path / "decision.json").read_text())["override"].startswith("Dr. A. Example")


def test_an_expectation_that_cannot_be_evaluated_stops_the_night(tmp_path: Path) -> None:
    """Great Expectations reports an exception as a failed expectation; a mere warning must not hide it."""
    suites, _ = read_suites()
    broken = evaluate(
        {"sources": pl.DataFrame({"source": ["Observation"]})},
        suites=suites,
        parameters={"source_quarantined_share": 0.5},
        docs_folder=tmp_path / "docs",
        run_name="x",
    )
    assert [(f.severity, f.broken) for f in broken.findings] == [("critical", True)]


def test_every_committed_expectation_has_a_severity_and_a_sentence() -> None:
    suites, digest = read_suites()
    assert set(suites) == {"night", "features", "wards", "sources", "drift"}
    assert len(digest) == 64
    parameters = set(GateThresholds.__dataclass_fields__)
    used = set()
    for suite in suites.values():
        for expectation in suite["expectations"]:
            assert expectation["severity"] in {"critical", "warning", "info"}
            assert expectation["meta"]["notes"]["content"].endswith(".")
            used |= {
                value["$PARAMETER"] for value in expectation["kwargs"].values() if isinstance(value, dict)
            }
    assert used == parameters


def test_rewriting_keeps_words_and_drops_what_is_fetched() -> None:
    page = (
        "<html><head><link rel=stylesheet href='//cdn/x.css'><style>@import url(https://cdn/y.css)</style></head>"
        "<body onload='go()'><img src=https://host/logo.png><a href=\"https://host/\">words</a>"
        "<a href='expectations/night.html'>local</a><script>alert(1)</script></body></html>"
    )
    text = rewrite_page(page)
    assert "words" in text
    assert "expectations/night.html" in text
    assert not re.search(r"cdn|host|alert\(|onload", text)
