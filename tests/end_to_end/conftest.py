"""One demo hospital, one trained model and one night for every test of this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.demo.run import DemoResult, run_demo

STAYS = 160
PATIENTS = 36


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="session")
def run_night(demo_root: Path) -> Callable[..., DemoResult]:
    """Run the demo's night through Airflow's own ``dag.test()``; hospital and model are made once."""

    def run(fhir: str = "folder", **options: object) -> DemoResult:
        return run_demo(
            demo_root,
            fhir=fhir,  # type: ignore[arg-type]
            watch=lambda stage, done, total: None,
            say=lambda text: None,
            patients=PATIENTS,
            history_stays=STAYS,
            **options,  # type: ignore[arg-type]
        )

    return run


@pytest.fixture(scope="session")
def first_night(run_night: Callable[..., DemoResult]) -> DemoResult:
    return run_night()
