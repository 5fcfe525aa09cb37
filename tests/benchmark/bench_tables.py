"""Ways of :mod:`bench` that turn resources and rows into tables; they reuse the single benchmarks beside them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import bench_map
import bench_observations
import bench_validation
import polars as pl

RESOURCES, SAMPLE = 100_000, 2_000
EVENTS = 250_000
Work = Callable[[], int]


def fhir_ours(work: Path) -> Work:
    """Extract and map: FHIR NDJSON to events of the catalogue."""
    from fhir_adapter.extract import extract_part
    from fhir_adapter.sources import Part
    from modelling.catalogue import load_catalogue
    from modelling.mapping import map_observations

    path = work / "observations.ndjson"
    bench_observations.write_lines(path, RESOURCES)
    catalogue = load_catalogue()
    patients = range(bench_observations.PATIENTS)
    subjects = pl.DataFrame({"patient_id": [f"p{n}" for n in patients], "subject_id": patients})

    def run() -> int:
        folder = work / "run"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        summary = extract_part(
            Part("bench", "Observation", {"file": path.name}),
            path,
            census_subjects=subjects,
            run_folder=folder,
            n_shards=1,
        )
        observations = pl.concat([pl.read_parquet(p) for p in folder.rglob("observations-*.parquet")])
        events = map_observations(observations, catalogue).events
        assert summary.pulled == RESOURCES and events.height >= RESOURCES
        return summary.pulled

    return run


def fhir_one_by_one(work: Path) -> Work:
    """Parse and validate each resource with fhir.resources; keep the same columns, map nothing."""
    path = work / "observations.ndjson"
    bench_observations.write_lines(path, SAMPLE)
    bench_observations.run_loop(path, 10)
    return lambda: int(bench_observations.run_loop(path, SAMPLE)["resources"])


def _mimic(way: Callable[[Path, Path], int], work: Path) -> Work:
    path = work / "chartevents.csv.gz"
    rows = bench_map.write_chartevents(path, 1)

    def run() -> int:
        out = work / "out"
        shutil.rmtree(out, ignore_errors=True)
        way(path, out)
        return rows

    run()
    return run


def mimic_ours(work: Path) -> Work:
    """Map the demo's chart events to checked Parquet events."""
    return _mimic(bench_map.ours, work)


def mimic_pandas(work: Path) -> Work:
    """Map their numeric part with pandas."""
    return _mimic(bench_map.with_pandas, work)


def mimic_gzip(work: Path) -> Work:
    """Only unpack the file."""
    return _mimic(bench_map.decompress, work)


def _events(work: Path) -> Path:
    os.environ["GX_ANALYTICS_ENABLED"] = "False"
    path = work / "events.parquet"
    bench_validation.make_events(EVENTS).write_parquet(path)
    return path


def validation_ours(work: Path) -> Work:
    """Row rules, profile, and Great Expectations on the profile, as a night does."""
    from modelling.catalogue import load_catalogue
    from validation.contracts import empty
    from validation.equations import Counts
    from validation.gate import decide
    from validation.profiles import profile_night
    from validation.rules import judge_events

    path = _events(work)
    limits = load_catalogue().limits()
    encounters, samples = bench_validation.stays(pl.read_parquet(path))

    def run() -> int:
        judged = judge_events(pl.read_parquet(path), limits)
        counts = Counts(
            pulled=EVENTS,
            accepted=judged.accepted.height,
            quarantined=judged.quarantine.height,
            eligible=samples.height,
        )
        profiles = profile_night(
            events=judged.accepted,
            encounters=encounters,
            samples=samples,
            quarantine=judged.quarantine,
            recordings=empty("recordings"),
            images=empty("images"),
            counts=counts,
        )
        decide(profiles, work_folder=work / "gate")
        return EVENTS

    run()
    return run


def validation_rows(work: Path) -> Work:
    """Great Expectations on the rows, a verdict a feature."""
    path = _events(work)

    def run() -> int:
        bench_validation.run_great_expectations(path, per_feature=True)
        return EVENTS

    return run
