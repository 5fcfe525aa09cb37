"""Trying refused lines again with today's catalogue, adapter and rules; nothing is scored or written back."""

from __future__ import annotations

import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from deploy.settings import Settings
from deploy.site_catalogue import site_catalogue
from fhir_adapter.extract import RESOURCE_TYPES, extract_part
from fhir_adapter.images.study import ImageArchive
from fhir_adapter.ndjson import read_blocks
from fhir_adapter.sources import FolderSource
from fhir_adapter.waveforms.archive import WaveformArchive
from modelling.mapping import map_observations
from validation.contracts import Manifest, empty, read_table
from validation.ecg_quality import judge_recordings
from validation.image_quality import judge_images
from validation.quarantine import collect_lines
from validation.rules import judge_events

TABLES = ("observations", "recordings", "images", "quarantine")


@dataclass(frozen=True, kw_only=True)
class ReplayResult:
    """What became of refused lines.

    Attributes
    ----------
    lines
        Lines read again.
    accepted
        Resources that now leave at least one usable row.
    lost
        Refused rows whose line is not known or gone.
    outcomes
        ``outcome`` (``accepted`` or a reason code), ``rows``.
    """

    lines: int
    accepted: int
    lost: int
    outcomes: pl.DataFrame


def read_lines(path: Path, wanted: set[int]) -> dict[int, bytes]:
    """Return the wanted 1-based lines of an NDJSON file, plain or gzipped."""
    return {
        number: line for block in read_blocks(path) for number, line in block.numbered if number in wanted
    }


def replay_lines(
    settings: Settings,
    run_folder: Path,
    rows: pl.DataFrame,
    *,
    target: Path,
    waveforms: WaveformArchive | Path | None,
    images: ImageArchive | None,
) -> ReplayResult:
    """Read the lines of refused rows again.

    Parameters
    ----------
    run_folder
        The run that refused them; its census decides which patients are known.
    rows
        Rows of :func:`validation.quarantine.read_quarantine`.
    waveforms, images
        Where ECG files and DICOM objects lie, as for :func:`fhir_adapter.extract.extract_part`.
    target
        New folder below the run folder. It holds patient data while this runs and is removed at the end.
    """
    roots = [run_folder / "downloads", *([settings.source.folder] if settings.source.folder else [])]

    def locate(name: str) -> Path | None:
        found = ((root / name).resolve() for root in roots)
        inside = (
            path for path, root in zip(found, roots, strict=True) if path.is_relative_to(root.resolve())
        )
        return next((path for path in inside if path.is_file()), None)

    try:
        replay = collect_lines(rows, locate=locate, target=target / "lines", read_lines=read_lines)
        tables = _extract(settings, run_folder, target, waveforms, images)
        catalogue = site_catalogue(settings)
        mapping = map_observations(tables["observations"], catalogue)
        events = judge_events(mapping.events, catalogue.limits())
        recordings = judge_recordings(tables["recordings"], target)
        pictures = judge_images(tables["images"], target)
    finally:
        shutil.rmtree(target, ignore_errors=True)
    accepted = pl.concat(
        frame.select("source_ref") for frame in (events.accepted, recordings.accepted, pictures.accepted)
    )
    refused = pl.concat(
        [tables["quarantine"], mapping.quarantine, *(j.quarantine for j in (events, recordings, pictures))],
        how="diagonal_relaxed",
    )
    outcomes = pl.concat(
        [pl.Series("outcome", ["accepted"] * accepted.height, pl.String), refused["reason"].rename("outcome")]
    )
    return ReplayResult(
        lines=replay.lines,
        accepted=accepted["source_ref"].n_unique(),
        lost=replay.lost,
        outcomes=outcomes.value_counts(sort=True, name="rows"),
    )


def _extract(
    settings: Settings,
    run_folder: Path,
    target: Path,
    waveforms: WaveformArchive | Path | None,
    images: ImageArchive | None,
) -> dict[str, pl.DataFrame]:
    source = FolderSource(target / "lines")
    frames: dict[str, list[pl.DataFrame]] = defaultdict(list)
    for part in source.plan(list(RESOURCE_TYPES)):
        summary = extract_part(
            part,
            source.materialise(part, target),
            census_subjects=pl.read_parquet(run_folder / "subjects.parquet"),
            run_folder=target,
            n_shards=1,
            waveform_archive=waveforms,
            image_archive=images,
            default_zone=settings.site.assume_zone,
        )
        for fields in summary.manifests:
            manifest = Manifest.from_dict(fields)
            frames[manifest.table].append(read_table(manifest, folder=target))
    return {name: pl.concat([empty(name), *frames[name]]) for name in TABLES}
