"""The same night against a real HAPI FHIR JPA server and a real Orthanc."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest

from deploy.demo.run import DemoResult
from deploy.servers.prerequisites import java, maven, orthanc

pytestmark = [pytest.mark.airflow, pytest.mark.hapi, pytest.mark.orthanc, pytest.mark.slow]


def probabilities(result: DemoResult) -> dict[str, float]:
    frames = [pl.read_parquet(path) for path in sorted(result.run.path.glob("scores/*.parquet"))]
    return dict(pl.concat(frames).select("encounter_id", "probability").iter_rows())


@pytest.mark.skipif(
    not all(item.found for item in (java(), maven(), orthanc())),
    reason="needs JDK 17, Maven and Orthanc; `nightingale doctor` says how to get them",
)
def test_real_servers_give_the_same_scores_and_hold_each_once(
    first_night: DemoResult, run_night: Callable[..., DemoResult]
) -> None:
    result = run_night("hapi")
    assert result.failures == []
    counts = result.summary["counts"]
    assert result.at_server == counts["confirmed"] == counts["scored"] > 15
    assert result.summary["write_back"]["reconciliation"]["held"] == counts["scored"]
    assert probabilities(result) == probabilities(first_night)
