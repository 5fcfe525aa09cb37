"""Evaluation of a small ward: groups, comparisons, files."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from modelling.errors import EvaluationError
from modelling.evaluation import Evaluation, evaluate, render_html, sample_groups, write_evaluation
from modelling.evaluation.subgroups import age_band


def ward(n: int = 300) -> tuple[np.ndarray, np.ndarray, pl.DataFrame]:
    rng = np.random.default_rng(4)
    p = rng.beta(1, 5, size=n)
    y = (rng.random(n) < p).astype(int)
    groups = pl.DataFrame(
        {
            "sex": np.where(rng.random(n) < 0.5, "male", "female"),
            "unit": ["Coronary care"] * (n - 4) + ["Burns"] * 4,
            "age_band": ["65-74"] * n,
        }
    )
    return y, p, groups


def judged(**changes: object) -> Evaluation:
    y, p, groups = ward()
    settings: dict = {
        "task": "in-hospital mortality", "model": "mufuse", "groups": groups, "subjects": np.arange(len(y)),
        "others": {"NEWS2": np.round(p * 10)}, "skipped": {"sample.no_events": 3}, "resamples": 60,
        "notes": ("Trained on <another> hospital.",),
    }  # fmt: skip
    return evaluate(y, p, **(settings | changes))


def test_small_groups_show_neither_metrics_nor_outcomes() -> None:
    groups = {(g["subgroup"], g["level"]): g for g in judged().subgroups}
    assert groups["unit", "Burns"] == {
        "subgroup": "unit", "level": "Burns", "samples": 4, "events": None, "metrics": None,
    }  # fmt: skip
    assert groups["unit", "Coronary care"]["metrics"]["auroc"]["value"] > 0.5
    assert groups["sex", "male"]["samples"] + groups["sex", "female"]["samples"] == 300


def test_other_models_are_compared_on_the_same_samples() -> None:
    comparison = judged().comparisons["NEWS2"]
    whole = judged().metrics["auroc"].value
    assert comparison["difference"]["auroc"]["value"] == pytest.approx(
        whole - comparison["metrics"]["auroc"]["value"]
    )


def test_files_are_complete_and_the_page_stands_alone(tmp_path: Path) -> None:
    result = judged()
    paths = write_evaluation(result, tmp_path / "new")
    assert [path.suffix for path in paths] == [".json", ".html", ".png", ".svg"]
    stored = json.loads(paths[0].read_text())
    assert stored["metrics"]["auroc"]["value"] == result.metrics["auroc"].value
    assert stored["skipped"] == {"sample.no_events": 3}
    assert paths[2].read_bytes().startswith(b"\x89PNG")

    page = paths[1].read_text()
    assert "Trained on &lt;another&gt; hospital." in page
    assert "<script" not in page

    class Links(HTMLParser):
        found: list[str]

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.found += [
                v or "" for k, v in attrs if k in ("src", "href") and not (v or "").startswith("#")
            ]

    links = Links()
    links.found = []
    links.feed(page)
    assert [link for link in links.found if not link.startswith("#")] == []


def test_the_same_evaluation_gives_the_same_page() -> None:
    assert render_html(judged()) == render_html(judged())


def test_a_score_that_only_ranks_has_no_calibration() -> None:
    result = judged(probabilities=False)
    assert "brier" not in result.metrics
    assert set(result.curves) == {"roc", "precision_recall"}
    assert "Calibration" not in render_html(result)


def test_length_of_stay_is_judged_in_days(tmp_path: Path) -> None:
    days = np.array([1.0, 3.0, 2.0, 8.0] * 5)
    groups = pl.DataFrame({"sex": ["male", "female"] * 10})
    result = evaluate(
        days, days + 1, task="length of stay", model="m", kind="regression", groups=groups, resamples=30
    )
    assert result.metrics["mae"].value == pytest.approx(1.0)
    assert [g["metrics"]["mae"]["value"] for g in result.subgroups] == pytest.approx([1.0, 1.0])
    assert [path.suffix for path in write_evaluation(result, tmp_path)] == [".json", ".html"]


def test_one_class_only_is_refused() -> None:
    with pytest.raises(EvaluationError, match="all labels are the same"):
        evaluate(np.zeros(5), np.linspace(0, 1, 5), task="t", model="m")


def test_groups_follow_the_samples() -> None:
    night = datetime(2026, 3, 1, 6, tzinfo=UTC)
    samples = pl.DataFrame({"encounter_id": ["b", "a", "c"], "prediction_time": [night] * 3})
    encounters = pl.DataFrame(
        {
            "encounter_id": ["a", "b"],
            "birth_date": [date(1960, 3, 2), None],
            "sex": ["female", "male"],
            "ward": [None, "ICU"],
        },
        schema_overrides={"birth_date": pl.Date},
    )
    scores = samples.head(2).with_columns(
        modalities_present=pl.Series([["image", "ehr"], []], dtype=pl.List(pl.String))
    )
    assert sample_groups(samples, encounters, scores).to_dict(as_series=False) == {
        "age_band": ["unknown", "65-74", "unknown"],
        "sex": ["male", "female", "unknown"],
        "unit": ["ICU", "unknown", "unknown"],
        "modalities": ["ehr+image", "none", "unknown"],
    }


def test_age_bands_have_no_gap() -> None:
    ages = pl.DataFrame({"a": [None, 17.9, 18.0, 44.99, 45.0, 84.9, 85.0, 120.0]})
    assert ages.select(age_band(pl.col("a"))).to_series().to_list() == [
        "unknown", "<18", "18-44", "18-44", "45-64", "75-84", "85+", "85+",
    ]  # fmt: skip
