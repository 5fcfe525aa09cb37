"""Run the nightly DAG through Airflow in a child process, and show its progress here."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy.airflow.home import prepare
from deploy.errors import NightFailed
from deploy.night.accounts import read_json
from deploy.night.closing import failures
from deploy.night.run import Run, plan_run
from deploy.settings import CONFIG_VARIABLE, Settings

POLL_SECONDS = 0.3


def run_night_dag(
    settings: Settings,
    config: Path | None,
    home: Path,
    *,
    night: str | None,
    replay: str | None,
    watch: Callable[[str, int, int | None], None],
    dry_run: bool = False,
    task: str | None = None,
) -> tuple[Run, int]:
    """Run ``dags/nightly_inference.py`` once by ``dag.test()`` and follow its progress file.

    Returns
    -------
    run : Run
        The run that the DAG made.
    status : int
        Exit status of the process: 0 when every task succeeded.

    Raises
    ------
    NightFailed
        If the run failed although its summary is in order.
    """
    run = plan_run(settings, night=night, replay=replay, dry_run=dry_run, task=task)
    progress = run.path / "progress.jsonl"
    progress.unlink(missing_ok=True)
    variables = prepare(home)
    if config is not None:
        variables[CONFIG_VARIABLE] = str(config.resolve())
    conf: dict[str, Any] = {"night": night, "replay": replay, "dry_run": dry_run, "task": task}
    log = home / "logs" / f"{run.partition}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "deploy.airflow.in_process", "nightly_inference", json.dumps(conf)]
    with log.open("w", encoding="utf-8") as output:
        child = subprocess.Popen(command, env=variables, stdout=output, stderr=subprocess.STDOUT)  # noqa: S603
        try:
            seen = 0
            while child.poll() is None:
                seen = _follow(progress, seen, watch)
                time.sleep(POLL_SECONDS)
            _follow(progress, seen, watch)
        except BaseException:
            child.terminate()
            child.wait()
            raise
    summary = read_json(run.path / "summary.json")
    if child.returncode and summary and not failures(run, summary):
        raise NightFailed(f"the night's summary is in order, but Airflow's run failed; see {log}")
    return run, child.returncode


def _follow(progress: Path, seen: int, watch: Callable[[str, int, int | None], None]) -> int:
    if not progress.is_file():
        return seen
    lines = progress.read_text("utf-8").splitlines()
    for line in lines[seen:]:
        try:
            fields = json.loads(line)
        except json.JSONDecodeError:  # a line still being written: read it next time
            return seen
        watch(fields["stage"], fields["done"], fields["total"])
        seen += 1
    return seen
