"""Forget a patient: gather the names, take out every trace, search again, leave a record without names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from deploy.errors import DeployError
from deploy.forget import database, tables, texts
from deploy.forget.proof import Search, search
from deploy.forget.trace import Trace, collect
from deploy.settings import Settings
from fhir_adapter.store import open_engine
from modelling.cohorts.tasks import TASKS
from validation.contracts import write_json

RECORDS = "forgotten"
ACTIVE = timedelta(hours=6)


class ForgetError(DeployError):
    """A patient could not be forgotten wholly; the message names files, never the patient."""


@dataclass(frozen=True, kw_only=True)
class Erased:
    """What was taken out, and what the search afterwards read.

    Attributes
    ----------
    known
        Whether any table knew the patient.
    runs, rows, arrays, lines, audit_events, ledger_rows
        Runs looked through; table rows, array files, resources in files, audit events, ledger rows taken out.
    quarantine_blanked
        Refused resources whose owner cannot be told and that lost their reference.
    files_searched, rows_searched, database_rows_searched
        Size of the proof.
    record
        File that says so.
    """

    known: bool
    runs: int
    rows: int
    arrays: int
    lines: int
    audit_events: int
    ledger_rows: int
    quarantine_blanked: int
    files_searched: int
    rows_searched: int
    database_rows_searched: int
    record: str

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)


def forget(
    settings: Settings,
    *,
    patient: str,
    encounters: Iterable[str] = (),
    audit_key: bytes | None = None,
    scan: Iterable[Path] = (),
    now: datetime,
) -> Erased:
    """Remove every trace of a patient and prove it.

    Parameters
    ----------
    patient
        FHIR id, with or without ``Patient/``.
    encounters
        Encounter ids beyond those that the run folders know: scores of runs that are gone are found by them.
    audit_key
        Key of the audit log's digests, where the site keeps one.
    scan
        Further folders to look through, such as Airflow's logs; nothing in them is changed.
    now
        Current time with a zone, for the record.

    Raises
    ------
    ForgetError
        If a night is running, or if the search afterwards still finds the patient.
    """
    site = settings.storage.runs / settings.site.name
    folders = sorted(path for path in site.iterdir() if path.is_dir()) if site.is_dir() else []
    runs = [folder for folder in folders if (folder / "run.json").is_file()]
    refuse_while_running(runs, now)
    trace = collect(runs, patient=patient, audit_key=audit_key)
    trace.encounter_ids.update(encounters)
    trace.references.update(f"Encounter/{name}" for name in encounters)
    engine = open_engine(settings.storage.database)
    try:
        moments = [settings.prediction_time(night) for night in _nights(runs)]
        trace.score_keys |= database.possible_keys(
            engine, site=settings.site.name, tasks=TASKS, encounters=trace.encounter_ids, moments=moments
        )
        trace.freeze()
        rows = sum(tables.clean_table(path, trace) for path in site.rglob("*.parquet"))
        arrays = _remove_arrays(trace)
        blanked = sum(tables.blank_unowned(folder) for folder in runs) if trace.found else 0
        for folder in folders:
            tables.mend_manifests(folder)
        written = [settings.destination.folder] if settings.destination.folder.is_dir() else []
        lines = _clean_files([site, *written], ("*.ndjson", "*.ndjson.gz"), trace, texts.drop_or_untie)
        lines += _clean_files([site], ("report/patients.html",), trace, texts.drop)
        events = _clean_files([settings.storage.audit], ("*.jsonl",), trace, texts.redact_event)
        ledger = database.clean_database(engine, trace)
        roots = [site, *written, settings.storage.models, settings.storage.audit, *scan]
        seen = search([root for root in roots if root.is_dir()], trace)
        database_rows, left = database.search_database(engine, trace)
    finally:
        engine.dispose()
    _refuse_remains(seen, left)
    record = (
        settings.storage.runs / settings.site.name / RECORDS / f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}.json"
    )
    erased = Erased(
        known=trace.found,
        runs=len(runs),
        rows=rows,
        arrays=arrays,
        lines=lines,
        audit_events=events,
        ledger_rows=ledger,
        quarantine_blanked=blanked,
        files_searched=seen.files,
        rows_searched=seen.rows,
        database_rows_searched=database_rows,
        record=str(record),
    )
    request = hashlib.sha256(f"{settings.site.name}|{patient.removeprefix('Patient/')}".encode()).hexdigest()
    write_json({"forgotten_at": now.isoformat(), "request_sha256": request, **erased.to_dict()}, record)
    return erased


def refuse_while_running(runs: Iterable[Path], now: datetime) -> None:
    """Raise where a run began in the last hours and has not ended: it would write the patient again.

    Raises
    ------
    ForgetError
        Naming the run.
    """
    for folder in runs:
        began = datetime.fromtimestamp((folder / "run.json").stat().st_mtime, UTC)
        if not (folder / "summary.json").is_file() and now - began < ACTIVE:
            raise ForgetError(f"the night {folder.name} is running; forget the patient when it has ended")


def _nights(runs: Iterable[Path]) -> list[date]:
    """Return every night from the first to the last known run: one may be missing by retention."""
    found = []
    for folder in runs:
        try:
            found.append(date.fromisoformat(folder.name))
        except ValueError:
            continue
    if not found:
        return []
    first, last = min(found) - timedelta(days=366), max(found)
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def _remove_arrays(trace: Trace) -> int:
    """Remove the patient's signals and pixels, but none that another patient's row has too."""
    kept = {folder: tables.arrays_of(folder) for folder in {folder for folder, _ in trace.arrays}}
    removed = 0
    for folder, name in trace.arrays:
        path = (folder / name).resolve()
        if name not in kept[folder] and path.is_relative_to(folder.resolve()) and path.is_file():
            path.unlink()
            removed += 1
    return removed


def _clean_files(roots: list[Path], patterns: tuple[str, ...], trace: Trace, mend: Any) -> int:
    return sum(
        texts.clean_lines(path, trace, mend)
        for root in roots
        if root.is_dir()
        for pattern in patterns
        for path in sorted(root.rglob(pattern))
        if path.is_file()
    )


def _refuse_remains(seen: Search, left: list[str]) -> None:
    if seen.found or left:
        places = [*seen.found[:5], *left]
        raise ForgetError(f"still named in {len(seen.found) + len(left)} place(s): {', '.join(places)}")
