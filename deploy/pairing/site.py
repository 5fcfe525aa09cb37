"""The settings file of a paired data set."""

from __future__ import annotations

from pathlib import Path

from deploy.site_file import write_site

NOTE = (
    "Paired data: the ECGs and radiographs are of other people than the records. "
    "Scores exercise software and mean nothing for anyone."
)
MIMIC_PATIENTS = "http://mimic.mit.edu/fhir/mimic/identifier/patient"


def write_paired_site(folder: Path) -> Path:
    """Write ``site.toml`` for a folder of :func:`deploy.pairing.pair` over MIMIC-IV on FHIR and return it."""
    return write_site(
        folder / "site.toml",
        root=folder,
        hospital=folder,
        name="paired-mimic",
        note=NOTE,
        site={"time_zone": "America/New_York", "subject_identifier_system": MIMIC_PATIENTS},
    )
