"""`airflow standalone`, for a first look on one machine: healthy, DAGs read, a dry run of a night through REST."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import date
from pathlib import Path

import httpx
import pytest

from deploy.airflow.api import AirflowApi
from deploy.airflow.home import prepare
from deploy.demo_hospital.build import build_hospital
from deploy.servers.processes import free_port
from deploy.site_file import write_site

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
NIGHT = date(2026, 1, 19)


def answers(url: str, process: subprocess.Popen[bytes], log: Path, timeout: float = 180) -> None:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text("utf-8")[-3000:]
        with suppress(httpx.HTTPError, ValueError):
            parts = httpx.get(f"{url}/api/v2/monitor/health", timeout=5, trust_env=False).json()
            wanted = ("metadatabase", "scheduler", "dag_processor", "triggerer")
            if all((parts.get(name) or {}).get("status") == "healthy" for name in wanted):
                return
        time.sleep(0.5)
    raise AssertionError(log.read_text("utf-8")[-3000:])


def test_a_dry_run_through_rest_on_airflow_standalone(tmp_path: Path) -> None:
    build_hospital(tmp_path / "hospital", patients=3, night=NIGHT, history=False)
    config = write_site(
        tmp_path / "site.toml",
        root=tmp_path,
        hospital=tmp_path / "hospital",
        name="ward",
        note="Synthetic data.",
        night={"shards": 1},
        gate={"quarantined_share": 0.9, "quarantined_share_warning": 0.9},
        destination={"folder": tmp_path / "written"},
    )
    port, home = free_port(), tmp_path / "airflow"
    url = f"http://127.0.0.1:{port}"
    home.mkdir()
    (home / "passwords.json").write_text(json.dumps({"nightingale": "for-this-test"}), encoding="utf-8")
    variables = prepare(
        home,
        {
            "NIGHTINGALE_CONFIG": str(config),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # standalone calls `airflow` by name
            "OMP_NUM_THREADS": "1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "nightingale:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
            "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        },
    )
    log = home / "standalone.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "standalone"],
            env=variables, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT,
            cwd=tmp_path, start_new_session=True,
        )  # fmt: skip
    try:
        answers(url, process, log)
        with AirflowApi(url, user="nightingale", password="for-this-test") as api:
            api.wait_for_dag("nightly_inference", timeout=120)
            api.unpause("nightly_inference")
            run = api.trigger("nightly_inference", {"night": NIGHT.isoformat(), "dry_run": True})
            assert api.wait("nightly_inference", run, timeout=600) == "success", api.tasks(
                "nightly_inference", run
            )
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # SIGTERM to standalone alone leaves its children behind
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    summary = json.loads((tmp_path / "runs" / "ward" / "dry-2026-01-19" / "summary.json").read_text("utf-8"))
    assert summary["counts"]["scored"] == summary["counts"]["confirmed"] > 0
    assert not (tmp_path / "written").exists()
