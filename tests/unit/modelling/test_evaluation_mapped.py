"""A model folder on a folder of mapped tables: from files to figures, in code and on the command line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from mapped_folder import write_mapped
from mimic_ward import write_mimic
from polars.testing import assert_frame_equal
from simulated_stays import CATALOGUE, NOON, write_small_model
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from deploy.command_line.evaluation import app
from modelling.cohorts.folder import build_cohort
from modelling.cohorts.labels import Facts
from modelling.cohorts.tasks import TASKS
from modelling.cohorts.training import training_samples
from modelling.errors import EvaluationError
from modelling.evaluation.mapped import evaluate_folder, labelled_cohort, read_mapped
from modelling.mimic.reader import map_mimic
from modelling.registry.folder import read_folder, write_folder
from modelling.scoring import load_model

TASK = "in-hospital-mortality"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model folder, and a mapped folder of 80 stays, one of them without any value."""
    root = tmp_path_factory.mktemp("evaluation")
    write_small_model(root / "model")
    data = root / "data"
    write_mapped(data, without_values=3)
    return root / "model", data


def test_samples_are_made_from_outcomes_or_taken_as_stored(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    _, data = folders
    made = labelled_cohort(read_mapped(data), TASK).samples
    assert made.height == 80
    assert made["prediction_time"].unique().to_list() == [NOON]
    with pytest.raises(EvaluationError, match=r"no encounters\.parquet"):
        read_mapped(tmp_path)


def test_metrics_are_those_of_the_scores_and_nobody_is_hidden(folders: tuple[Path, Path]) -> None:
    model, data = folders
    loaded = load_model(model, device="cpu", catalogue_digest=CATALOGUE.digest)
    evaluation, scores = evaluate_folder(loaded, read_mapped(data), resamples=20)
    assert evaluation.samples + sum(evaluation.skipped.values()) == 80
    assert evaluation.skipped == {"skip.no_usable_input": 1}
    labels = labelled_cohort(read_mapped(data), TASK).samples.select("encounter_id", "boolean_value")
    both = scores.join(labels, on="encounter_id")
    expected = roc_auc_score(both["boolean_value"].to_numpy(), both["probability"].to_numpy())
    assert evaluation.metrics["auroc"].value == pytest.approx(expected)
    assert set(evaluation.comparisons) == {"NEWS2", "MEWS", "SOFA-like"}
    assert {group["subgroup"] for group in evaluation.subgroups} == {"age_band", "sex", "unit", "modalities"}


def test_the_command_prints_json_and_writes_a_report(folders: tuple[Path, Path], tmp_path: Path) -> None:
    model, data = folders
    arguments = [
        "--data",
        str(data),
        "--run",
        str(model),
        "--json",
        "--out",
        str(tmp_path),
        "--resamples",
        "20",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["samples"] == 79
    assert 0.5 < printed["metrics"]["auroc"]["value"] <= 1
    assert (tmp_path / "evaluation.html").is_file()


def test_a_model_of_another_catalogue_ends_with_a_sentence(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    model, data = folders
    other = tmp_path / "other"
    shutil.copytree(model, other)
    folder = read_folder(other)
    config = {**folder.config, "catalogue_digest": "0" * 64}
    write_folder(other, weights=folder.weights, config=config, card=folder.card, metrics={})
    result = CliRunner().invoke(app, ["--data", str(data), "--run", str(other)])
    assert result.exit_code == 1
    assert "was trained with catalogue" in result.stderr
    assert "Traceback" not in result.output


def test_every_task_is_evaluated_on_the_samples_of_its_cohort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "mapped"
    map_mimic(mimic=write_mimic(tmp_path / "mimic"), out=out, catalogue=CATALOGUE)
    begun = pl.read_parquet(out / "encounters.parquet")["start"].min()
    known_later = {
        "suspicions": pl.DataFrame({"subject_id": [10], "time": [begun]}),
        "supports": pl.DataFrame(
            {"subject_id": [10], "start": [begun], "end": [begun], "kind": ["norepinephrine"], "rate": [0.2]}
        ),
    }
    for name, table in known_later.items():
        table.write_parquet(out / f"{name}.parquet")
    given: list[Facts] = []

    def noting(*tables: pl.DataFrame, facts: Facts, **more: Any) -> Any:
        given.append(facts)
        return training_samples(*tables, facts=facts, **more)

    monkeypatch.setattr("modelling.evaluation.mapped.training_samples", noting)
    folder = read_mapped(out)
    found = {}
    for name, task in TASKS.items():
        if task.label == "cardiovascular":  # asked at ECGs, of which this folder has none
            continue
        expected = build_cohort(out, replace(task, needs_value=False)).samples
        if task.kind != "multilabel":
            known = pl.col("boolean_value").is_not_null() | pl.col("float_value").is_not_null()
            expected = expected.filter(known)
        if expected.is_empty():
            with pytest.raises(EvaluationError, match="no labelled sample"):
                labelled_cohort(folder, name)
            continue
        samples = labelled_cohort(folder, name).samples
        found[name] = samples.sort("subject_id", "prediction_time", "encounter_id")
        assert_frame_equal(found[name], expected)
    assert {"phenotyping", "in-hospital-mortality", "decompensation"} <= set(found)
    for facts in given:  # sepsis reads all of them
        assert facts.supports is not None
        assert facts.suspicions is not None
        assert facts.supports.equals(known_later["supports"])
        assert facts.suspicions.equals(known_later["suspicions"])
