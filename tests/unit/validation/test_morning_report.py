from __future__ import annotations

import http.client
import json
import re
import threading
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from report_facts import COUNTS, full_facts, night_profiles
from ward_tables import event, table, ward

from validation.contracts import empty
from validation.gate import decide
from validation.reasons import Reason
from validation.report import ReportFacts, bin_scores, keep_presentable_codes, render_page, write_report
from validation.report.exchange import document_reference, measure_report
from validation.report.serving import latest_report, make_server

MARKS = ("Zaphod", "Marked-Patient", "98765.4321", "98765", "777123456")


class Reader(HTMLParser):
    """Checks tags and collects what accessibility asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attrs):
        fields = dict(attrs)
        self.tags.append((tag, fields))
        if "id" in fields:
            self.ids.append(fields["id"])
        if tag not in {"meta", "link", "br", "line", "rect", "circle", "path"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another tag"


@pytest.fixture(scope="module")
def page() -> str:
    return render_page(full_facts())


def test_page_and_json_are_written(tmp_path: Path) -> None:
    path = write_report(tmp_path, full_facts())
    assert path == tmp_path / "report" / "index.html"
    facts = json.loads((tmp_path / "report" / "report.json").read_text("utf-8"))
    assert facts["counts"]["scored"] == 24
    assert [equation["holds"] for equation in facts["equations"]] == [True] * 3
    assert facts["gate"]["decision"] == "pass_with_warnings"
    assert facts["quarantined"][0]["explanation"] == "There is no unit, and the feature needs a proven one."


def test_it_says_what_a_ward_must_know(page: str) -> None:
    for words in (
        "Gate: Pass with warnings.",
        "pulled 1200 = accepted 1188 + quarantined 12",
        "unit.missing",
        "There is no unit, and the feature needs a proven one.",
        "skip.too_young",
        "Synthetic data: no real patient stands behind it.",
        "Clinical judgement comes first",
        "http://loinc.org|1234-5",
        "cdcdcdcdcdcd",
        "north",
        "heart_rate",
        "../gate/data_docs/index.html",
    ):
        assert words in page


def test_it_loads_nothing_and_runs_nothing(page: str) -> None:
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert not re.search(r"(?:src|action)\s*=", page)
    assert not re.search(r"@import|url\(", page)
    assert all(link.startswith(("#", "../gate/")) for link in re.findall(r"href=\"([^\"]+)\"", page))


def test_it_is_well_formed_and_readable_by_machines(page: str) -> None:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    tags = [tag for tag, _ in reader.tags]
    assert tags.count("h1") == tags.count("main") == 1
    assert ("html", {"lang": "en"}) in reader.tags
    assert all("scope" in fields for tag, fields in reader.tags if tag == "th")
    assert all(
        fields.get("role") == "img" and fields.get("aria-label")
        for tag, fields in reader.tags
        if tag == "svg"
    )
    labels = {fields["aria-labelledby"] for _, fields in reader.tags if "aria-labelledby" in fields}
    assert labels <= set(reader.ids)


def _luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_have_the_contrast_of_wcag_aa_by_day_and_by_night(page: str) -> None:
    """WCAG 2.2, 1.4.3 (text, 4.5:1) and 1.4.11 (graphics, 3:1)."""
    day, night = (
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", page, re.DOTALL)[:2]
    )
    for colours in (day, night):
        pairs = [(text, paper, 4.5) for text in ("ink", "quiet") for paper in ("paper", "soft")]
        pairs += [("link", "paper", 4.5), ("fill", "paper", 3.0), ("ink", "warn-bg", 4.5)]
        pairs += [(name, f"{name}-bg", 4.5) for name in ("good", "warn", "bad")]
        for front, back, least in pairs:
            light, dark = sorted((_luminance(colours[front]), _luminance(colours[back])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= least, (front, back)


def test_a_night_that_went_nowhere_has_a_report_too(tmp_path: Path) -> None:
    full = full_facts()
    bare = ReportFacts(
        site="s",
        partition="replay-icu+48h",
        prediction_time=None,
        replay="icu+48h",
        generated_at=full.generated_at,
        counts=COUNTS,
    )
    text = write_report(tmp_path, bare).read_text("utf-8")
    for words in (
        "did not reach the gate",
        "Nothing was refused",
        "No scores were made",
        "Replay icu+48h",
        "No outcomes are known yet",
    ):
        assert words in text


def test_a_broken_equation_is_shown_as_broken() -> None:
    counts = type(COUNTS).from_dict(COUNTS.to_dict() | {"accepted": 1100})
    text = render_page(full_facts(counts=counts))
    assert "do not balance" in text
    assert "(88 lost)" in text
    assert "The accounts do not balance." in text
    assert "The accounts do not balance." not in render_page(full_facts())


def test_it_says_where_the_scores_lie_without_a_link() -> None:
    text = render_page(full_facts(places={"Scores": "/written/RiskAssessment.2026-01-19.ndjson"}))
    assert "<code>/written/RiskAssessment.2026-01-19.ndjson</code>" in text
    assert "RiskAssessment.2026-01-19.ndjson" not in "".join(re.findall(r"href=\"[^\"]*\"", text))


def test_rare_reasons_are_folded_but_there() -> None:
    reasons = [str(reason) for reason in list(Reason)[:12]]
    text = render_page(full_facts(quarantined=pl.DataFrame({"reason": reasons, "n": range(12, 0, -1)})))
    before, folded = text.split("<summary>4 rarer reasons</summary>")
    assert [reason in before for reason in reasons] == [True] * 8 + [False] * 4
    assert all(reason in folded for reason in reasons[8:])


def test_drift_is_told_in_words() -> None:
    rows = [("missing", "lactate", None, 0.31, True), ("input", "sodium", 0.45, 0.8, True)]
    drift = pl.DataFrame(
        [
            {"kind": k, "name": n, "n": 60, "psi": psi, "distance": d, "q_value": 0.001, "drifted": found}
            for k, n, psi, d, found in rows
        ]
    )
    text = render_page(full_facts(drift=drift))
    for words in ("missing rate of lactate", "+31 points", "values of sodium", "0.8"):
        assert words in text


def test_text_from_outside_is_escaped() -> None:
    nasty = "<script>alert('x')</script>"
    gate = full_facts().gate
    assert gate is not None
    decision = type(gate)(decision="stop", reasons=(nasty,), override=nasty)
    text = render_page(full_facts(site=nasty, gate=decision, data_notes=(nasty,)))
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 4


def test_no_marked_value_or_identifier_reaches_page_json_or_data_docs(tmp_path: Path) -> None:
    """Marks stand in every free field of every table that the report is made from."""
    tables = ward()
    marked = event(
        777123456,
        "heart_rate",
        98765.4321,
        text_value="Zaphod",
        source_ref="Observation/Marked-Patient-1",
        encounter_id="Marked-Patient",
    )
    events = pl.concat([tables["events"], table("events", [marked])])
    refused = table(
        "quarantine",
        [
            {
                "stage": "extract",
                "reason": "value.invalid",
                "source_file": "Zaphod.ndjson",
                "source_line": 98765,
                "source_ref": "Marked-Patient 98765.4321",
                "detail": "Zaphod 98765.4321",
                "whole": True,
            }
        ],
    )
    people = tables["encounters"].with_columns(
        pl.lit("Patient/Marked-Patient").alias("patient_ref"),
        pl.lit("Encounter/Marked-Patient").alias("encounter_ref"),
        pl.lit("Zaphod").alias("admission_source"),
    )
    unmapped = pl.DataFrame(
        {"coding": ["http://local|Zaphod Beeblebrox", "Zaphod", "http://loinc.org|1-8"], "n": [9, 5, 3]}
    )
    profiles = night_profiles(events=events, quarantine=refused, encounters=people)
    decision = decide(profiles, work_folder=tmp_path / "gate")
    page = write_report(tmp_path, full_facts(profiles=profiles, gate=decision, unmapped=unmapped))
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {page, tmp_path / "report" / "report.json", tmp_path / "gate" / "decision.json"} <= set(written)
    assert len(written) >= 14
    for path in written:
        text = path.read_text("utf-8")
        for mark in MARKS:
            assert mark not in text, path
    assert "http://loinc.org|1-8" in page.read_text("utf-8")
    assert "(all other codes)" in page.read_text("utf-8")


def test_codes_that_do_not_look_like_codes_are_counted_together() -> None:
    frame = pl.DataFrame({"coding": ["urn:x|abc", "urn:x|two words", "plain"], "n": [1, 2, 3]})
    assert keep_presentable_codes(frame).rows() == [("urn:x|abc", 1), ("(all other codes)", 5)]


def test_bins_cover_both_ends() -> None:
    bins = bin_scores(pl.DataFrame({"probability": [0.0, 0.1, 0.99, 1.0, None]}))
    assert bins["n"].to_list() == [1, 1, 0, 0, 0, 0, 0, 0, 0, 2]
    assert bin_scores(pl.DataFrame({"probability": []}, schema={"probability": pl.Float64}))["n"].sum() == 0


def test_frames_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="skipped needs the columns reason, n"):
        full_facts(skipped=empty("skipped"))


class TestServing:
    @pytest.fixture()
    def server(self, tmp_path: Path):
        write_report(tmp_path, full_facts())
        (tmp_path / "gate" / "data_docs").mkdir(parents=True)
        (tmp_path / "gate" / "data_docs" / "index.html").write_text("docs")
        (tmp_path / "gate" / "decision.json").write_text("{}")
        (tmp_path / "encounters.parquet").write_text("patients")
        (tmp_path / "report" / "link.html").symlink_to(tmp_path / "encounters.parquet")
        server = make_server(tmp_path)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
        server.server_close()

    def ask(self, server, path: str, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(*server.server_address, timeout=5)
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, body

    def test_it_binds_to_loopback_and_shows_report_and_docs(self, server) -> None:
        assert server.server_address[0] == "127.0.0.1"
        assert self.ask(server, "/")[0] == 302
        assert b"Data-quality report" in self.ask(server, "/report/index.html")[1]
        assert self.ask(server, "/gate/data_docs/index.html") == (200, b"docs")

    @pytest.mark.parametrize(
        "path",
        [
            "/encounters.parquet",
            "/report/../encounters.parquet",
            "/report/%2e%2e/encounters.parquet",
            "/report/link.html",
            "/gate/decision.json",
            "/report/",
            "/..",
        ],
    )
    def test_it_shows_nothing_else(self, server, path: str) -> None:
        assert self.ask(server, path)[0] == 404

    def test_a_foreign_host_name_is_refused(self, server) -> None:
        assert self.ask(server, "/report/index.html", Host="evil.example")[0] == 404


def test_the_latest_report_is_found(tmp_path: Path) -> None:
    assert latest_report(tmp_path) is None
    write_report(tmp_path / "a", full_facts())
    newest = write_report(tmp_path / "b", full_facts())
    assert latest_report(tmp_path) == newest


class TestExchange:
    def test_the_measure_report_balances_and_names_no_patient(self) -> None:
        body = measure_report(full_facts(), site_uri="https://hospital.example")
        counts = {
            p["code"]["coding"][0]["code"]: p["count"] for group in body["group"] for p in group["population"]
        }
        assert counts["pulled"] == counts["accepted"] + counts["quarantined"]
        assert body["type"] == "summary"
        assert "subject" not in body
        assert body == measure_report(full_facts(), site_uri="https://hospital.example")

    def test_both_bodies_are_valid_fhir(self, page: str) -> None:
        from fhir.resources.R4B.documentreference import DocumentReference
        from fhir.resources.R4B.measurereport import MeasureReport

        MeasureReport.model_validate(measure_report(full_facts(), site_uri="https://hospital.example"))
        body = document_reference(full_facts(), page, site_uri="https://hospital.example")
        parsed = DocumentReference.model_validate(body)
        assert parsed.content[0].attachment.size == len(page.encode())
