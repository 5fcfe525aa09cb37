"""Build a load hospital on disk: batch after batch of patients, each from its own seed, by several processes."""

from __future__ import annotations

import gzip
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, time
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from deploy.demo_hospital.faults import dump
from deploy.demo_hospital.resources import organisations
from deploy.errors import DeployError
from deploy.load_hospital.charts import BATCH, Patients, draw_patients
from deploy.load_hospital.pool import Pool, build_pool
from deploy.load_hospital.resources import documents, encounters, observations, patients, studies
from validation.contracts import write_json

Progress = Callable[[int, int], None]

NOTE = """# Synthetic test data

Everything in this folder was made by `deploy.load_hospital` of Nightingale from seed {seed}: {patients}
inpatients at {moment}. It describes no person and no hospital, and scores of it mean nothing. ECGs and
radiographs come from a pool of {pool} each, which many patients share. Every resource carries the security
label HTEST ("test health data").
"""


@dataclass
class LoadSummary:
    """What was built: patients, bytes of NDJSON, lines by resource type."""

    folder: str
    prediction_time: str
    patients: int = 0
    bytes: int = 0
    resources: dict[str, int] = field(default_factory=dict)

    def add(self, other: dict[str, Any]) -> None:
        """Add one batch's counts."""
        self.patients += other["patients"]
        self.bytes += other["bytes"]
        for kind, count in other["resources"].items():
            self.resources[kind] = self.resources.get(kind, 0) + count


def _open(path: Path, *, compress: bool) -> BinaryIO:
    if compress:
        # No time stamp in the header: the same seed gives the same bytes.
        return gzip.GzipFile(path.with_name(f"{path.name}.gz"), "wb", compresslevel=1, mtime=0)  # type: ignore[return-value]
    return path.open("wb")


def write_batch(
    number: int, folder: Path, *, total: int, seed: int, moment: datetime, pool: Pool, compress: bool
) -> dict[str, Any]:
    """Write the files of one batch; return its counts."""
    first = number * BATCH + 1
    count = min(BATCH, total - number * BATCH)
    drawn: Patients = draw_patients(
        np.random.default_rng([seed, 4, number]), first=first, count=count, prediction_time=moment
    )
    counts: dict[str, int] = {}
    size = 0
    for kind, blocks in (
        ("Patient", patients(drawn)),
        ("Encounter", encounters(drawn)),
        ("Observation", observations(drawn, seed=seed, batch=number)),
        ("DocumentReference", documents(drawn, pool, seed=seed, batch=number)),
        ("ImagingStudy", studies(drawn, pool, folder.parent / "dicom", seed=seed, batch=number)),
    ):
        with _open(folder / f"{kind}.{number + 1:05d}.ndjson", compress=compress) as file:
            for block in blocks:
                # One column without quotes, so that the writer copies the lines as they are.
                content = pl.DataFrame({"line": block}).write_csv(include_header=False, quote_style="never")
                file.write(content.encode())
                counts[kind] = counts.get(kind, 0) + len(block)
                size += len(content)
    return {"patients": count, "bytes": size, "resources": counts}


def build_load_hospital(
    folder: Path,
    *,
    patients: int = 100_000,
    night: date,
    seed: int = 20260115,
    pool: int = 64,
    compress: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
    time_zone: str = "Europe/Berlin",
    prediction_at: time = time(5, 0),
) -> LoadSummary:
    """Build a very large synthetic hospital below ``folder``.

    Parameters
    ----------
    folder
        Target; must be empty or absent.
    patients
        Inpatients at prediction time, about 1,000 Observations (650 bytes each) a patient.
    night
        Date of the prediction time.
    seed
        The same seed gives the same bytes, whatever ``workers``; a patient does not change with their number.
    pool
        ECGs and radiographs that the resources refer to.
    compress
        Write ``.ndjson.gz``: about a tenth of the disk, three times the time.
    workers
        Processes; None takes one a core. Each holds one batch of 250 patients.
    progress
        ``(patients done, patients)``.

    Raises
    ------
    DeployError
        If the folder is not empty or a number is not positive.
    """
    if patients < 1 or pool < 1:
        raise DeployError("a load hospital needs at least one patient and a pool of at least one ECG")
    if folder.is_dir() and any(folder.iterdir()):
        raise DeployError(f"{folder} is not empty; remove it or choose another folder for the load hospital")
    moment = datetime.combine(night, prediction_at, tzinfo=ZoneInfo(time_zone))
    source = folder / "fhir"
    source.mkdir(parents=True)
    summary = LoadSummary(folder=".", prediction_time=moment.isoformat())
    for resource in organisations():
        with (source / f"{resource['resourceType']}.00001.ndjson").open("a", encoding="utf-8") as file:
            file.write(dump(resource) + "\n")
    made = build_pool(folder, size=pool, seed=seed, moment=moment)
    (folder / "SYNTHETIC.md").write_text(
        NOTE.format(seed=seed, patients=patients, moment=moment.isoformat(), pool=pool), encoding="utf-8"
    )
    batches = range(-(-patients // BATCH))
    write = partial(
        write_batch,
        folder=source,
        total=patients,
        seed=seed,
        moment=moment.astimezone(UTC),
        pool=made,
        compress=compress,
    )
    processes = min(workers or os.cpu_count() or 1, len(batches))
    if processes == 1:
        for number in batches:
            summary.add(write(number))
            if progress:
                progress(summary.patients, patients)
    else:
        # Spawned, since polars' threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=context) as executor:
            tasks = [executor.submit(write, number) for number in batches]
            for task in as_completed(tasks):
                summary.add(task.result())
                if progress:
                    progress(summary.patients, patients)
    write_json(asdict(summary), folder / "hospital.json")
    return summary
