"""``nightingale airflow``: the processes of a hospital's Airflow, and runs started through its REST API."""

from __future__ import annotations

import os
import signal
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(
    no_args_is_help=True, help="Start Airflow's processes; start and backfill nights by its REST API."
)
console = Console()
DAG = "nightly_inference"
UrlOption = Annotated[str, typer.Option("--url", help="Address of the api-server.")]
UserOption = Annotated[str, typer.Option("--user", help="User of the REST API.")]
PasswordOption = Annotated[
    str, typer.Option("--password-env", help="Environment variable with that user's password.")
]


def _password(variable: str) -> str:
    from deploy.errors import SettingsError

    value = os.environ.get(variable)
    if not value:
        raise SettingsError(f"the environment variable {variable} is empty; it must hold the password")
    return value


@app.command("prepare")
def prepare_command() -> None:
    """Migrate the metadata database that the environment names, and make the pools of the DAGs.

    Example: AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=postgresql+psycopg://… nightingale airflow prepare
    """
    from deploy.airflow.home import migrate

    migrate(os.environ)
    console.print("Airflow's database is up to date and the pools are there.")


@app.command("start")
def start_command(
    config: Annotated[Path, typer.Option(help="Settings file of the site.")],
    database: Annotated[
        str | None,
        typer.Option(help="URL of Airflow's PostgreSQL; unset, a throw-away server is started too."),
    ] = None,
    home: Annotated[Path, typer.Option(help="Folder of Airflow's logs.")] = Path("var/airflow"),
    port: Annotated[int, typer.Option(help="Port of UI and REST API on loopback.")] = 8080,
) -> None:
    """Run api-server, scheduler, dag-processor and triggerer until Ctrl-C; ends exactly what it started.

    Example: nightingale airflow start --config site.toml
    """
    from contextlib import ExitStack

    from deploy.airflow.split import SplitAirflow
    from deploy.servers import PostgreSQL
    from deploy.settings import CONFIG_VARIABLE, load_settings

    load_settings(config)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with ExitStack() as stack:
        url = database or stack.enter_context(PostgreSQL()).url
        overrides = {CONFIG_VARIABLE: str(config.resolve())}
        airflow = stack.enter_context(
            SplitAirflow(home.resolve(), database=url, port=port, overrides=overrides)
        )
        console.print(f"Airflow runs at {airflow.base_url}; user {airflow.user}, the password lies in")
        console.print(
            f"{home.resolve() / 'passwords.json'} (readable by you only). Ctrl-C ends it.", soft_wrap=True
        )
        stop.wait()


@app.command("trigger")
def trigger_command(
    night: Annotated[str | None, typer.Option(help="Night to run, such as 2026-01-19.")] = None,
    replay: Annotated[str | None, typer.Option(help="Replay clock, such as icu+48h.")] = None,
    url: UrlOption = "http://127.0.0.1:8080",
    user: UserOption = "nightingale",
    password_env: PasswordOption = "NIGHTINGALE_AIRFLOW_PASSWORD",  # noqa: S107 - a variable's name
    timeout: Annotated[int, typer.Option(help="Seconds to wait for the end.")] = 21_600,
) -> None:
    """Start a night through the REST API and wait for its end; exit code 1 when it failed.

    Example: nightingale airflow trigger --night 2026-01-19
    """
    from deploy.airflow.api import AirflowApi

    with AirflowApi(url, user=user, password=_password(password_env)) as api:
        api.wait_for_dag(DAG)
        api.unpause(DAG)
        run = api.trigger(DAG, {"night": night, "replay": replay})
        state = api.wait(DAG, run, timeout=timeout)
        console.print(f"{run}: {state}")
        for task, outcome in sorted(api.tasks(DAG, run).items()):
            if outcome not in {"success", "skipped"}:
                console.print(f"  {task}: {outcome}")
    raise typer.Exit(0 if state == "success" else 1)


@app.command("backfill")
def backfill_command(
    first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First night.")],
    last: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="Last night.")],
    again: Annotated[bool, typer.Option("--again", help="Run nights again that succeeded before.")] = False,
    url: UrlOption = "http://127.0.0.1:8080",
    user: UserOption = "nightingale",
    password_env: PasswordOption = "NIGHTINGALE_AIRFLOW_PASSWORD",  # noqa: S107 - a variable's name
) -> None:
    """Run past nights one after another; each writes its own scores and none of a later night.

    Example: nightingale airflow backfill --from 2026-01-17 --to 2026-01-19
    """
    from deploy.airflow.api import AirflowApi

    with AirflowApi(url, user=user, password=_password(password_env)) as api:
        api.unpause(DAG)
        # The range is one of instants; a night's run lies within its own day of the site's zone.
        start, end = first.replace(tzinfo=UTC), last.replace(tzinfo=UTC) + timedelta(days=1)
        number = api.backfill(DAG, start, end, again=again)
        console.print(f"Backfill {number} is under way; {url}/dags/{DAG}/backfills shows it.")
