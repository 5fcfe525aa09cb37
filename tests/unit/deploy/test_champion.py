"""Which model scores: the site's, the champion, the shipped one; never another one silently, never two a night."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "modelling"))

from registry_models import TASK, HeldOut, model_folder

from deploy.champion import SHIPPED_BY_TASK, champion_folder, open_registry, shadow_folders
from deploy.errors import SettingsError
from deploy.monitoring_job.page import render_page
from deploy.night.run import Run
from deploy.night.scoring import model_folder as night_folder
from deploy.settings import Settings, load_settings
from modelling.errors import CheckpointDigestError
from modelling.registry.records import Provenance
from modelling.registry.rules import PromotionRules

NOW = datetime(2026, 1, 19, 5, tzinfo=UTC)
PATIENTS = HeldOut()
EVIDENCE = PATIENTS.evidence(PATIENTS.at(0.0))
RULES = PromotionRules()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("NIGHTINGALE_CONFIG", raising=False)
    return load_settings(
        source={"folder": tmp_path},
        storage={
            "runs": tmp_path / "runs",
            "models": tmp_path / "models",
            "database": f"sqlite:///{tmp_path / 'nightingale.sqlite'}",
        },
    )


def register(settings: Settings, folder: Path, seed: int, *, promote: bool = True) -> str:
    digest = model_folder(folder, seed=seed)
    registry = open_registry(settings)
    champion = registry.champion(TASK)
    evidence = EVIDENCE | {"champion": {"digest": champion.digest} if champion else None}
    registry.register(
        folder,
        provenance=Provenance(data_version="v", data_fingerprint="f"),
        evidence=evidence,
        by="test",
        why="test",
        now=NOW,
    )
    if promote:
        registry.promote(digest, rules=RULES, by="Dr A", why="test", now=NOW)
    return digest


def test_the_shipped_weights_score_until_a_model_is_promoted(settings: Settings, tmp_path: Path) -> None:
    assert champion_folder(settings, TASK) == SHIPPED_BY_TASK[TASK]
    with pytest.raises(SettingsError, match="retrain"):
        champion_folder(settings, "decompensation")
    digest = register(settings, tmp_path / "a", 1)
    assert champion_folder(settings, TASK).name == digest
    night = settings.night.model_copy(update={"model": tmp_path / "own"})
    assert champion_folder(settings.model_copy(update={"night": night}), TASK) == tmp_path / "own"


def test_a_damaged_champion_stops_the_night_rather_than_give_way(settings: Settings, tmp_path: Path) -> None:
    digest = register(settings, tmp_path / "a", 1)
    (settings.storage.models / "registered" / digest / "config.json").write_text("{}")
    with pytest.raises(CheckpointDigestError):
        champion_folder(settings, TASK)


def test_a_promotion_in_the_middle_of_a_night_waits_for_the_next(settings: Settings, tmp_path: Path) -> None:
    def run(name: str) -> Run:
        (tmp_path / name).mkdir()
        return Run(partition=name, prediction_time=None, replay="icu+48h", folder=str(tmp_path / name))

    tonight, tomorrow = run("tonight"), run("tomorrow")
    first = register(settings, tmp_path / "a", 1)
    assert night_folder(settings, tonight).name == first
    second = register(settings, tmp_path / "b", 2)
    assert night_folder(settings, tonight).name == first
    assert night_folder(settings, tomorrow).name == second
    assert sorted(path.name for path in tonight.path.iterdir()) == ["model.json"]


def test_shadows_are_found_and_leave_the_champion_alone(settings: Settings, tmp_path: Path) -> None:
    first = register(settings, tmp_path / "a", 1)
    second = register(settings, tmp_path / "b", 2, promote=False)
    assert shadow_folders(settings, TASK) == {}
    open_registry(settings).shadow(second, by="Dr A", why="watch", now=NOW)
    assert {digest: path.name for digest, path in shadow_folders(settings, TASK).items()} == {second: second}
    assert champion_folder(settings, TASK).name == first


def test_the_monitoring_page_is_one_file_without_script_and_escapes_text() -> None:
    interval = {"value": 0.8, "lower": 0.7, "upper": 0.9, "resamples": 100}
    metrics = dict.fromkeys(
        (
            "auroc",
            "auprc_average_precision",
            "brier",
            "calibration_slope",
            "calibration_in_the_large",
            "expected_calibration_error",
        ),
        interval,
    )
    window = {
        "role": "champion", "digest": "d" * 64, "name": "<b>model</b>", "start": "2026-01-01T00:00:00+00:00",
        "end": "2026-01-31T00:00:00+00:00", "scored": 40, "known": 30, "events": 9, "alert_rate": 0.1,
        "mean_probability": 0.2, "stability": None, "metrics": metrics,
        "subgroups": [
            {"subgroup": "sex", "level": "female", "known": 20, "events": 5, "auroc": interval},
            {"subgroup": "sex", "level": "male", "known": 4, "events": None, "auroc": None},
        ],
        "reliability": {"predicted": [0.1, 0.6], "observed": [0.1, 0.5], "count": [15, 15]},
    }  # fmt: skip
    early = window | {"metrics": None, "events": None, "reliability": None, "subgroups": [], "known": 2}
    alarm = {"rule": "auroc_fall", "digest": "d" * 64, "start": window["start"], "text": "AUROC <fell>"}
    summary = {
        "moment": "2026-02-01T06:00:00+00:00",
        "windows": [early, window, window | {"start": "2026-03-02T00:00:00+00:00"}],
        "alarms": [alarm],
        "reference": {"d" * 64: 0.85},
    }
    page = render_page(summary, site="ward", task="Death", note="Synthetic.")
    assert page.count('class="chart"') == 6 and "<script" not in page and "http" not in page
    assert "&lt;b&gt;model&lt;/b&gt;" in page and "AUROC &lt;fell&gt;" in page and "too few" in page
    assert "dashed: 0.850 before promotion" in page
    assert 'aria-label="AUROC of sex female: 0.800, 0.800"' in page  # a group over time
    assert 'aria-label="AUROC of sex male: –, –"' in page
    assert "No score was found" in render_page(
        summary | {"windows": [], "alarms": []}, site="ward", task="Death", note=None
    )
