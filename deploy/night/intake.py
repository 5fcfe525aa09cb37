"""First steps of a night: who is there, and what is known about them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from deploy.night.connections import image_archive, open_source, waveform_archive
from deploy.night.run import Run
from deploy.settings import Settings
from fhir_adapter.census import read_census
from fhir_adapter.extract import extract_part
from fhir_adapter.limits import Limits
from fhir_adapter.sources import Part
from modelling.cohorts.night import night_samples, replay_samples
from modelling.cohorts.tasks import get_task
from validation.contracts import write_json

CLINICAL_TYPES = ("Observation", "DocumentReference", "ImagingStudy")


def take_census(settings: Settings, run: Run) -> list[dict[str, Any]]:
    """Read patients and encounters, choose the samples, and plan what to extract.

    Returns
    -------
    list of dict
        One JSON-ready :class:`fhir_adapter.sources.Part` an extraction task.
    """
    started = datetime.now(UTC)
    source = open_source(settings, run)
    downloads = run.path / "downloads"
    files: dict[str, list[Path]] = {"Patient": [], "Encounter": []}
    parts = source.plan(list(files))
    for number, part in enumerate(parts, start=1):
        files[part.resource_type].append(source.materialise(part, downloads))
        run.report_progress("census", number, len(parts))
    census = read_census(
        patients=files["Patient"],
        encounters=files["Encounter"],
        subject_system=settings.site.subject_identifier_system,
        default_zone=settings.site.assume_zone,
    )
    task = get_task(settings.night.task)
    if run.offset is not None:
        samples, skipped = replay_samples(census.encounters, task=task, after=run.offset)
    else:
        moment = run.moment
        assert moment is not None  # noqa: S101 - plan_run gives one of the two
        samples, skipped = night_samples(
            census.encounters, task=task, prediction_time=moment, partition=run.partition
        )
    run.save(census.encounters, "encounters", "encounters")
    run.save(census.outcomes, "outcomes", "outcomes")
    census.subjects.write_parquet(run.path / "subjects.parquet")
    run.save(census.quarantine, "quarantine", "quarantine/census")
    run.save(samples, "samples", "samples")
    run.save(skipped, "skipped", "skipped/cohort")
    accepted = census.accepted
    write_json(
        {
            "pulled": census.pulled,
            "accepted": accepted,
            "quarantined": census.quarantine.filter(pl.col("whole")).height,
            "eligible": samples.height + skipped.height,
            "started": started.isoformat(),
        },
        run.path / "census.json",
    )
    return [part.to_dict() for part in source.plan(list(CLINICAL_TYPES))]


def extract(settings: Settings, run: Run, part_fields: dict[str, Any]) -> dict[str, Any]:
    """Read one part of the source into sharded tables; return its summary without data."""
    part = Part.from_dict(part_fields)
    source = open_source(settings, run)
    path = source.materialise(part, run.path / "downloads")
    summary = extract_part(
        part,
        path,
        census_subjects=pl.read_parquet(run.path / "subjects.parquet"),
        run_folder=run.path,
        n_shards=settings.night.shards,
        waveform_archive=waveform_archive(settings),
        image_archive=image_archive(settings),
        limits=Limits(max_line_bytes=settings.source.max_line_bytes),
        default_zone=settings.site.assume_zone,
    )
    run.report_progress("extract", 1, None, part.name)
    return summary.to_dict()
