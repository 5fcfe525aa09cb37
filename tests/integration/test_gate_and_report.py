"""A small night of the demo hospital through the gate and onto the morning table."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from deploy.demo_hospital import build_hospital
from deploy.night.accounts import count
from deploy.night.gatekeeping import decide_gate
from deploy.night.intake import extract, take_census
from deploy.night.judging import map_shard, validate
from deploy.night.remembered import remember_pulls, trends_until
from deploy.night.reporting import write_morning_report
from deploy.night.run import Run, open_run, plan_run
from deploy.night.scoring import score_shard
from deploy.settings import Settings
from modelling.errors import CatalogueError
from validation.errors import GateStopped

NIGHT = "2026-01-15"


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Run]:
    folder = tmp_path_factory.mktemp("night")
    build_hospital(folder / "hospital", patients=16, night=date.fromisoformat(NIGHT), history=False)
    settings = Settings(
        site={"data_note": "synthetic data"},
        source={"kind": "folder", "folder": folder / "hospital" / "fhir"},
        waveforms={"folder": folder / "hospital" / "wfdb"},
        images={"kind": "folder", "folder": folder / "hospital" / "dicom"},
        storage={"runs": folder / "runs", "database": f"sqlite:///{folder}/night.sqlite"},
        night={"shards": 2},
        gate={"quarantined_share": 0.2},
    )
    run = open_run(plan_run(settings, night=NIGHT, replay=None))
    for part in take_census(settings, run):
        extract(settings, run, part)
    for shard in range(2):
        validate(settings, run, shard)
        map_shard(settings, run, shard)
    return settings, run


def own_copy(mapped: tuple[Settings, Run], folder: Path) -> tuple[Callable[..., Settings], Run]:
    """Return the mapped night in a folder of its own, and settings with other limits for it."""
    settings, run = mapped
    target = folder / "runs" / settings.site.name / NIGHT
    shutil.copytree(run.path, target)
    storage = settings.storage.model_copy(
        update={"runs": folder / "runs", "database": f"sqlite:///{folder}/night.sqlite"}
    )

    def change(**gate: float | str) -> Settings:
        limits = settings.gate.model_copy(update=gate)
        return settings.model_copy(update={"storage": storage, "gate": limits})

    return change, Run.from_dict({**run.to_dict(), "folder": str(target)})


@pytest.fixture
def night(mapped: tuple[Settings, Run], tmp_path: Path) -> tuple[Callable[..., Settings], Run]:
    return own_copy(mapped, tmp_path)


@pytest.fixture(scope="module")
def reported(
    mapped: tuple[Settings, Run], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Settings, Run, dict[str, Any]]:
    """Return a night that went through gate, scoring and report, and what the gate returned."""
    change, run = own_copy(mapped, tmp_path_factory.mktemp("reported"))
    settings = change()
    fields = decide_gate(settings, run)
    for shard in range(2):
        score_shard(settings, run, shard)
    write_morning_report(settings, run)
    return settings, run, fields


def decision(run: Run) -> dict:
    return json.loads((run.path / "gate" / "decision.json").read_text("utf-8"))


def test_a_passed_night_is_profiled_scored_and_reported(reported) -> None:
    settings, run, fields = reported
    assert fields["decision"] in {"pass", "pass_with_warnings"}
    assert (run.path / "gate" / "data_docs" / "index.html").is_file()
    page = (run.path / "report" / "index.html").read_text("utf-8")
    report = json.loads((run.path / "report" / "report.json").read_text("utf-8"))
    counts = count(run)
    assert report["counts"] == counts.to_dict()
    assert counts.pulled == counts.accepted + counts.quarantined
    hospital = settings.source.folder
    assert hospital is not None
    planted = Counter(
        item["reason"] for item in json.loads((hospital.parent / "faults.json").read_text("utf-8"))
    )
    refused = {row["reason"]: row["n"] for row in report["quarantined"]}
    assert counts.quarantined == planted.total() > 5
    assert refused.keys() == planted.keys()
    assert all(refused[reason] >= n for reason, n in planted.items())
    assert counts.eligible == counts.scored + counts.skipped
    assert counts.scored == sum(item["n"] for item in report["score_bins"]) > 0
    assert report["gate"]["decision"] == fields["decision"]
    assert report["made_by"]["model_digest"]
    assert {row["metric"] for row in report["trends"]} >= {"pulled", "scored", "mean_probability"}
    assert "synthetic data" in page
    assert str(counts.pulled) in page.replace("\u202f", "")


def test_no_identifier_or_probability_of_a_row_reaches_the_report(reported) -> None:
    _, run, _ = reported
    pages = [path for name in ("report", "gate") for path in (run.path / name).rglob("*") if path.is_file()]
    written = "\n".join(path.read_text("utf-8") for path in pages)
    scores = run.load_all("scores", "scores/*")
    encounters = run.load("encounters")
    secret = {
        *scores["score_key"],
        *encounters["encounter_id"],
        *encounters["patient_ref"],
        *(str(number) for number in encounters["subject_id"]),
        *(f"{number:.6f}" for number in scores["probability"]),
    }
    assert len(secret) > 40
    assert [word for word in secret if word in written] == []


def test_patients_are_listed_apart_and_only_where_the_site_asks(reported) -> None:
    settings, run, _ = reported
    scores, skipped = run.load_all("scores", "scores/*"), run.load_all("skipped", "skipped/*")
    asked = settings.model_copy(
        update={"site": settings.site.model_copy(update={"patients_in_report": True})}
    )
    index = write_morning_report(asked, run)
    page = index.with_name("patients.html")
    text = page.read_text("utf-8")
    names = [*scores["encounter_id"], *skipped["encounter_id"]]
    assert names and all(sum(name in line for line in text.splitlines()) == 1 for name in names)
    assert "<script" not in text and "http:" not in text and "https:" not in text
    assert page.stat().st_mode & 0o077 == 0
    others = [path for path in index.parent.iterdir() if path != page]
    assert not any(name in path.read_text("utf-8") for path in others for name in names)
    write_morning_report(settings, run)  # turned off again
    assert not page.exists()


def test_a_stopped_night_says_why_and_gives_every_sample_its_reason(night) -> None:
    change, run = night
    settings = change(quarantined_share=0.001)
    with pytest.raises(GateStopped, match="quarantine"):
        decide_gate(settings, run)
    assert decision(run)["decision"] == "stop"
    counts = count(run)
    assert (counts.scored, counts.skipped) == (0, counts.eligible)
    page = write_morning_report(settings, run).read_text("utf-8")
    assert "Stopped" in page
    assert "skip.gate_stopped" in page


def test_a_named_override_lets_the_same_night_pass_and_is_on_record(night) -> None:
    change, run = night
    settings = change(quarantined_share=0.001, override="A. Meyer: known double delivery")
    fields = decide_gate(settings, run)
    assert (fields["decision"], fields["override"]) == ("pass_with_warnings", True)
    assert decision(run)["override"] == "A. Meyer: known double delivery"
    assert "A. Meyer" in write_morning_report(settings, run).read_text("utf-8")


def test_without_its_database_a_night_loses_its_trends_only(night) -> None:
    change, run = night
    settings = change()
    storage = settings.storage.model_copy(update={"database": "postgresql+psycopg://nobody@127.0.0.1:1/none"})
    settings = settings.model_copy(update={"storage": storage})
    assert trends_until(settings, run) is None


def test_a_night_that_broke_off_early_still_gets_its_page(night) -> None:
    change, run = night
    shutil.rmtree(run.path)
    page = write_morning_report(change(), run).read_text("utf-8")
    assert "The night did not reach the gate." in page


def test_a_site_s_own_codes_reach_the_shipped_model(night, tmp_path: Path) -> None:
    """The demo hospital with its heart rates under a local code alone: unknown, then named by the site."""
    change, run = night
    settings, local = change(), "https://st-mary.example/codes|HF"
    for shard in range(2):
        name = f"observations/{shard:04d}"
        rows = run.load(name)
        told = pl.col("codings").list.contains("http://loinc.org|8867-4")
        renamed = rows.with_columns(pl.when(told).then(pl.lit([local])).otherwise("codings").alias("codings"))
        run.save(renamed, "observations", name, shard=shard)
    codes = tmp_path / "codes.csv"
    codes.write_text(
        "feature,system,code,label,unit,priority\nheart_rate,https://st-mary.example/codes,HF,Heart rate,,\n"
    )
    named = settings.model_copy(update={"site": settings.site.model_copy(update={"codes": codes})})
    rates = {}
    for which in (settings, named):
        for shard in range(2):
            map_shard(which, run, shard)
        decide_gate(which, run)
        for shard in range(2):
            score_shard(which, run, shard)
        write_morning_report(which, run)
        report = json.loads((run.path / "report" / "report.json").read_text("utf-8"))
        assert count(run).scored > 0
        unknown = {row["coding"] for row in report["unmapped"]}
        events = run.load_all("events", "events/*")
        rates[report["made_by"]["site_codes_digest"], local in unknown] = (
            events.filter(pl.col("code") == "heart_rate").height,
            report["made_by"]["model_digest"],
        )
    (before, model), (after, same_model) = rates.values()
    assert [unknown for _, unknown in rates] == [True, False]
    assert next(iter(rates))[0] is None
    assert before == 0 < after
    assert model == same_model


def test_a_broken_file_of_site_codes_stops_mapping_and_leaves_the_report(night, tmp_path: Path) -> None:
    change, run = night
    settings = change()
    site = settings.site.model_copy(update={"codes": tmp_path / "absent.csv"})
    settings = settings.model_copy(update={"site": site})
    with pytest.raises(CatalogueError, match=r"absent\.csv"):
        map_shard(settings, run, 0)
    write_morning_report(settings, run)
    report = json.loads((run.path / "report" / "report.json").read_text("utf-8"))
    assert report["made_by"]["catalogue_digest"]
    assert report["made_by"]["site_codes_digest"] is None


def test_a_census_of_an_earlier_version_leaves_no_mark_and_no_failure(night, caplog) -> None:
    change, run = night
    census = json.loads((run.path / "census.json").read_text("utf-8"))
    del census["started"]
    (run.path / "census.json").write_text(json.dumps(census))
    remember_pulls(change(), run, now=datetime(2026, 1, 15, 6, tzinfo=UTC))
    assert "earlier version" in caplog.text
