"""One million synthetic Observations through the adapter, beside the per-resource fhir.resources loop.

Run it on a quiet machine::

    python tests/benchmark/bench_observations.py --resources 1000000 --json var/benchmarks/observations.json

The adapter's side is :func:`fhir_adapter.extract.extract_part` with all that it does in a night: line
numbers, both paths, duplicates and versions, contract check, shards on disk, digests. The loop's side parses
and validates each line with ``fhir.resources.R4B`` and keeps the same columns; it is timed on a sample.
The tenfold comparison runs each size in a process of its own and reads its peak resident memory.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PATIENTS = 500
VITALS = (
    ("8867-4", "Heart rate", "/min", "/min", 60, 120),
    ("9279-1", "Respiratory rate", "breaths/minute", "/min", 10, 30),
    ("8310-5", "Body temperature", "Cel", "Cel", 35, 40),
    ("59408-5", "Oxygen saturation in Arterial blood by Pulse oximetry", "%", "%", 85, 100),
    ("2345-7", "Glucose [Mass/volume] in Serum or Plasma", "mg/dL", "mg/dL", 60, 300),
    ("2160-0", "Creatinine [Mass/volume] in Serum or Plasma", "mg/dL", "mg/dL", 0, 5),
)


def synthetic_lines(count: int, seed: int = 0) -> Any:
    """Yield Observation lines: vital signs and laboratory values, one in ten a blood pressure panel."""
    draw = random.Random(seed)
    for number in range(count):
        patient = draw.randrange(PATIENTS)
        day, hour, minute = 1 + draw.randrange(28), draw.randrange(24), draw.randrange(60)
        moment = f"2026-01-{day:02d}T{hour:02d}:{minute:02d}:00+01:00"
        resource_: dict[str, Any] = {
            "resourceType": "Observation",
            "id": f"obs-{seed}-{number}",
            "meta": {"versionId": "1", "lastUpdated": "2026-02-01T00:00:00.000+01:00"},
            "status": "final",
            "category": [
                {
                    "coding": [
                        {
                            "system": "http://terminology.hl7.org/CodeSystem/observation-category",
                            "code": "vital-signs",
                            "display": "Vital Signs",
                        }
                    ]
                }
            ],
            "subject": {"reference": f"Patient/p{patient}"},
            "encounter": {"reference": f"Encounter/e{patient}"},
            "effectiveDateTime": moment,
            "issued": moment,
        }
        if number % 10 == 0:
            resource_["code"] = _code("85354-9", "Blood pressure panel with all children optional")
            resource_["component"] = [
                {
                    "code": _code(code, name),
                    "valueQuantity": _quantity(draw.randint(low, high), "mmHg", "mm[Hg]"),
                }
                for code, name, low, high in (
                    ("8480-6", "Systolic blood pressure", 90, 180),
                    ("8462-4", "Diastolic blood pressure", 40, 110),
                )
            ]
        else:
            code, name, unit, ucum, low, high = VITALS[draw.randrange(len(VITALS))]
            resource_["code"] = _code(code, name)
            resource_["valueQuantity"] = _quantity(round(draw.uniform(low, high), 1), unit, ucum)
        yield json.dumps(resource_, separators=(",", ":"))


def _code(code: str, display: str) -> dict[str, Any]:
    return {"coding": [{"system": "http://loinc.org", "code": code, "display": display}], "text": display}


def _quantity(value: float, unit: str, code: str) -> dict[str, Any]:
    return {"value": value, "unit": unit, "system": "http://unitsofmeasure.org", "code": code}


def write_lines(path: Path, count: int) -> None:
    """Write synthetic lines to a file, which is there whole or not at all."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        for line in synthetic_lines(count):
            file.write(line + "\n")
    temporary.replace(path)


