"""A hospital's Airflow: four processes on PostgreSQL, a night started through REST, the UI in a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from deploy.airflow.api import AirflowApi
from deploy.airflow.home import POOLS
from deploy.airflow.split import SplitAirflow
from deploy.demo_hospital.build import build_hospital
from deploy.screenshots.airflow_pages import log_in, take
from deploy.screenshots.browser import Browser, find_chromium
from deploy.servers import PostgreSQL
from deploy.servers.prerequisites import postgresql

pytestmark = [pytest.mark.airflow, pytest.mark.slow]
DAG = "nightly_inference"
NIGHT = date(2026, 1, 19)


@dataclass
class Site:
    """The running Airflow, its client, and the site's folders."""

    airflow: SplitAirflow
    api: AirflowApi
    runs: Path
    ledger: str


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if not postgresql().found:
        pytest.skip("no PostgreSQL server on this machine")
    folder = tmp_path_factory.mktemp("site")
    build_hospital(folder / "hospital", patients=4, night=NIGHT, history=False)
    with PostgreSQL() as server:
        engine = create_engine(server.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text("create database nightingale"))
        engine.dispose()
        ledger = server.url.rsplit("/", 1)[0] + "/nightingale"
        config = folder / "site.toml"
        config.write_text(
            f'[source]\nfolder = "{folder / "hospital" / "fhir"}"\n'
            f'[waveforms]\nfolder = "{folder / "hospital" / "wfdb"}"\n'
            f'[images]\nkind = "folder"\nfolder = "{folder / "hospital" / "dicom"}"\n'
            f'[storage]\nruns = "{folder / "runs"}"\n[night]\nshards = 1\n'
            # Four patients with every planted fault are a worse night than any hospital has.
            "[gate]\nquarantined_share = 0.9\nquarantined_share_warning = 0.9\n",
            encoding="utf-8",
        )
        overrides = {
            "NIGHTINGALE_CONFIG": str(config),
            "NIGHTINGALE_STORAGE__DATABASE": ledger,
            "OMP_NUM_THREADS": "1",
            "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",  # else last night starts by itself, whatever day it is
        }
        with (
            SplitAirflow(folder / "airflow", database=server.url, overrides=overrides) as airflow,
            AirflowApi(airflow.base_url, user=airflow.user, password=airflow.password) as api,
        ):
            api.wait_for_dag(DAG, timeout=120)
            yield Site(airflow, api, folder / "runs" / "demo-hospital", ledger)


def test_the_four_parts_are_healthy_and_the_pools_are_there(site: Site) -> None:
    assert set(site.airflow.health().values()) == {"healthy"}
    pools = {item["name"] for item in site.api.call("GET", "/pools")["pools"]}
    assert set(POOLS) < pools


def test_a_night_started_through_rest_ends_well(site: Site) -> None:
    site.api.unpause(DAG)
    run = site.api.trigger(DAG, {"night": NIGHT.isoformat(), "replay": None})
    state = site.api.wait(DAG, run, timeout=900)
    tasks = site.api.tasks(DAG, run)
    assert state == "success", tasks
    summary = json.loads((site.runs / NIGHT.isoformat() / "summary.json").read_text("utf-8"))
    assert [equation["holds"] for equation in summary["equations"]] == [True, True, True]
    assert summary["counts"]["confirmed"] == summary["counts"]["scored"] > 0
    assert all(outcome == "success" for outcome in tasks.values())
    engine = create_engine(site.ledger)
    with engine.connect() as connection:
        states = connection.execute(text("select distinct state from ledger")).scalars().all()
    engine.dispose()
    assert states == ["confirmed"]


def test_the_ui_shows_the_night(site: Site, tmp_path: Path) -> None:
    if not find_chromium():
        pytest.skip("no Chromium on this machine")
    [run, *_] = site.api.runs(DAG)
    with Browser() as browser:
        log_in(browser, site.api, site.airflow.base_url)
        pictures = take(browser, site.airflow.base_url, dag_id=DAG, run_id=run["dag_run_id"], folder=tmp_path)
    assert all(path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 20_000 for path in pictures)


def test_a_backfilled_night_leaves_the_later_one_alone(site: Site) -> None:
    def state_of_the_later_night() -> list[tuple[object, ...]]:
        engine = create_engine(site.ledger)
        question = text(
            "select resource_id, payload_hash, updated from ledger where partition = :night order by 1"
        )
        with engine.connect() as connection:
            rows = [tuple(row) for row in connection.execute(question, {"night": NIGHT.isoformat()})]
        engine.dispose()
        return rows

    before = state_of_the_later_night()
    summary = (site.runs / NIGHT.isoformat() / "summary.json").read_bytes()
    site.api.backfill(DAG, datetime(2026, 1, 18, tzinfo=UTC), datetime(2026, 1, 19, tzinfo=UTC))
    found = [item for item in site.api.runs(DAG) if item["run_type"] == "backfill"]
    assert [item["partition_key"] for item in found] == ["2026-01-18"]
    assert site.api.wait(DAG, found[0]["dag_run_id"], timeout=900) == "success"
    earlier = json.loads((site.runs / "2026-01-18" / "run.json").read_text("utf-8"))
    assert earlier["prediction_time"] == "2026-01-18T04:00:00+00:00"
    assert before and state_of_the_later_night() == before
    assert (site.runs / NIGHT.isoformat() / "summary.json").read_bytes() == summary
