"""The proof that one patient gives the same events by two routes: MIMIC-IV tables and MIMIC-IV on FHIR."""

from __future__ import annotations

import tempfile
from pathlib import Path

import polars as pl

from fhir_adapter.census import read_census
from fhir_adapter.extract import extract_part
from fhir_adapter.sources import FolderSource
from modelling.catalogue import Catalogue
from modelling.mapping import map_observations
from modelling.mapping.comparison import Comparison, compare_events
from modelling.mimic.reader import read_observations

PATIENT_SYSTEM = "http://mimic.mit.edu/fhir/mimic/identifier/patient"
EMERGENCY = (
    "vital signs of the emergency department: a module of its own (MIMIC-IV-ED), not in hosp/ and icu/"
)
CAUSES = {("right", "MimicObservationVitalSignsED.ndjson.gz"): EMERGENCY}
"""Side, file and cause of differences that the data themselves hold."""


def fhir_observations(folder: Path, work: Path) -> pl.DataFrame:
    """Read every Observation of a folder of MIMIC-IV on FHIR with the adapter; rows of ``Observations``.

    Parameters
    ----------
    folder
        Folder of ``*.ndjson`` or ``*.ndjson.gz``.
    work
        Empty folder for the adapter's tables.
    """
    source = FolderSource(folder)
    files: dict[str, list[Path]] = {"Patient": [], "Encounter": []}
    for part in source.plan(list(files)):
        files[part.resource_type].append(source.materialise(part, work))
    census = read_census(
        patients=files["Patient"],
        encounters=files["Encounter"],
        subject_system=PATIENT_SYSTEM,
        default_zone=None,
    )
    for part in source.plan(["Observation"]):
        extract_part(
            part, source.materialise(part, work), census_subjects=census.subjects, run_folder=work, n_shards=1
        )
    return pl.concat(
        [pl.read_parquet(path) for path in sorted(work.glob("extract/*/observations-*.parquet"))]
    )


def compare_sources(*, mimic: Path, fhir: Path, catalogue: Catalogue) -> Comparison:
    """Map both sources with the one mapper and compare their events.

    Parameters
    ----------
    mimic
        Folder with ``hosp/`` and ``icu/``; the left side.
    fhir
        Folder of MIMIC-IV on FHIR with the same patients; the right side.
    """
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        tables = read_observations(mimic, catalogue=catalogue, work=work)
        resources = fhir_observations(fhir, work / "fhir")
    sides = []
    for observations in (tables, resources):
        origin = observations.select("source_ref", origin="source_file").unique("source_ref", keep="first")
        events = map_observations(observations, catalogue).events
        sides.append(events.join(origin, on="source_ref", how="left", maintain_order="left"))
    return compare_events(sides[0], sides[1], causes=CAUSES)
