"""Scale-out: shards on two Celery workers give what LocalExecutor gives; a killed worker's shard moves on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from sqlalchemy import create_engine, text

from deploy.airflow.api import AirflowApi
from deploy.airflow.celery import CeleryWorker, Redis, celery_provider, celery_settings, redis
from deploy.airflow.split import SplitAirflow
from deploy.load_hospital import build_load_hospital
from deploy.servers import PostgreSQL
from deploy.servers.prerequisites import postgresql

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
DAG = "nightly_inference"
NIGHT = "2026-01-15"
SHARDS = 3


class Site:
    """One hospital and one database server; Airflow is started on it in different ways."""

    def __init__(self, folder: Path, server: PostgreSQL) -> None:
        self.folder, self.server = folder, server
        hospital = folder / "hospital"
        build_load_hospital(hospital, patients=12, night=date.fromisoformat(NIGHT), workers=1, pool=2)
        self.source = {
            "NIGHTINGALE_SITE__TIME_ZONE": "Europe/Berlin",
            "NIGHTINGALE_SOURCE__KIND": "folder",
            "NIGHTINGALE_SOURCE__FOLDER": str(hospital / "fhir"),
            "NIGHTINGALE_WAVEFORMS__FOLDER": str(hospital / "wfdb"),
            "NIGHTINGALE_IMAGES__KIND": "folder",
            "NIGHTINGALE_IMAGES__FOLDER": str(hospital / "dicom"),
            "NIGHTINGALE_NIGHT__SHARDS": str(SHARDS),
            "OMP_NUM_THREADS": "1",
            "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
        }

    def database(self, name: str) -> str:
        engine = create_engine(self.server.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"create database {name}"))
        engine.dispose()
        return self.server.url.rsplit("/", 1)[0] + f"/{name}"

    def settings(self, name: str) -> dict[str, str]:
        """Return the environment of a run with its own ledger and folders."""
        return self.source | {
            "NIGHTINGALE_STORAGE__RUNS": str(self.folder / name / "runs"),
            "NIGHTINGALE_STORAGE__DATABASE": self.database(f"ledger_{name}"),
            "NIGHTINGALE_DESTINATION__FOLDER": str(self.folder / name / "written"),
        }

    def scores(self, name: str) -> pl.DataFrame:
        run = next((self.folder / name / "runs").glob(f"*/{NIGHT}"))
        summary = json.loads((run / "summary.json").read_text("utf-8"))
        assert [equation["holds"] for equation in summary["equations"]] == [True, True, True]
        assert summary["counts"]["confirmed"] == summary["counts"]["scored"] > 0
        parts = sorted(run.glob("scores/*.parquet"))
        assert len(parts) == SHARDS
        return pl.concat([pl.read_parquet(part) for part in parts]).sort("score_key")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    for needed in (postgresql(), redis(), celery_provider()):
        if not needed.found:
            pytest.skip(f"not on this machine: {needed.name} ({needed.remedy})")
    with PostgreSQL() as server:
        yield Site(tmp_path_factory.mktemp("celery"), server)


def test_two_workers_and_a_killed_one_give_what_local_executor_gives(site: Site) -> None:
    database = site.database("airflow_local")
    with (
        SplitAirflow(
            site.folder / "local" / "airflow", database=database, overrides=site.settings("local")
        ) as airflow,
        AirflowApi(airflow.base_url, user=airflow.user, password=airflow.password) as api,
    ):
        api.wait_for_dag(DAG, timeout=180)
        api.unpause(DAG)
        run = api.trigger(DAG, {"night": NIGHT, "replay": None})
        assert api.wait(DAG, run, timeout=900) == "success", api.tasks(DAG, run)
    expected = site.scores("local")
    with ExitStack() as stack:
        broker = stack.enter_context(Redis())
        database = site.database("airflow_celery")
        overrides = site.settings("celery") | celery_settings(
            broker=broker.url, database=database, heartbeat_timeout=30
        )
        airflow = stack.enter_context(
            SplitAirflow(site.folder / "celery" / "airflow", database=database, overrides=overrides)
        )
        logs = site.folder / "celery" / "workers"
        first, second = (
            stack.enter_context(CeleryWorker(name, variables=airflow.variables, folder=logs))
            for name in ("first", "second")
        )
        api = stack.enter_context(AirflowApi(airflow.base_url, user=airflow.user, password=airflow.password))
        api.wait_for_dag(DAG, timeout=180)
        api.unpause(DAG)
        run = api.trigger(DAG, {"night": NIGHT, "replay": None})
        killed = kill_while_working(api, run, first)
        state = api.wait(DAG, run, timeout=1200)
        assert state == "success", (api.tasks(DAG, run), first.log, second.log)
        tries = {
            (item["task_id"], item["map_index"]): item["try_number"]
            for item in api.call("GET", f"/dags/{DAG}/dagRuns/{run}/taskInstances")["task_instances"]
        }
        assert any(tries[task] > 1 for task in killed), (killed, tries)
    assert_frame_equal(expected, site.scores("celery"), check_exact=True)


def kill_while_working(api: AirflowApi, run: str, worker: CeleryWorker) -> list[tuple[str, int]]:
    """Wait until two shards are being worked on, one on each worker; kill one worker; return the shards."""
    end = time.monotonic() + 900
    while time.monotonic() < end:
        found = api.call("GET", f"/dags/{DAG}/dagRuns/{run}/taskInstances")["task_instances"]
        running = [
            (item["task_id"], item["map_index"])
            for item in found
            if item["state"] == "running" and item["map_index"] >= 0 and "extract" not in item["task_id"]
        ]
        if len(running) == 2:
            worker.kill()
            return running
        time.sleep(0.2)
    raise AssertionError(api.tasks(DAG, run))
