"""The ``nightingale`` command: every part of the project from one place."""

from __future__ import annotations

import importlib
import os
import sys

import typer
from rich.console import Console

from deploy.metrics.logs import configure as configure_logs

MODULES = (
    "demo",
    "night",
    "report",
    "doctor",
    "init",
    "withdraw",
    "forget",
    "health",
    "training",
    "retrain",
    "evaluation",
    "monitor",
    "mapping",
    "cohort",
    "pairing",
    "load",
)
"""Modules of this package whose commands stand at the top level."""

GROUPS = ("models", "quarantine", "airflow", "database")
"""Modules whose commands form a group of the same name."""


def build() -> typer.Typer:
    """Return the command with all its parts."""
    app = typer.Typer(
        name="nightingale",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,  # a traceback with local variables would show patients' data
        help="Nightly multimodal risk scoring: FHIR, ECG and chest X-ray in, FHIR RiskAssessments out. "
        "Decision support research software; not a medical device.",
    )
    for name in MODULES:
        app.add_typer(importlib.import_module(f"deploy.command_line.{name}").app)
    for name in GROUPS:
        app.add_typer(importlib.import_module(f"deploy.command_line.{name}").app, name=name)
    return app


def main() -> None:
    """Run the command; an error that we raise on purpose ends with its message and exit code 2, 1 for a night."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "False")
    configure_logs()
    from deploy.errors import DeployError, NightFailed
    from fhir_adapter.errors import AdapterError
    from modelling.errors import ModellingError
    from validation.errors import ValidationError

    try:
        build()()
    except (DeployError, AdapterError, ModellingError, ValidationError) as error:
        Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        sys.exit(1 if isinstance(error, NightFailed) else 2)


if __name__ == "__main__":
    main()
