"""Bounds of what one input may cost; each has a test that carries the attack."""

from __future__ import annotations

from dataclasses import dataclass

MEGABYTE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of the reading side.

    Attributes
    ----------
    max_line_bytes
        Longest NDJSON line.
    block_bytes
        Bytes of NDJSON held at a time.
    max_attachment_bytes
        Largest ECG file or DICOM object.
    max_samples
        Most samples of one ECG lead.
    max_leads
        Most signals in one record.
    max_sampling_rate
        Highest plausible sampling rate in Hz.
    max_pixels
        Most pixels of one image, all frames together.
    longest_side
        Images are shrunk to this longest side in pixels.
    max_instances
        Most instances of one imaging study that are looked at.
    worker_memory
        Address space of the decoding process in bytes, beyond what it holds at its start.
    worker_seconds
        Time for decoding one object.
    """

    max_line_bytes: int = 8 * MEGABYTE
    block_bytes: int = 8 * MEGABYTE
    max_attachment_bytes: int = 100 * MEGABYTE
    max_samples: int = 2_000_000
    max_leads: int = 32
    max_sampling_rate: float = 10_000.0
    max_pixels: int = 50 * MEGABYTE
    longest_side: int = 1024
    max_instances: int = 64
    worker_memory: int = 2_000 * MEGABYTE
    worker_seconds: float = 60.0
