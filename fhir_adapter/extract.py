"""One part of a source to sharded tables, with accounts that must add up.

``pulled`` counts non-empty lines as they are read; ``accepted`` counts the distinct lines that left a row,
read back from the files written; ``quarantined`` counts resources refused whole. They are counted at
different places, so that pulled = accepted + quarantined says something.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self
from zoneinfo import ZoneInfo

import polars as pl

from fhir_adapter.errors import Refusal, SourceError, unforeseen_refused
from fhir_adapter.images.study import ImageArchive, StudyReader
from fhir_adapter.limits import Limits
from fhir_adapter.ndjson import Block, parse_line, read_blocks
from fhir_adapter.observations.exact import source_ref
from fhir_adapter.observations.reader import BlockReading, read_block, version_entry
from fhir_adapter.quarantine import QuarantineLog
from fhir_adapter.shards import ShardWriter, SmallShardWriter, TableStream
from fhir_adapter.sources.part import Part
from fhir_adapter.versions import ENTRIES, VersionIndex
from fhir_adapter.waveforms.archive import WaveformArchive
from fhir_adapter.waveforms.recording import RecordingReader
from fhir_adapter.worker import DecodeWorker
from validation.contracts import Manifest, empty, write_json
from validation.reasons import Reason

RESOURCE_TYPES = ("Observation", "DocumentReference", "Media", "ImagingStudy", "OperationOutcome")
TABLES = ("observations", "recordings", "images")
READ_AHEAD = 2
"""Blocks of Observations in work at a time."""
Reader = Callable[[dict[str, Any]], tuple[list[dict[str, Any]], list[Refusal]]]
"""Gives a resource's rows, and what was refused beside them; raises :class:`Refusal` for the whole."""


@dataclass(frozen=True, kw_only=True)
class PartSummary:
    """What became of one part.

    Attributes
    ----------
    pulled, accepted, quarantined
        Resources.
    rows
        Rows by table.
    exact_lines
        Lines that took the exact path.
    manifests
        One dict a file of :class:`validation.contracts.Manifest`, the quarantine's last.
    """

    part: str
    resource_type: str
    pulled: int
    accepted: int
    quarantined: int
    rows: dict[str, int]
    exact_lines: int = 0
    manifests: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Build a summary from :meth:`to_dict`'s result."""
        return cls(**fields)


class _Workbench:
    """The open files of one extraction."""

    def __init__(self, part: Part, folder: Path, n_shards: int) -> None:
        self.part = part
        self.folder = folder
        self.writers: dict[str, ShardWriter | SmallShardWriter] = {
            "observations": ShardWriter("observations", folder, n_shards=n_shards),
            "recordings": SmallShardWriter("recordings", folder, n_shards=n_shards),
            "images": SmallShardWriter("images", folder, n_shards=n_shards),
        }
        self.quarantine = TableStream("quarantine", folder / "quarantine.parquet")
        self.index = VersionIndex(folder / ".versions")
        self.skipped: dict[int, Reason] = {}
        self.pulled = 0
        self.refused_lines = 0
        self.exact_lines = 0

    def open_log(self, block: Block) -> QuarantineLog:
        """Start a block's quarantine with the lines over the limit."""
        log = QuarantineLog(stage="extract")
        for number in block.too_long:
            log.add(Refusal(Reason.JSON_TOO_LONG), file=self.part.file, line=number)
        return log

    def close_log(self, log: QuarantineLog) -> None:
        """Write a block's quarantine."""
        self.refused_lines += sum(row["whole"] for row in log.rows)
        self.quarantine.append(log.frame())

    def finish(self, run_folder: Path) -> PartSummary:
        """Drop duplicates and old versions, close all files, and count."""
        dropped: set[int] = set()
        log = QuarantineLog(stage="extract")
        for line, refused, reason in self.index.losers():
            if not refused and line not in self.skipped:  # a refused line keeps its own reason
                dropped.add(line)
                log.add(Refusal(reason), file=self.part.file, line=line)
        self.close_log(log)
        manifests = [
            manifest
            for writer in self.writers.values()
            for manifest in writer.finish(relative_to=run_folder, without_lines=dropped)
        ]
        quarantine = self.quarantine.finish(relative_to=run_folder)
        return PartSummary(
            part=self.part.name,
            resource_type=self.part.resource_type,
            pulled=self.pulled,
            accepted=_distinct_lines(manifests, run_folder),
            quarantined=self.refused_lines,
            rows={
                table: sum(manifest.rows for manifest in manifests if manifest.table == table)
                for table in TABLES
            },
            exact_lines=self.exact_lines,
            manifests=[manifest.to_dict() for manifest in (*manifests, quarantine)],
        )


