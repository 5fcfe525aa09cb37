"""What monitoring reads: the scores of past nights from their run folders, and a census of now."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from deploy.night.connections import open_source
from deploy.night.run import Run
from deploy.night.scoring import SHADOW
from deploy.settings import Settings
from fhir_adapter.census import Census, read_census
from modelling.monitoring.outcomes import CHAMPION
from modelling.monitoring.outcomes import SHADOW as SHADOW_ROLE
from validation.contracts import Manifest, empty, read_table


def past_scores(settings: Settings) -> pl.DataFrame:
    """Return every score in the site's run folders, verified by digest, with its ``role``."""
    root = settings.storage.runs / settings.site.name
    frames = [empty("scores").with_columns(role=pl.lit(CHAMPION))]
    for pattern, role in (("*/scores/*", CHAMPION), (f"*/{SHADOW}/*/scores/*", SHADOW_ROLE)):
        for path in sorted(root.glob(f"{pattern}.manifest.json")):
            manifest = Manifest.from_dict(json.loads(path.read_text("utf-8")))
            folder = path
            for _ in range(manifest.path.count("/") + 1):
                folder = folder.parent
            frames.append(read_table(manifest, folder=folder).with_columns(role=pl.lit(role)))
    return pl.concat(frames)


def take_outcomes(settings: Settings, run: Run) -> Census:
    """Read patients and encounters as they are now; what was downloaded is not kept."""
    source = open_source(settings, run)
    downloads = run.path / "downloads"
    files: dict[str, list[Path]] = {"Patient": [], "Encounter": []}
    for part in source.plan(list(files)):
        files[part.resource_type].append(source.materialise(part, downloads))
    return read_census(
        patients=files["Patient"],
        encounters=files["Encounter"],
        subject_system=settings.site.subject_identifier_system,
        default_zone=settings.site.assume_zone,
    )
