"""A model folder on a folder of mapped tables: from files to figures, in code and on the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from mapped_folder import write_mapped
from simulated_stays import CATALOGUE, NOON, write_small_model
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from deploy.command_line.evaluation import app
from modelling.errors import EvaluationError
from modelling.evaluation.mapped import evaluate_folder, labelled_cohort, read_mapped
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
