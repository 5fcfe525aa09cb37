"""WFDB headers, read strictly before the wfdb package sees them.

Format: https://physionet.org/physiotools/wag/header-5.htm. The wfdb package (4.3.1) takes a rate of 1e308 as
1, a gain of 0 as 200, negative lengths and gains, and does not check checksums; here these are refused.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from fhir_adapter.errors import Refusal
from fhir_adapter.limits import Limits
from validation.reasons import Reason

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"
_RECORD = re.compile(
    rf"(?P<name>{NAME})(?:/(?P<segments>\d{{1,6}}))?[ \t]+(?P<signals>\d{{1,4}})"
    r"(?:[ \t]+(?P<rate>[0-9.eE+-]{1,30})(?:/\S*)?(?:[ \t]+(?P<length>\d{1,12})(?:[ \t].*)?)?)?"
)
_SIGNAL = re.compile(
    rf"(?P<file>{NAME})[ \t]+(?P<format>\d{{1,3}})(?:x(?P<frame>\d+))?"
    r"(?::(?P<skew>\d+))?(?:\+(?P<offset>\d{1,9}))?"
    r"(?:[ \t]+(?P<gain>[0-9.eE+-]{1,30})(?:\((?P<baseline>-?\d{1,12})\))?(?:/(?P<unit>\S{1,20}))?"
    r"(?:[ \t]+(?P<resolution>\d{1,3})(?:[ \t]+(?P<zero>-?\d{1,12})"
    r"(?:[ \t]+(?P<initial>-?\d{1,12})(?:[ \t]+(?P<checksum>-?\d{1,12})"
    r"(?:[ \t]+(?P<block>-?\d{1,12})(?:[ \t]+(?P<description>.*))?)?)?)?)?)?)?"
)
_SEGMENT = re.compile(rf"(?P<name>~|{NAME})[ \t]+(?P<length>\d{{1,12}})")
SAMPLE_BYTES = {"16": 2.0, "61": 2.0, "24": 3.0, "32": 4.0, "80": 1.0, "160": 2.0, "212": 1.5}
"""Bytes a sample of the formats that are read."""


@dataclass(frozen=True)
class SignalLine:
    """One signal of a header; ``gain`` is in ADC units per ``unit``."""

    file: str
    format: str
    offset: int
    gain: float
    baseline: int
    unit: str
    initial: int | None
    checksum: int | None
    description: str


@dataclass(frozen=True)
class Header:
    """A single-segment record (``signals``) or a multi-segment one (``segments``: name and length)."""

    name: str
    rate: float
    length: int | None
    signals: tuple[SignalLine, ...]
    segments: tuple[tuple[str, int], ...]


def parse_header(data: bytes, limits: Limits) -> Header:
    """Parse a header.

    Raises
    ------
    Refusal
        ``ecg.header_invalid`` naming the field.
    """
    if len(data) > 100_000:
        raise _invalid("size")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise _invalid("encoding") from None
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    match = _RECORD.fullmatch(lines[0]) if lines else None
    if match is None:
        raise _invalid("record line")
    n_signals = int(match["signals"])
    if not 1 <= n_signals <= limits.max_leads:
        raise _invalid("number of signals")
    rate = _positive(match["rate"], "sampling rate") if match["rate"] else 250.0
    if not 1.0 <= rate <= limits.max_sampling_rate:
        raise _invalid("sampling rate")
    length = int(match["length"]) if match["length"] else None
    if length is not None and length > limits.max_samples:
        raise Refusal(Reason.ATTACHMENT_TOO_LARGE, "WFDB length")
    if match["segments"] is not None:
        segments = _segments(lines[1:], int(match["segments"]), limits)
        return Header(match["name"], rate, length, (), segments)
    if len(lines) - 1 != n_signals:
        raise _invalid("number of signal lines")
    return Header(
        match["name"], rate, length, tuple(_signal(line, n) for n, line in enumerate(lines[1:])), ()
    )


def _segments(lines: list[str], expected: int, limits: Limits) -> tuple[tuple[str, int], ...]:
    if len(lines) != expected or not 1 <= expected <= 10_000:
        raise _invalid("number of segments")
    found = []
    for line in lines:
        match = _SEGMENT.fullmatch(line)
        if match is None:
            raise _invalid("segment line")
        found.append((match["name"], int(match["length"])))
    if sum(length for _, length in found) > limits.max_samples:
        raise Refusal(Reason.ATTACHMENT_TOO_LARGE, "WFDB length")
    return tuple(found)


def _signal(line: str, number: int) -> SignalLine:
    match = _SIGNAL.fullmatch(line)
    if match is None:
        raise _invalid(f"signal line {number + 1}")
    if match["format"] not in SAMPLE_BYTES:
        raise _invalid(f"format of signal {number + 1}")
    if match["frame"] not in (None, "1") or match["skew"] not in (None, "0"):
        raise _invalid(f"samples per frame or skew of signal {number + 1}")
    if match["gain"] is None:
        raise _invalid(f"gain of signal {number + 1}")
    gain = _positive(match["gain"], f"gain of signal {number + 1}")
    zero = int(match["zero"] or 0)
    return SignalLine(
        file=match["file"],
        format=match["format"],
        offset=int(match["offset"] or 0),
        gain=gain,
        baseline=int(match["baseline"]) if match["baseline"] is not None else zero,
        unit=match["unit"] or "mV",
        initial=int(match["initial"]) if match["initial"] is not None else None,
        checksum=int(match["checksum"]) if match["checksum"] is not None else None,
        description=(match["description"] or "").strip(),
    )


def _positive(text: str, field: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise _invalid(field) from None
    if not math.isfinite(number) or number <= 0 or number > 1e9:
        raise _invalid(field)
    return number


def _invalid(field: str) -> Refusal:
    return Refusal(Reason.ECG_HEADER_INVALID, field)
