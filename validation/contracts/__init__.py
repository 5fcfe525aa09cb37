"""The table contracts of the house: what each room may rely on."""

from validation.contracts.store import (
    Manifest,
    file_digest,
    read_table,
    verify_manifest,
    write_json,
    write_table,
)
from validation.contracts.tables import (
    TABLES,
    Encounters,
    Events,
    Images,
    Observations,
    Outcomes,
    Quarantine,
    Recordings,
    Samples,
    Scores,
    Skipped,
    empty,
)

__all__ = [
    "TABLES",
    "Encounters",
    "Events",
    "Images",
    "Manifest",
    "Observations",
    "Outcomes",
    "Quarantine",
    "Recordings",
    "Samples",
    "Scores",
    "Skipped",
    "empty",
    "file_digest",
    "read_table",
    "verify_manifest",
    "write_json",
    "write_table",
]