def run_adapter(path: Path) -> dict[str, float]:
    """Extract the file; return rate, processor seconds and peak memory of this process."""
    import polars as pl

    from fhir_adapter.extract import extract_part
    from fhir_adapter.sources import Part

    subjects = pl.DataFrame({"patient_id": [f"p{n}" for n in range(PATIENTS)], "subject_id": range(PATIENTS)})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        start, processor = time.perf_counter(), time.process_time()
        summary = extract_part(
            Part("bench", "Observation", {"file": path.name}),
            path,
            census_subjects=subjects,
            run_folder=Path(folder),
            n_shards=4,
        )
        seconds, processor = time.perf_counter() - start, time.process_time() - processor
    assert summary.pulled == summary.accepted + summary.quarantined
    return {
        "resources": summary.pulled,
        "rows": summary.rows["observations"],
        "seconds": seconds,
        "processor_seconds": processor,
        "per_second": summary.pulled / seconds,
        "exact_lines": summary.exact_lines,
        "start_mb": before / 1024,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def run_loop(path: Path, sample: int) -> dict[str, float]:
    """Validate the first lines one by one with fhir.resources and keep the same columns."""
    import polars as pl
    from fhir.resources.R4B.observation import Observation

    rows = []
    start, processor = time.perf_counter(), time.process_time()
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if number == sample:
                break
            item = Observation.model_validate_json(line)
            for component, part in enumerate([item, *(item.component or [])]):
                quantity = part.valueQuantity
                if quantity is None:
                    continue
                rows.append(
                    (
                        item.subject.reference,
                        item.encounter.reference,
                        item.effectiveDateTime,
                        item.issued,
                        [f"{coding.system}|{coding.code}" for coding in part.code.coding],
                        float(quantity.value),
                        quantity.comparator,
                        quantity.system,
                        quantity.code,
                        quantity.unit,
                        item.status,
                        item.id,
                        component,
                    )
                )
    frame = pl.DataFrame(rows, orient="row", infer_schema_length=None)
    with tempfile.TemporaryDirectory() as folder:
        frame.write_parquet(Path(folder) / "rows.parquet")
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    return {
        "resources": sample,
        "rows": frame.height,
        "seconds": seconds,
        "processor_seconds": processor,
        "per_second": sample / seconds,
    }


def main() -> None:
    """Print the table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resources", type=int, default=1_000_000)
    parser.add_argument("--sample", type=int, default=20_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--files", type=Path, help="folder for the synthetic files; what is there is used again"
    )
    parser.add_argument("--adapter-only", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.adapter_only:
        print(json.dumps(run_adapter(options.adapter_only)))
        return
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, count in (("tenth", options.resources // 10), ("full", options.resources)):
            path = (options.files or Path(folder)) / f"observations-{count}.ndjson"
            if not path.is_file():
                write_lines(path, count)
            done = subprocess.run(
                [sys.executable, __file__, "--adapter-only", str(path)],
                check=True,
                capture_output=True,
                text=True,
            )
            figures[name] = json.loads(done.stdout) | {"megabytes": path.stat().st_size / 1e6}
        figures["loop"] = run_loop(path, min(options.sample, options.resources))
    full, tenth, loop = figures["full"], figures["tenth"], figures["loop"]
    figures["times_faster"] = full["per_second"] / loop["per_second"]
    figures["times_less_processor"] = (loop["processor_seconds"] / loop["resources"]) / (
        full["processor_seconds"] / full["resources"]
    )
    figures["memory_growth"] = full["peak_mb"] / tenth["peak_mb"]
    for run in (full, tenth):
        rate, peak = run["per_second"], run["peak_mb"]
        print(f"adapter  {run['resources']:>9,} resources {rate:>10,.0f}/s  peak {peak:,.0f} MB")
    print(f"loop     {loop['resources']:>9,} resources {loop['per_second']:>10,.0f}/s")
    print(f"{figures['times_faster']:.1f} times faster by the clock, ", end="")
    print(f"{figures['times_less_processor']:.1f} by processor time")
    print(f"memory grows {figures['memory_growth']:.2f}-fold when the input grows tenfold")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
