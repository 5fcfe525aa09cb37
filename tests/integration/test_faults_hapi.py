"""Faults before a real HAPI server: after each, HAPI holds each score once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.faults.case import play
from deploy.faults.cases import all_cases
from deploy.faults.remote import RemoteServer
from deploy.faults.site import Hospital
from deploy.faults.table import quiet
from deploy.servers.hapi import HapiServer
from deploy.servers.loading import load_hospital
from deploy.servers.prerequisites import java, maven

pytestmark = [
    pytest.mark.hapi,
    pytest.mark.slow,
    pytest.mark.skipif(not (java().found and maven().found), reason="no JDK 17 and Maven on this machine"),
]
CASES = {case.name: case for case in all_cases()}
PLAYED = (
    "batch-response of mixed statuses (200, 422, 503)",
    "answer lost after the commit",
    "half committed, then reset",
    "server gives ids itself; answer lost after the commit",
    "kill -9 between the server's commit and the ledger",
)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    return Hospital.build(tmp_path_factory.mktemp("faults") / "hospital")


@pytest.fixture(scope="module")
def hapi(hospital: Hospital) -> Iterator[RemoteServer]:
    with HapiServer() as server:
        load_hospital(hospital.folder, fhir_base=server.base_url, attachments="binary")
        remote = RemoteServer(server.base_url)
        yield remote
        remote.close()


@pytest.mark.parametrize("number", range(len(PLAYED)), ids=PLAYED)
def test_hapi_holds_each_score_once(
    number: int, hapi: RemoteServer, hospital: Hospital, tmp_path: Path
) -> None:
    case = CASES[PLAYED[number]]
    # each case is a site of its own, so that one HAPI serves them all
    wiring = replace(case.wiring, name=f"fault-ward-{number}")
    with quiet():
        result = play(replace(case, wiring=wiring), hospital, tmp_path / "site", remote=hapi)
    assert (result.problems, result.lost, result.duplicated) == ((), 0, 0)
    assert result.injected > 0
