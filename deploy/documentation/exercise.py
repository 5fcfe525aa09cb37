"""Exercise what the runbook describes and write down what was seen: ``python -m deploy.documentation.exercise``.

A small synthetic hospital, PostgreSQL, Airflow's four processes: a backfill of three nights, a night that the
gate stops with its messages, a withdrawal, a forgotten patient, pictures of Airflow's pages. Takes minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import typer

from deploy.airflow.api import AirflowApi
from deploy.airflow.split import SplitAirflow
from deploy.demo_hospital.build import build_hospital
from deploy.screenshots.airflow_pages import log_in, take
from deploy.screenshots.browser import Browser, find_chromium
from deploy.servers import PostgreSQL
from deploy.site_file import write_site

DAG = "nightly_inference"
PICTURES = Path(__file__).resolve().parents[2] / "docs" / "pictures"
LONGEST, LONGEST_ALERT = 1800.0, 180.0


class Transcript:
    """Commands and what they printed, without this machine's temporary folder."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder, self._environment = folder, environment
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        """Add a line and show it."""
        shown = text.replace(str(self._folder), "/site")
        self.lines.append(shown)
        print(shown, flush=True)

    def run(self, *arguments: str) -> int:
        """Run ``nightingale`` and write down command, output and exit code."""
        self.note(f"$ nightingale {' '.join(arguments)}")
        done = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "deploy.command_line.app", *arguments],
            env={**self._environment, "COLUMNS": "110", "NO_COLOR": "1", "TERM": "dumb"},
            capture_output=True,
            text=True,
            check=False,
        )
        for line in (done.stdout + done.stderr).splitlines():
            if line.strip():
                self.note(line.rstrip())
        self.note(f"(exit code {done.returncode})")
        return done.returncode


@contextmanager
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Receive the site's alerts on loopback."""
    received: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", received
        server.shutdown()


def write_config(folder: Path, *, quarantined_share: float) -> Path:
    """Write the site's settings; the gate's threshold is what makes a night stop here."""
    return write_site(
        folder / "site.toml",
        root=folder,
        hospital=folder / "hospital",
        name="ward",
        note="Synthetic data.",
        night={"shards": 1},
        gate={"quarantined_share": quarantined_share, "quarantined_share_warning": 0.001},
        alerts={"webhook_url_env": "WARD_WEBHOOK"},
        destination={"folder": folder / "written"},
    )


def exercise(folder: Path, pictures: Path) -> list[str]:
    """Run everything and return the transcript."""
    build_hospital(folder / "hospital", patients=8, night=date(2026, 1, 19), history=False)
    config = write_config(folder, quarantined_share=0.9)
    with webhook() as (address, received), PostgreSQL() as server:
        own = {"NIGHTINGALE_CONFIG": str(config), "WARD_WEBHOOK": address, "OMP_NUM_THREADS": "1"}
        # One minute after its start a night counts as late, so that the alert is seen; no schedule of today's.
        own |= {"NIGHTINGALE_NIGHT__DEADLINE": "05:16", "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False"}
        with (
            SplitAirflow(folder / "airflow", database=server.url, overrides=own) as airflow,
            AirflowApi(airflow.base_url, user=airflow.user, password=airflow.password) as api,
        ):
            secrets = {"NIGHTINGALE_AIRFLOW_PASSWORD": airflow.password}
            told = Transcript(folder, {**os.environ, **own, **secrets})
            api.wait_for_dag(DAG, timeout=120)
            _backfill(told, api, airflow.base_url)
            report = folder / "runs" / "ward" / "2026-01-19" / "report" / "index.html"
            _pictures(told, api, airflow.base_url, report, pictures)
            _stopped_night(told, folder, airflow.base_url, received)
        told.run("health")
        told.run("withdraw", "--run", "2026-01-18", "--yes")
        told.run("forget", "--patient", _scored_patient(folder), "--scan", str(folder / "airflow"), "--yes")
    return told.lines


def _backfill(told: Transcript, api: AirflowApi, url: str) -> None:
    told.run("airflow", "backfill", "--from", "2026-01-17", "--to", "2026-01-19", "--url", url)
    for run in sorted(api.runs(DAG), key=lambda item: str(item["partition_key"])):
        state = api.wait(DAG, run["dag_run_id"], timeout=LONGEST)
        told.note(f"{run['partition_key']}: {run['run_type']} run: {state}")


def _pictures(told: Transcript, api: AirflowApi, url: str, report: Path, pictures: Path) -> None:
    if not find_chromium():
        told.note("no Chromium: no pictures")
        return
    run = api.runs(DAG)[-1]
    with Browser() as browser:
        log_in(browser, api, url)
        taken = take(browser, url, dag_id=DAG, run_id=run["dag_run_id"], folder=pictures)
        browser.open(report.as_uri(), until="document.body.innerText.includes('Gate')")
        taken.append(browser.picture(pictures / "report.png"))
    for path in taken:
        told.note(f"picture: {path.name}")


def _stopped_night(told: Transcript, folder: Path, url: str, received: list[dict[str, Any]]) -> None:
    write_config(folder, quarantined_share=0.002)
    told.run("airflow", "trigger", "--night", "2026-01-16", "--url", url)
    summary = json.loads((folder / "runs" / "ward" / "2026-01-16" / "summary.json").read_text("utf-8"))
    told.note(f"gate: {summary['gate']['decision']}: {summary['gate']['reasons'][0]}")
    told.run("report", "--run", "2026-01-16")
    write_config(folder, quarantined_share=0.9)
    end = time.monotonic() + LONGEST_ALERT  # the dag-processor sends it, in its own time
    while not _told_of_failure(received) and time.monotonic() < end:
        time.sleep(1)
    for message in received:
        told.note(f"webhook received: {json.dumps({k: v for k, v in message.items() if k != 'link'})}")


def _told_of_failure(received: list[dict[str, Any]]) -> bool:
    return any(item["event"] == "run_failed" and item["run_id"].startswith("manual") for item in received)


def _scored_patient(folder: Path) -> str:
    import polars as pl

    scores = pl.read_parquet(folder / "runs" / "ward" / "2026-01-19" / "scores" / "*.parquet")
    return str(scores["patient_ref"][0]).removeprefix("Patient/")


def main(
    out: Annotated[Path, typer.Option(help="File of the transcript.")] = Path("var/exercise.txt"),
    pictures: Annotated[Path, typer.Option(help="Folder of the pictures.")] = PICTURES,
) -> None:
    """Exercise the runbook and write down what was seen."""
    with tempfile.TemporaryDirectory(prefix="nightingale-exercise-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL's own user must reach its folder
        lines = exercise(Path(folder), pictures)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