@contextmanager
def _workbench(part: Part, folder: Path, n_shards: int) -> Iterator[_Workbench]:
    if folder.exists():
        shutil.rmtree(folder)
    bench = _Workbench(part, folder, n_shards)
    with ExitStack() as stack:
        stack.callback(bench.index.close)
        stack.callback(bench.quarantine.discard)
        for writer in bench.writers.values():
            stack.callback(writer.discard)
        yield bench


def extract_part(
    part: Part,
    path: Path,
    *,
    census_subjects: pl.DataFrame,
    run_folder: Path,
    n_shards: int,
    waveform_archive: WaveformArchive | Path | None = None,
    image_archive: ImageArchive | None = None,
    limits: Limits | None = None,
    default_zone: str | None = None,
) -> PartSummary:
    """Read one NDJSON file into sharded tables below ``<run folder>/extract/<part>``.

    A second call replaces what the first one wrote.

    Parameters
    ----------
    path
        Local NDJSON file of the part.
    census_subjects
        ``patient_id, subject_id`` of the patients of this night.
    waveform_archive
        Where attachment addresses lead; None allows inline attachments only.
    image_archive
        Where DICOM objects lie; None refuses ImagingStudies with ``image.not_found``.
    default_zone
        IANA zone of times that carry none.

    Raises
    ------
    SourceError
        If the file cannot be read to its end, or the part's type is none of :data:`RESOURCE_TYPES`.
    """
    limits = limits or Limits()
    zone = ZoneInfo(default_zone) if default_zone else None
    subjects = dict(census_subjects.select("patient_id", "subject_id").iter_rows())
    archive = WaveformArchive(waveform_archive) if isinstance(waveform_archive, Path) else waveform_archive
    folder = run_folder / "extract" / part.name
    with ExitStack() as stack:
        recordings = RecordingReader(
            archive=archive,
            run_folder=run_folder,
            subjects=subjects,
            default_zone=zone,
            limits=limits,
            read_dicom=stack.enter_context(DecodeWorker("dicom-ecg", limits)),
        )
        image_worker = stack.enter_context(DecodeWorker("image", limits))
        bench = stack.enter_context(_workbench(part, folder, n_shards))

        def read_file() -> Iterator[Block]:
            return read_blocks(path, block_bytes=limits.block_bytes, max_line_bytes=limits.max_line_bytes)

        if part.resource_type == "Observation":
            _extract_observations(bench, read_file(), subjects, zone, recordings)
        elif part.resource_type in {"DocumentReference", "Media"}:
            _extract_singly(bench, read_file, "recordings", recordings.read_document)
        elif part.resource_type == "ImagingStudy":
            images = StudyReader(
                archive=image_archive,
                run_folder=run_folder,
                subjects=subjects,
                default_zone=zone,
                limits=limits,
                decode=image_worker,
            )
            _extract_singly(bench, read_file, "images", images.read_study)
        elif part.resource_type == "OperationOutcome":
            _extract_singly(bench, read_file, "observations", _refuse_outcome)
        else:
            raise SourceError(f"resource type {part.resource_type} is not extracted")
        summary = bench.finish(run_folder)
    write_json(summary.to_dict(), folder / "summary.json")
    return summary


