"""The embedded Airflow: a folder, SQLite, and settings that all come from the environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from deploy.errors import ServerError

DAGS = Path(__file__).resolve().parents[2] / "dags"
POOLS = {"gpu": (1, "Scoring and training, one slot a GPU")}


def environment(home: Path) -> dict[str, str]:
    """Return the environment of an embedded Airflow whose files lie in ``home``."""
    return {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__FERNET_KEY": "",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.sqlite'}",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "GX_ANALYTICS_ENABLED": "False",
        "NO_COLOR": "1",
    }


def prepare(home: Path) -> dict[str, str]:
    """Create or migrate the metadata database and the pools; return the environment to run with.

    Raises
    ------
    ServerError
        With the end of Airflow's own output when the migration fails.
    """
    home.mkdir(parents=True, exist_ok=True)
    variables = environment(home)
    marker = home / ".migrated"
    version = _airflow_version()
    if marker.is_file() and marker.read_text("utf-8") == version:
        return variables
    _airflow(["db", "migrate"], variables)
    for name, (slots, description) in POOLS.items():
        _airflow(["pools", "set", name, str(slots), description], variables)
    marker.write_text(version, "utf-8")
    return variables


def _airflow_version() -> str:
    from importlib.metadata import version

    return version("apache-airflow")


def _airflow(arguments: list[str], variables: dict[str, str]) -> None:
    finished = subprocess.run(  # noqa: S603 - our own interpreter and fixed arguments
        [sys.executable, "-m", "airflow", *arguments],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise ServerError(f"airflow {' '.join(arguments)} failed:\n{finished.stderr[-2000:]}")
