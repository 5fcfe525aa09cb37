"""Ways of :mod:`bench` that write scores to a real HAPI server: batch Bundles, and one PUT each.

Both go through the same ledger, checks and reconciliation, so the difference is the Bundle. Each way has a
server of its own; every repetition writes the scores of another night of the same ward with a new ledger. Run
alone as ``python tests/benchmark/bench.py --only write-back``.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import date, timedelta
from itertools import count
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "fhir_adapter"))

from ward_scores import CARD, NIGHT, score, scores

from deploy.servers.hapi import HapiServer
from fhir_adapter.store import Ledger
from fhir_adapter.transport import Transport
from fhir_adapter.write_back import FhirServer, build_resources, deliver

Work = Callable[[], int]
SCORES = 500


def ward(http: Transport, n: int) -> None:
    """Put the patients and encounters that the scores speak of on the server."""
    for start in range(0, n, 100):
        found = []
        for number in range(start, min(n, start + 100)):
            encounter = {
                "resourceType": "Encounter",
                "id": f"e{number}",
                "status": "in-progress",
                "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
                "subject": {"reference": f"Patient/p{number}"},
            }
            found += [{"resourceType": "Patient", "id": f"p{number}"}, encounter]
        entries = [
            {"resource": item, "request": {"method": "PUT", "url": f"{item['resourceType']}/{item['id']}"}}
            for item in found
        ]
        http.request("POST", "", json={"resourceType": "Bundle", "type": "transaction", "entry": entries})


def _written(work: Path, bundle_size: int) -> Work:
    stack = ExitStack()
    atexit.register(stack.close)
    hapi = stack.enter_context(HapiServer())
    http = stack.enter_context(Transport(hapi.base_url))
    ward(http, SCORES)
    nights = count()

    def run() -> int:
        night = next(nights)
        partition = str(date.fromisoformat(NIGHT) + timedelta(days=night))
        keys = [str(uuid5(NAMESPACE_URL, f"night {night} score {number}")) for number in range(SCORES)]
        rows = [score(number, score_key=key, basis=[]) for number, key in enumerate(keys)]
        resources = build_resources(
            scores(*rows), card=CARD, site="ward", site_uri="https://ward.example", partition=partition
        )
        ledger = Ledger.open(f"sqlite:///{work / f'{night}.sqlite'}")
        server = FhirServer(http, strategy="put", bundle_size=bundle_size)
        summary = deliver(resources, ledger=ledger, destination=server, partition=partition)
        ledger.close()
        if summary.written != SCORES or not summary.complete:
            raise RuntimeError(f"the night was not written: {summary.to_dict()}")
        return SCORES

    run()  # warms the server
    return run


def batches(work: Path) -> Work:
    """Batch Bundles of 100 scores with Provenance."""
    return _written(work, 100)


def one_by_one(work: Path) -> Work:
    """One request for each resource."""
    return _written(work, 1)