def _extract_observations(
    bench: _Workbench,
    blocks: Iterator[Block],
    subjects: dict[str, int],
    zone: ZoneInfo | None,
    recordings: RecordingReader,
) -> None:
    def read(block: Block) -> tuple[QuarantineLog, BlockReading]:
        log = bench.open_log(block)
        found = read_block(block, file=bench.part.file, subjects=subjects, default_zone=zone, quarantine=log)
        return log, found

    for log, reading in _ahead(read, blocks):
        bench.pulled += reading.pulled
        bench.exact_lines += reading.exact_lines
        bench.writers["observations"].append(reading.observations)
        bench.index.add(reading.entries)
        entries = _read_resources(bench, log, reading.waveforms, "recordings", recordings.read_observation)
        bench.index.add(pl.DataFrame(entries, schema=ENTRIES))
        bench.close_log(log)


def _ahead(
    read: Callable[[Block], tuple[QuarantineLog, BlockReading]], blocks: Iterator[Block]
) -> Iterator[tuple[QuarantineLog, BlockReading]]:
    """Read blocks in order with ``READ_AHEAD`` of them in work: polars leaves the interpreter meanwhile."""
    with ThreadPoolExecutor(max_workers=READ_AHEAD) as pool:
        waiting: deque[Future[tuple[QuarantineLog, BlockReading]]] = deque()
        for block in blocks:
            waiting.append(pool.submit(read, block))
            if len(waiting) > READ_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _extract_singly(
    bench: _Workbench, read_file: Callable[[], Iterator[Block]], table: str, read: Reader
) -> None:
    """Read resources one by one, in two passes: old versions must be known before files are decoded."""
    for block in read_file():
        entries = [
            version_entry(resource, number, refused=False) for number, resource in _parsed(block, None)
        ]
        bench.index.add(pl.DataFrame([entry for entry in entries if entry], schema=ENTRIES))
    bench.skipped = {line: reason for line, _, reason in bench.index.losers()}
    for block in read_file():
        log = bench.open_log(block)
        refusals: list[tuple[int, Refusal]] = []
        resources = list(_parsed(block, refusals))
        refusals += [(line, Refusal(bench.skipped[line])) for line, _ in resources if line in bench.skipped]
        for line, refusal in refusals:
            log.add(refusal, file=bench.part.file, line=line)
        bench.pulled += len(block.numbered) + len(block.too_long)
        bench.exact_lines += len(block.numbered)
        wanted = [(line, resource) for line, resource in resources if line not in bench.skipped]
        _read_resources(bench, log, wanted, table, read)
        bench.close_log(log)


def _refuse_outcome(resource: dict[str, Any]) -> tuple[list[dict[str, Any]], list[Refusal]]:
    """An export's error file says what the server left out: each line is counted, none is used."""
    del resource
    raise Refusal(Reason.OPERATION_OUTCOME)


def _parsed(block: Block, refusals: list[tuple[int, Refusal]] | None) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in block.numbered:
        try:
            yield number, parse_line(line)
        except Refusal as refusal:
            if refusals is not None:
                refusals.append((number, refusal))


def _read_resources(
    bench: _Workbench,
    log: QuarantineLog,
    resources: list[tuple[int, dict[str, Any]]],
    table: str,
    read: Reader,
) -> list[dict[str, Any]]:
    """Read resources into a table; return their version entries."""
    rows: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []
    for number, resource in resources:
        ref = source_ref(resource)
        refused = False
        try:
            with unforeseen_refused():
                found, beside = read(resource)
            rows += [row | {"source_file": bench.part.file, "source_line": number} for row in found]
            for refusal in beside:
                log.add(refusal, file=bench.part.file, line=number, ref=ref, whole=False)
        except Refusal as refusal:
            refused = True
            log.add(refusal, file=bench.part.file, line=number, ref=ref)
        entry = version_entry(resource, number, refused=refused)
        if entry:
            entries.append(entry)
    bench.writers[table].append(pl.DataFrame(rows, schema=empty(table).schema))
    return entries


def _distinct_lines(manifests: list[Manifest], run_folder: Path) -> int:
    """Count source lines that left a row, from the files themselves.

    A line's rows share a subject and so a shard and file; its tables are disjoint by construction.
    """
    total = 0
    for manifest in manifests:
        lines = pl.scan_parquet(run_folder / manifest.path).select(pl.col("source_line").n_unique())
        total += int(lines.collect().item())
    return total
