"""How fast scores reach a real HAPI server: batch Bundles beside one PUT each, in the same run.

Run: ``.venv/bin/python tests/benchmark/bench_write_back.py [--scores 1000] [--rounds 3]``

Both ways go through the same ledger, checks and reconciliation, so the difference is the Bundle. Rounds
alternate; every round is a new site on the emptied server. Printed: median scores a second of each way,
of all rounds, their ratio, and the time of a second run of the same night, which sends nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "fhir_adapter"))

from ward_scores import CARD, NIGHT, score, scores

from deploy.servers.hapi import HapiServer
from fhir_adapter.store import Ledger
from fhir_adapter.transport import Transport
from fhir_adapter.write_back import FhirServer, build_resources, deliver

WAYS = {"batch of 100": 100, "one PUT each": 1}


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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scores", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    resources = build_resources(
        scores(*(score(number, basis=[]) for number in range(options.scores))),
        card=CARD,
        site="ward",
        site_uri="https://ward.example",
        partition=NIGHT,
    )
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    again: list[float] = []
    with HapiServer() as hapi, Transport(hapi.base_url) as http, tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds + 1):
            for way, size in WAYS.items():
                hapi.empty()
                ward(http, options.scores)
                ledger = Ledger.open(f"sqlite:///{folder}/{number}-{size}.sqlite")
                seconds = []
                for expected in ("written", "unchanged"):
                    server = FhirServer(http, strategy="put", bundle_size=size)
                    start = time.perf_counter()
                    summary = deliver(resources, ledger=ledger, destination=server, partition=NIGHT)
                    seconds.append(time.perf_counter() - start)
                    if getattr(summary, expected) != options.scores or not summary.complete:
                        raise SystemExit(f"the night was not written: {summary.to_dict()}")
                ledger.close()
                if number:  # the first round warms the server
                    rates[way].append(options.scores / seconds[0])
                    again.append(seconds[1])
    print(f"{options.scores} scores with Device, model card and Provenance, HAPI JPA on H2, SQLite ledger")
    for way, found in rates.items():
        print(
            f"{way:<14} {statistics.median(found):8.0f} scores/s   rounds: {', '.join(f'{x:.0f}' for x in found)}"
        )
    ratio = statistics.median(rates["batch of 100"]) / statistics.median(rates["one PUT each"])
    print(f"ratio          {ratio:8.2f}")
    print(f"the same night again: {statistics.median(again):.2f} s, nothing sent")


if __name__ == "__main__":
    main()
