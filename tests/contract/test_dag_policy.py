"""What every DAG of the project keeps to: ownership, limits, pools, documentation, alerts, light imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from deploy.airflow.home import POOLS

PROJECT = Path(__file__).resolve().parents[2]
DAGS = PROJECT / "dags"
HEAVY = ("torch", "polars", "great_expectations", "pandas", "fhir", "wfdb", "pydicom", "matplotlib")
IMPORT_BUDGET = 1.0
"""Seconds of processor time beyond ``airflow.sdk``: clock time says nothing on a shared machine."""

LOOK = """
import json, sys, time
import airflow.sdk
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization
start = time.process_time()
bag = DagBag(dag_folder={folder!r})
seconds = time.process_time() - start
found = {{"errors": bag.import_errors, "seconds": seconds, "dags": {{}},
          "heavy": [name for name in {heavy!r} if name in sys.modules]}}
for dag in bag.dags.values():
    DagSerialization.to_dict(dag)
    found["dags"][dag.dag_id] = {{
        "doc": dag.doc_md, "description": dag.description, "tags": sorted(dag.tags), "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs, "dagrun_timeout": dag.dagrun_timeout is not None,
        "deadline": dag.deadline is not None, "alerted": dag.on_failure_callback is not None,
        "params": {{name: {{"description": param.description, **param.schema}}
                   for name, param in dag.params.items_raw()}} if hasattr(dag.params, "items_raw") else
                  {{name: {{"description": dag.params.get_param(name).description,
                            **dag.params.get_param(name).schema}} for name in dag.params}},
        "tasks": {{task.task_id: {{
            "doc": task.doc_md, "owner": task.owner, "retries": task.retries, "pool": task.pool,
            "timeout": task.execution_timeout is not None, "policy": task.retry_policy is not None,
            "mapped": task.is_mapped, "outlets": [outlet.name for outlet in task.outlets],
            "upstream": sorted(task.upstream_task_ids)}} for task in dag.tasks}},
        "timetable": DagSerialization.to_dict(dag)["dag"]["timetable"],
    }}
print("FOUND" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Read the DAG folder in a process of its own, as the dag-processor does."""
    home = tmp_path_factory.mktemp("airflow")
    variables = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTINGALE_")}
    variables |= {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    done = subprocess.run(
        [sys.executable, "-c", LOOK.format(folder=str(DAGS), heavy=HEAVY)],
        env=variables,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND")]
    assert lines, done.stderr[-3000:]
    return dict(json.loads(lines[0].removeprefix("FOUND")))


def tasks_of(found: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{dag_id}.{name}", task)
        for dag_id, dag in found["dags"].items()
        for name, task in dag["tasks"].items()
    ]


def test_every_file_is_read_without_an_error(found: dict[str, Any]) -> None:
    assert found["errors"] == {}
    assert "nightly_inference" in found["dags"]


def test_reading_pulls_in_nothing_heavy_and_takes_little(found: dict[str, Any]) -> None:
    assert found["heavy"] == []
    assert found["seconds"] < IMPORT_BUDGET


def test_one_run_at_a_time_and_never_for_ever(found: dict[str, Any]) -> None:
    for name, dag in found["dags"].items():
        assert dag["max_active_runs"] == 1, name
        assert dag["catchup"] is False, name
        assert dag["dagrun_timeout"], name


def test_everything_is_documented_and_tagged(found: dict[str, Any]) -> None:
    for name, dag in found["dags"].items():
        assert dag["doc"] and dag["description"], name
        assert "nightingale" in dag["tags"] and len(dag["tags"]) > 1, name
        for parameter, schema in dag["params"].items():
            assert schema["description"], f"{name}, parameter {parameter}"
    undocumented = [name for name, task in tasks_of(found) if not task["doc"]]
    assert undocumented == []


def test_every_task_has_an_owner_a_limit_and_a_reason_to_try_again(found: dict[str, Any]) -> None:
    for name, task in tasks_of(found):
        assert task["owner"] == "nightingale", name
        assert task["timeout"], name
        assert task["policy"], name
        if not name.endswith((".settle",)):  # what is out of order stays out of order
            assert task["retries"] >= 1, name


def test_every_pool_is_made_at_deployment(found: dict[str, Any]) -> None:
    assert {task["pool"] for _, task in tasks_of(found)} <= {"default_pool", *POOLS}
    assert found["dags"]["nightly_inference"]["tasks"]["score"]["pool"] == "gpu"


def test_people_are_told_of_failures_and_of_late_scores(found: dict[str, Any]) -> None:
    for name, dag in found["dags"].items():
        assert dag["alerted"], name
    assert found["dags"]["nightly_inference"]["deadline"]


def test_the_night_has_its_form_and_its_lineage(found: dict[str, Any]) -> None:
    night = found["dags"]["nightly_inference"]
    assert set(night["params"]) == {"night", "replay", "task", "dry_run"}
    assert all(schema.get("title") for schema in night["params"].values())
    assert night["tasks"]["write_back"]["outlets"] == ["nightingale-scores"]
    groups = {name.split(".")[0] for name in night["tasks"] if "." in name}
    assert groups == {"intake", "judge"}


def test_new_data_start_a_retraining_that_trains_each_model_in_the_pool_of_the_gpus(
    found: dict[str, Any],
) -> None:
    retrain = found["dags"]["retrain"]
    assert retrain["timetable"]["__type"].endswith("PartitionedAssetTimetable")
    assert "nightingale-mapped-data" in json.dumps(retrain["timetable"])
    tasks = retrain["tasks"]
    assert {name for name, task in tasks.items() if task["pool"] == "gpu"} == {"train", "evaluate"}
    assert {name for name, task in tasks.items() if task["mapped"]} == {
        "train",
        "mapped.extract",
        "mapped.map_shard",
    }
    order = ["open_job", "cohorts", "train", "evaluate", "register", "notify"]
    assert all(first in tasks[then]["upstream"] for first, then in pairwise(order))
    assert tasks["register"]["outlets"] == ["nightingale-candidates"]


def test_outcomes_are_looked_at_every_day_and_lead_to_alarms(found: dict[str, Any]) -> None:
    monitor = found["dags"]["monitor"]
    assert monitor["timetable"]["__type"].endswith("CronPartitionTimetable")
    tasks = monitor["tasks"]
    order = ["open_job", "join_outcomes", "measure", "report", "alarm"]
    assert all(first in tasks[then]["upstream"] for first, then in pairwise(order))
    assert tasks["report"]["outlets"] == ["nightingale-performance"]
