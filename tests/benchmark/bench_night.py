"""Whole nights at growing sizes: time an encounter and peak memory, each night in a process of its own.

The load hospital stands for the demo hospital's 72 inpatients, and 10 and 100 times as many; shards grow with
the hospital, as a site would set them, so that memory is that of a shard. Run alone as
``python tests/benchmark/bench_night.py --nights 1 10``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

from bench import peak_megabytes

DEMO_PATIENTS = 72
SHARDS = 2
"""Shards of one demo hospital."""
NIGHT = "2026-01-15"
STAGES = ("census", "extract", "validate", "map", "gate", "score", "write back", "report")


def environment(root: Path, work: Path, shards: int) -> dict[str, str]:
    """Return the settings of a night over a folder hospital, written to NDJSON."""
    settings = {
        "SITE__NAME": "bench",
        "SITE__TIME_ZONE": "Europe/Berlin",
        "SOURCE__KIND": "folder",
        "SOURCE__FOLDER": root / "fhir",
        "WAVEFORMS__FOLDER": root / "wfdb",
        "IMAGES__KIND": "folder",
        "IMAGES__FOLDER": root / "dicom",
        "STORAGE__RUNS": work / "runs",
        "STORAGE__DATABASE": f"sqlite:///{work / 'night.sqlite'}",
        "DESTINATION__FOLDER": work / "written",
        "NIGHT__SHARDS": shards,
    }
    named = {f"NIGHTINGALE_{name}": str(value) for name, value in settings.items()}
    return {**os.environ, **named, "GX_ANALYTICS_ENABLED": "False"}


def child() -> None:
    """Run one night step by step; print seconds, processor seconds and peak memory by stage."""
    from deploy.night import steps

    stages: dict[str, dict[str, float]] = {}

    def timed(stage: str, step: Any, *arguments: Any) -> Any:
        wall, processor = time.perf_counter(), time.process_time()
        result = step(*arguments)
        entry = stages.setdefault(stage, {"seconds": 0.0, "processor": 0.0, "megabytes": 0.0})
        entry["seconds"] += time.perf_counter() - wall
        entry["processor"] += time.process_time() - processor
        entry["megabytes"] = peak_megabytes()
        return result

    run = steps.open_night(night=NIGHT, replay=None)
    parts = timed("census", steps.census, run)
    for part in parts:
        timed("extract", steps.extract, run, part)
    numbers = steps.shards(run)
    for stage, step in (("validate", steps.validate), ("map", steps.map_events)):
        for number in numbers:
            timed(stage, step, run, number)
    timed("gate", steps.gate, run)
    for number in numbers:
        timed("score", steps.score, run, number)
    timed("write back", steps.write_back, run)
    timed("report", steps.report, run)
    summary = steps.settle(run)
    print("\n" + json.dumps({"stages": stages, "counts": summary["counts"]}))


def night(root: Path, work: Path, shards: int) -> dict[str, Any]:
    """Run a night in a process of its own."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    finished = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), "--child"],
        env=environment(root, work, shards),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(finished.stdout.strip().splitlines()[-1])
    return found


def measure(work: Path, sizes: list[int]) -> list[dict[str, Any]]:
    """Build a hospital and run a night at every size; return one entry a size."""
    from deploy.load_hospital import build_load_hospital

    result = []
    for size in sizes:
        root = work / f"hospital-{size}"
        begun = time.perf_counter()
        built = build_load_hospital(root, patients=size * DEMO_PATIENTS, night=date.fromisoformat(NIGHT))
        building = time.perf_counter() - begun
        found = night(root, work / "night", size * SHARDS)
        shutil.rmtree(root)
        stages = found["stages"].values()
        encounters = found["counts"]["eligible"]
        result.append(
            {
                "times": size,
                "encounters": encounters,
                "observations": built.resources["Observation"],
                "building_seconds": building,
                "seconds": sum(stage["seconds"] for stage in stages),
                "processor": sum(stage["processor"] for stage in stages),
                "megabytes": max(stage["megabytes"] for stage in stages),
                **found,
            }
        )
        print(f"night at {size} x: {result[-1]['seconds']:.0f} s", file=sys.stderr, flush=True)
    return result


def rows(nights: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each larger night beside the smallest, as rows of :mod:`bench`'s table."""
    first, *larger = nights
    return [
        {
            "name": f"whole night at {entry['times']} x",
            "unit": "encounters",
            "against": f"the night at {first['times']} x",
            "ours_per_second": entry["encounters"] / entry["seconds"],
            "peer_per_second": first["encounters"] / first["seconds"],
            "times_faster": entry["encounters"] / entry["seconds"] * first["seconds"] / first["encounters"],
            "times_less_processor": first["processor"]
            / first["encounters"]
            * entry["encounters"]
            / entry["processor"],
            "ours_megabytes": entry["megabytes"],
            "peer_megabytes": first["megabytes"],
        }
        for entry in larger
    ]


def table(nights: list[dict[str, Any]]) -> str:
    """Return the nights as two Markdown tables: totals, and processor milliseconds an encounter by stage."""
    lines = [
        "| night | encounters | Observations | seconds | ms an encounter | processor ms an encounter | peak MB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for entry in nights:
        n = entry["encounters"]
        lines.append(
            f"| {entry['times']} x | {n:,} | {entry['observations']:,} | {entry['seconds']:,.1f} "
            f"| {1000 * entry['seconds'] / n:,.0f} | {1000 * entry['processor'] / n:,.0f} "
            f"| {entry['megabytes']:,.0f} |"
        )
    lines += [
        "",
        "| processor ms an encounter | " + " | ".join(STAGES) + " |",
        "| --- " * (len(STAGES) + 1) + "|",
    ]
    for entry in nights:
        cells = [
            f"{1000 * entry['stages'][stage]['processor'] / entry['encounters']:,.1f}" for stage in STAGES
        ]
        lines.append(f"| {entry['times']} x | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure nights alone and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--nights", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--work", type=Path, default=Path("var/benchmarks/nights"))
    options = parser.parse_args()
    if options.child:
        child()
        return
    nights = measure(options.work, options.nights)
    print(table(nights))
    shutil.rmtree(options.work, ignore_errors=True)


if __name__ == "__main__":
    main()
