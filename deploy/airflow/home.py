"""The embedded Airflow: a folder, SQLite, and settings that all come from the environment."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from deploy.errors import ServerError

DAGS = Path(__file__).resolve().parents[2] / "dags"
POOLS = {"gpu": (1, "Scoring and training, one slot a GPU")}


def environment(home: Path, overrides: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of an embedded Airflow whose files lie in ``home``; ``overrides`` win."""
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
        **(overrides or {}),
    }


def prepare(home: Path, overrides: Mapping[str, str] | None = None) -> dict[str, str]:
    """Create or migrate the metadata database and the pools; return the environment to run with.

    Parameters
    ----------
    overrides
        Airflow settings that differ from the embedded ones, such as another database.

    Raises
    ------
    ServerError
        With the end of Airflow's own output when the migration fails.
    """
    home = home.resolve()  # Airflow takes no relative path to a database
    home.mkdir(parents=True, exist_ok=True)
    variables = environment(home, overrides)
    marker = home / ".migrated"
    state = f"{_airflow_version()} {_fingerprint(variables)}"
    if marker.is_file() and marker.read_text("utf-8") == state:
        return variables
    migrate(variables)
    marker.write_text(state, "utf-8")
    return variables


def migrate(variables: Mapping[str, str]) -> None:
    """Bring Airflow's database of an environment up to date, and make the pools that the DAGs name.

    A pool that exists keeps the site's own number of slots.

    Raises
    ------
    ServerError
        With the end of Airflow's own output.
    """
    _run(["airflow", "db", "migrate"], variables)
    _run(["deploy.airflow.pools"], variables)


def _fingerprint(variables: Mapping[str, str]) -> str:
    """Return what tells one metadata database and set of pools from another, without its password."""
    named = f"{variables['AIRFLOW__DATABASE__SQL_ALCHEMY_CONN']} {POOLS}"
    return hashlib.sha256(named.encode()).hexdigest()[:16]


def _airflow_version() -> str:
    from importlib.metadata import version

    return version("apache-airflow")


def _run(module: list[str], variables: Mapping[str, str]) -> None:
    finished = subprocess.run(  # noqa: S603 - our own interpreter and fixed arguments
        [sys.executable, "-m", *module],
        env=dict(variables),
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise ServerError(f"{' '.join(module)} failed:\n{finished.stderr[-2000:]}")
