"""New mapped data start a retraining: an asset event, Airflow's own scheduler, a run named after the partition."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.airflow.home import prepare

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

# One pass of the scheduler's part that makes runs of asset events; nothing is executed.
SCRIPT = """
import json
from airflow.assets.manager import asset_manager
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.asset import AssetModel
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from sqlalchemy import select

with create_session() as session:
    manager = DagBundlesManager()
    manager.sync_bundles_to_db(session=session)
    session.commit()
    [bundle] = manager.get_all_dag_bundles()
    bundle.initialize()
    bag = BundleDagBag(dag_folder=bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
    sync_bag_to_db(bag, bundle.name, bundle.version)
    session.get(DagModel, "retrain").is_paused = False
    session.commit()
    asset = session.scalar(select(AssetModel).where(AssetModel.name == "nightingale-mapped-data"))
    scheduler = SchedulerJobRunner(Job())
    for key in ("mimic-iv-3.1", "site-2026-03"):
        asset_manager.register_asset_change(asset=asset, session=session, partition_key=key)
    session.commit()
    scheduler._create_dagruns_for_partitioned_asset_dags(session)
    session.commit()
    runs = session.scalars(select(DagRun)).all()
    print("RUNS" + json.dumps([[run.dag_id, run.run_type, run.partition_key, run.state] for run in runs]))
"""


def test_each_version_of_the_data_starts_one_retraining_named_after_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=prepare(tmp_path), capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RUNS")]
    assert lines, done.stderr[-3000:]
    assert sorted(json.loads(lines[0].removeprefix("RUNS"))) == [
        ["retrain", "asset_triggered", "mimic-iv-3.1", "queued"],
        ["retrain", "asset_triggered", "site-2026-03", "queued"],
    ]
