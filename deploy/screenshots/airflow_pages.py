"""Pictures of Airflow's own pages: the list of DAGs, and a run's grid and graph."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from deploy.airflow.api import AirflowApi
from deploy.screenshots.browser import Browser


def log_in(browser: Browser, api: AirflowApi, base_url: str) -> None:
    """Give the browser the session of an API client; the UI keeps its token in this cookie."""
    browser.set_cookie(base_url, "_token", api.token)


def take(browser: Browser, base_url: str, *, dag_id: str, run_id: str, folder: Path) -> list[Path]:
    """Write the pictures and return their paths.

    Raises
    ------
    ServerError
        If a page does not show the DAG or its tasks.
    """
    page = f"{base_url}/dags/{dag_id}/runs/{quote(run_id, safe='')}"
    named = f"document.body.innerText.includes('{dag_id}')"
    browser.open(f"{base_url}/dags", until=named)
    pictures = [browser.picture(folder / "airflow_dags.png")]
    browser.open(page, until="document.body.innerText.includes('settle')")
    pictures.append(browser.picture(folder / "airflow_run.png"))
    return pictures
