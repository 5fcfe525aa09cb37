"""Secrets, the database, the model and Airflow's pools."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from sqlalchemy import make_url, text
from sqlalchemy.exc import SQLAlchemyError

from deploy.airflow.home import POOLS
from deploy.doctor.check import Check, failed, ok, warning
from deploy.doctor.machine import existing
from deploy.night.connections import connection_password
from deploy.settings import Auth, Settings


def check_secrets(settings: Settings, environment: Mapping[str, str]) -> Iterable[Check]:
    """Yield whether every secret that the settings name is there, and whether key files are private."""
    sections = {
        "source": settings.source.auth,
        "images": settings.images.auth,
        "destination": settings.destination.auth,
    }
    named = 0
    for section, auth in sections.items():
        if auth.connection and auth.kind in {"basic", "bearer"}:
            named += 1
            connection_password(auth.connection, f"{section}.auth.connection")
            yield ok(f"{section}.auth", f"the Airflow connection {auth.connection} has a password")
            continue
        for field, name in _needed(auth):
            named += 1
            if not name:
                yield failed(f"{section}.auth", f"{field} is not set", f"set {section}.auth.{field}")
            elif not environment.get(name):
                yield failed(
                    f"{section}.auth",
                    f"the environment variable {name} is empty",
                    "set it in the service's environment or secrets backend, not in a file of settings",
                )
        if auth.kind == "smart":
            named += 1
            yield from _check_key(section, auth)
    if not named:
        yield ok("secrets", "none are needed")


def _needed(auth: Auth) -> list[tuple[str, str | None]]:
    if auth.kind == "basic":
        return [("password_env", auth.password_env)]
    return [("token_env", auth.token_env)] if auth.kind == "bearer" else []


def _check_key(section: str, auth: Auth) -> Iterable[Check]:
    subject, path = f"{section}.auth", auth.private_key_file
    if path is None or not path.is_file():
        yield failed(subject, "the private key file is not there", f"set {section}.auth.private_key_file")
    elif path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield warning(subject, "others may read the private key file", f"chmod 600 {path}")
    else:
        yield ok(subject, "the private key file is there and private")


def check_database(settings: Settings) -> Iterable[Check]:
    """Yield whether the ledger's database answers and has today's tables."""
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from fhir_adapter.store import open_engine
    from fhir_adapter.store.base import MIGRATIONS

    url = make_url(settings.storage.database)
    shown = url.render_as_string(hide_password=True)
    remedy = "check storage.database, its server and its role's rights"
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).is_file():
        place = existing(Path(url.database).resolve().parent)
        if os.access(place, os.W_OK):
            yield ok("database", f"{shown} will be made by the first night")
        else:
            yield failed("database", f"{place} is not writable", remedy)
        return
    engine = open_engine(settings.storage.database)
    try:
        with engine.connect() as connection:
            connection.execute(text("select 1"))
            context = MigrationContext.configure(
                connection, opts={"version_table": "nightingale_adapter_version"}
            )
            found = context.get_current_revision()
        head = ScriptDirectory(str(MIGRATIONS)).get_current_head()
        state = "up to date" if found == head else "will be migrated by the next night"
        yield ok("database", f"{shown} answers; {state}")
    except SQLAlchemyError as error:
        yield failed("database", f"{shown}: {type(error).__name__}", remedy)
    finally:
        engine.dispose()


def check_model(settings: Settings) -> Iterable[Check]:
    """Yield whether the model's files are those of its card, and whether it speaks today's catalogue."""
    from deploy.night.scoring import model_folder
    from modelling.catalogue import load_catalogue
    from modelling.errors import ModellingError
    from modelling.scoring import load_model

    folder = model_folder(settings)
    try:
        model = load_model(folder, device="cpu", catalogue_digest=load_catalogue().digest)
    except ModellingError as error:
        yield failed("model", str(error), "train again, roll back, or set night.model to another folder")
        return
    found = f"{folder.name} (digest {model.digest[:12]}, as its card says) answers {model.task}"
    if model.task == settings.night.task:
        yield ok("model", found)
    else:
        yield failed("model", found, f"set night.model to a model for {settings.night.task}")


def check_pools(environment: Mapping[str, str]) -> Iterable[Check]:
    """Yield whether Airflow's database has the pools of the DAGs; a task without its pool waits for ever."""
    if not environment.get("AIRFLOW_HOME"):
        yield ok("airflow.pools", "AIRFLOW_HOME is not set: the project's own launcher makes the pools")
        return
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "pools", "list", "--output", "json"],
        env={**environment, "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    remedy = "run `nightingale airflow prepare` with the service's environment"
    start = done.stdout.find("[")
    if done.returncode or start < 0:
        yield failed("airflow.pools", "Airflow's database does not answer or is not migrated", remedy)
        return
    found = {item["pool"]: int(item["slots"]) for item in json.loads(done.stdout[start:])}
    missing = [name for name in POOLS if name not in found]
    if missing:
        yield failed("airflow.pools", f"missing: {', '.join(missing)}", remedy)
    else:
        yield ok("airflow.pools", ", ".join(f"{name} ({found[name]} slots)" for name in POOLS))
