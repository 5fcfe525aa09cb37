"""By which words a patient can be recognised in what Nightingale keeps."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

TOKEN = re.compile(r"[A-Za-z0-9.\-]{1,64}")
TYPED = re.compile(r"[A-Z][A-Za-z]{1,40}/[A-Za-z0-9.\-]{1,64}")
SHORT = 6
"""An id shorter than this, such as ``12``, proves nothing alone: it counts only with its type before it."""


@dataclass
class Trace:
    """A patient's names: ids, references, score keys, array files.

    Attributes
    ----------
    subject_ids
        Integers that stand for the patient in tables.
    references
        ``Patient/…``, ``Encounter/…``, ``Observation/…`` and so on.
    encounter_ids, score_keys
        Ids in tables; a score's key is also the id of its RiskAssessment.
    studies
        DICOM study, series and instance UIDs.
    arrays
        Files of signals and pixels, relative to their run folder.
    audit_key
        Key of the audit log's digests, where the site keeps one.
    """

    subject_ids: set[int] = field(default_factory=set)
    references: set[str] = field(default_factory=set)
    encounter_ids: set[str] = field(default_factory=set)
    score_keys: set[str] = field(default_factory=set)
    studies: set[str] = field(default_factory=set)
    arrays: set[tuple[Path, str]] = field(default_factory=set)
    audit_key: bytes | None = field(default=None, repr=False)

    @property
    def found(self) -> bool:
        """Whether any table knows the patient."""
        return bool(self.subject_ids)

    def words(self) -> set[str]:
        """Return every word that gives the patient away where it stands alone."""
        bare = {reference.partition("/")[2] for reference in self.references} | self.encounter_ids
        named = {word for word in bare | self.studies if len(word) >= SHORT}
        words = named | self.score_keys | {str(number) for number in self.subject_ids if number >= 10**SHORT}
        return words | self.digests(bare)

    def digests(self, words: Iterable[str]) -> set[str]:
        """Return what the audit log shows in place of words."""
        if self.audit_key is None:
            return set()
        key = self.audit_key
        return {"hmac-" + hmac.new(key, word.encode(), hashlib.sha256).hexdigest()[:32] for word in words}

    def named_in(self, text: str) -> bool:
        """Tell whether a text names the patient."""
        words = self._cached_words
        return any(token in words for token in TOKEN.findall(text)) or any(
            token in self.references for token in TYPED.findall(text)
        )

    def freeze(self) -> None:
        """Compute the words once; call after the last name was added."""
        self._words = self.words()

    @property
    def _cached_words(self) -> set[str]:
        if not hasattr(self, "_words"):
            self.freeze()
        return self._words


def collect(runs: Iterable[Path], *, patient: str, audit_key: bytes | None = None) -> Trace:
    """Gather a patient's names from the tables of all runs.

    Parameters
    ----------
    patient
        FHIR id, with or without ``Patient/``.
    """
    name = patient.removeprefix("Patient/")
    trace = Trace(references={f"Patient/{name}"}, audit_key=audit_key)
    folders = list(runs)
    for folder in folders:
        subjects = folder / "subjects.parquet"
        if subjects.is_file():
            rows = pl.read_parquet(subjects).filter(pl.col("patient_id") == name)
            trace.subject_ids.update(rows["subject_id"].to_list())
    for folder in folders:
        for path in sorted(folder.rglob("*.parquet")):
            _collect_table(path, folder, trace)
    return trace


def _collect_table(path: Path, folder: Path, trace: Trace) -> None:
    columns = pl.read_parquet_schema(path)
    if "subject_id" not in columns:
        return
    wanted = {
        "encounter_id": trace.encounter_ids,
        "encounter_ref": trace.references,
        "patient_ref": trace.references,
        "source_ref": trace.references,
        "score_key": trace.score_keys,
        "study_uid": trace.studies,
        "series_uid": trace.studies,
        "instance_uid": trace.studies,
    }
    present = [name for name in (*wanted, "array_path") if name in columns]
    rows = pl.scan_parquet(path).filter(pl.col("subject_id").is_in(list(trace.subject_ids)))
    frame = rows.select(present).collect()
    for name in present:
        values = set(frame[name].drop_nulls().unique().cast(pl.String).to_list())
        if name == "array_path":
            trace.arrays.update((folder, value) for value in values)
        else:
            wanted[name].update(values)
