"""Build the demo hospital, train a model on its history, and run one night through Airflow."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import httpx

from deploy.demo.servers import DemoServers, demo_servers, require_servers
from deploy.demo.training import HISTORY_STAYS, SYNTHETIC, held_out, trained_model
from deploy.demo_hospital import build_hospital
from deploy.errors import NightFailed
from deploy.night.accounts import read_json
from deploy.night.closing import failures
from deploy.night.run import Run
from deploy.night.watched import run_night_dag
from deploy.settings import load_settings
from deploy.site_file import write_site

NIGHT = date(2026, 1, 19)
PATIENTS = 72
SEED = 20260115
Fhir = Literal["folder", "hapi"]
Watcher = Callable[[str, int, int | None], None]


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo did.

    Attributes
    ----------
    run, summary
        The night.
    config
        Settings file of the demo site.
    model, trained, model_metrics
        Model folder, whether it was trained now, its metrics on held-out patients of the history.
    failures
        Why the night is not in order; empty when it is.
    fhir_base, at_server
        Address of the real FHIR server, and RiskAssessments of this night found there by search.
    """

    run: Run
    summary: dict[str, Any]
    config: Path
    model: Path
    trained: bool
    model_metrics: dict[str, Any]
    failures: list[str]
    fhir_base: str | None
    at_server: int | None


def run_demo(
    root: Path,
    *,
    fhir: Fhir,
    watch: Watcher,
    say: Callable[[str], None],
    patients: int = PATIENTS,
    seed: int = SEED,
    history_stays: int = HISTORY_STAYS,
    faults: bool | Literal["flood"] = True,
) -> DemoResult:
    """Run the demo below a folder; what a former run left complete is used again.

    Parameters
    ----------
    fhir
        ``folder`` reads NDJSON and writes NDJSON; ``hapi`` reads from and writes to real servers.
    patients, seed, history_stays, faults
        Of the hospital: stays of tonight, seed, finished stays to learn from, broken input.
    watch, say
        Progress, and words about slow first steps.

    Raises
    ------
    PrerequisiteError
        If a program that ``hapi`` needs is missing.
    NightFailed
        If the night left no summary at all.
    """
    root = root.resolve()
    if fhir == "hapi":
        require_servers()
    hospital = root / ("tonight" if faults is True else f"tonight-{faults}".lower())
    if not (hospital / "hospital.json").is_file():
        shutil.rmtree(hospital, ignore_errors=True)
        build_hospital(
            hospital,
            patients=patients,
            seed=seed,
            night=NIGHT,
            history=False,
            faults=faults,
            progress=lambda done, total: watch("build hospital", done, total),
        )
    model, trained = trained_model(root, night=NIGHT, seed=seed, watch=watch, stays=history_stays)
    servers: AbstractContextManager[DemoServers | None] = nullcontext(None)
    if fhir == "hapi":
        servers = demo_servers(hospital, watch=watch, say=say)
    with servers as running:
        sections: dict[str, dict[str, Any]] = {"night": {"model": model.resolve()}}
        config = write_site(
            root / f"site-{fhir}.toml",
            root=root,
            hospital=hospital,
            name=f"demo-{fhir}",
            note=SYNTHETIC,
            **(sections | (running.sections if running else {})),
        )
        settings = load_settings(config)
        run, _ = run_night_dag(
            settings, config, root / "airflow", night=NIGHT.isoformat(), replay=None, watch=watch
        )
        summary = read_json(run.path / "summary.json")
        if not summary:
            raise NightFailed(f"the night left no summary; see {root / 'airflow' / 'logs'}")
        return DemoResult(
            run=run,
            summary=summary,
            config=config,
            model=model,
            trained=trained,
            model_metrics=held_out(model),
            failures=failures(run, summary),
            fhir_base=running.fhir_base if running else None,
            at_server=count_at_server(running.fhir_base, run.partition) if running else None,
        )


def count_at_server(base_url: str, partition: str) -> int:
    """Return how many RiskAssessments with the run's tag a FHIR server finds."""
    answer = httpx.get(
        f"{base_url}/RiskAssessment",
        params={"_tag": partition, "_summary": "count"},
        headers={"Cache-Control": "no-cache"},
        timeout=60,
    )
    answer.raise_for_status()
    return int(answer.json()["total"])
