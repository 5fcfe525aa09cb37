"""WFDB records from bytes, read by the wfdb package under names that we choose.

The header is judged first (:mod:`fhir_adapter.waveforms.wfdb_header`), the signal file's size and checksums
afterwards. Multi-segment records are put together here, so that each segment is checked on its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fhir_adapter.errors import Refusal
from fhir_adapter.limits import Limits
from fhir_adapter.waveforms.signal import MILLIVOLT, Signal, build_signal, lead_name
from fhir_adapter.waveforms.wfdb_header import SAMPLE_BYTES, Header, parse_header
from validation.reasons import Reason

FileReader = Callable[[str], bytes]
"""Returns the content of a file that stands beside the header, or raises :class:`Refusal`."""


def read_wfdb(header: bytes, read_file: FileReader, limits: Limits) -> Signal:
    """Return the ECG of a record.

    Parameters
    ----------
    header
        Content of the ``.hea`` file.
    read_file
        Gives signal files and segment headers by name.

    Raises
    ------
    Refusal
        ``ecg.header_invalid``, ``ecg.signal_truncated``, ``ecg.checksum_mismatch`` and others.
    """
    parsed = parse_header(header, limits)
    if parsed.segments:
        channels = _read_segments(parsed, read_file, limits)
    else:
        channels = _read_single(parsed, read_file, limits)
    return build_signal(channels, sampling_rate=parsed.rate, carrier="wfdb", limits=limits)


def _read_segments(master: Header, read_file: FileReader, limits: Limits) -> dict[str, np.ndarray]:
    total = sum(length for _, length in master.segments)
    if master.length is not None and master.length != total:
        raise Refusal(Reason.ECG_HEADER_INVALID, "segment lengths")
    channels: dict[str, np.ndarray] = {}
    start = 0
    for name, length in master.segments:
        if name != "~" and length:  # a segment of length 0 only lays out the signals; "~" is a gap
            header = parse_header(read_file(f"{name}.hea"), limits)
            if header.segments or header.rate != master.rate or header.length != length:
                raise Refusal(Reason.ECG_HEADER_INVALID, "segment header")
            for lead, samples in _read_single(header, read_file, limits).items():
                whole = channels.setdefault(lead, np.full(total, np.nan))
                whole[start : start + length] = samples
        start += length
    return channels


def _read_single(header: Header, read_file: FileReader, limits: Limits) -> dict[str, np.ndarray]:
    digital = _digital(header, read_file, limits)
    channels: dict[str, np.ndarray] = {}
    for number, line in enumerate(header.signals):
        column = digital[:, number]
        valid = column != _invalid_sample(line.format)
        if line.checksum is not None:
            total = int(column.sum(dtype=np.int64))
            if (total - line.checksum) % 65536:
                raise Refusal(Reason.ECG_CHECKSUM_MISMATCH, f"signal {number + 1}")
        lead = lead_name(line.description)
        if lead is None:
            continue  # respiration, pleth and the like share files with ECG leads
        if line.unit not in MILLIVOLT:
            raise Refusal(Reason.UNIT_UNKNOWN, f"signal {number + 1}")
        if lead in channels:
            raise Refusal(Reason.ECG_HEADER_INVALID, "a lead twice")
        physical = (column - line.baseline) / line.gain * MILLIVOLT[line.unit]
        channels[lead] = np.where(valid, physical, np.nan)
    return channels


def _digital(header: Header, read_file: FileReader, limits: Limits) -> np.ndarray:
    """Return digital samples ``[samples, signals]``."""
    import wfdb  # here, because it brings pandas and matplotlib along and most parts hold no WFDB

    files: dict[str, bytes] = {}
    length = header.length
    for name in dict.fromkeys(line.file for line in header.signals):
        lines = [line for line in header.signals if line.file == name]
        if len({(line.format, line.offset) for line in lines}) != 1:
            raise Refusal(Reason.ECG_HEADER_INVALID, "formats differ in one file")
        data = files[name] = read_file(name)
        frame = SAMPLE_BYTES[lines[0].format] * len(lines)
        there = int((len(data) - lines[0].offset) / frame)
        if length is None:
            length = there
        if there < length:
            raise Refusal(Reason.ECG_SIGNAL_TRUNCATED)
    if not length or length > limits.max_samples:
        raise Refusal(Reason.ECG_HEADER_INVALID, "length")
    with tempfile.TemporaryDirectory(prefix="nightingale-wfdb-") as folder:
        names = {}
        for number, (name, data) in enumerate(files.items()):
            names[name] = f"signal{number}.dat"
            (Path(folder) / names[name]).write_bytes(data)
        rewritten = [f"record {len(header.signals)} {header.rate!r} {length}"]
        rewritten += [
            f"{names[line.file]} {line.format}+{line.offset} {line.gain!r}({line.baseline})/mV"
            for line in header.signals
        ]
        (Path(folder) / "record.hea").write_text("\n".join(rewritten) + "\n", encoding="ascii")
        try:
            record = wfdb.rdrecord(str(Path(folder) / "record"), physical=False)
        except (ValueError, IndexError, KeyError, TypeError, OSError, MemoryError, AttributeError) as error:
            raise Refusal(Reason.ECG_UNREADABLE, type(error).__name__) from None
    digital = np.asarray(record.d_signal)
    if digital.shape != (length, len(header.signals)):
        raise Refusal(Reason.ECG_SIGNAL_TRUNCATED)
    return digital.astype(np.int64)


def _invalid_sample(kind: str) -> int:
    """Return the digital value that means "no value" in a format (signal(5))."""
    bits = {"16": 16, "61": 16, "160": 16, "24": 24, "32": 32, "80": 8, "212": 12}[kind]
    return int(-(2 ** (bits - 1)))
