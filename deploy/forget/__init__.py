"""``nightingale forget``: remove every trace of a patient that Nightingale keeps, and prove it.

What it reaches: run folders (tables, arrays, downloads, written files, quarantine), exports, the folder of
NDJSON destinations, the audit log, and the database. What it cannot reach, and the runbook names: the source
system, scores on the FHIR server (withdraw them), backups, and files that others copied.
"""

from deploy.forget.erase import Erased, forget

__all__ = ["Erased", "forget"]
