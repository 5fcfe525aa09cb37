"""Is this recording an ECG that a model may see?

Measures are taken a lead at a time on the samples in millivolts; the thresholds are those of
:class:`ECGLimits`. ``make bench-validation`` prints the false-alarm rate of each on PTB-XL, whose
cardiologists marked drift, static noise, burst noise and electrode problems by hand
(Wagner et al. 2020, Scientific Data 7:154, "signal metadata").
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import signal

from validation.judgement import Judgement, quarantine_rows
from validation.reasons import Reason

FloatArray = npt.NDArray[np.float32]

STANDARD_LEADS = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""The twelve leads, upper case (aVR, aVL and aVF are compared without case)."""

INDEPENDENT_LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
"""III, aVR, aVL and aVF follow from I and II (Einthoven, Goldberger), so eight leads hold all."""


@dataclass(frozen=True, kw_only=True)
class ECGLimits:
    """Thresholds of the ECG judge.

    Of 485 recordings of PTB-XL's excerpt the largest wander, powerline and noise ratios are 1.86, 0.004
    and 0.23, and the rates 31 to 167 a minute; the limits leave twice that or more, so that a bad
    recording is told from an unusual patient.

    Attributes
    ----------
    required_leads
        Leads that must be there, upper case.
    shortest
        Seconds.
    flat_range
        Millivolts peak to peak in a moving second below which a lead is flat there.
    flat_share
        Share of a lead's seconds that must be flat for the lead to count as flat.
    flat_leads
        Number of flat leads from which the recording is refused.
    clipped_share
        Share of a lead's samples lying exactly at its highest or lowest value, in runs of three
        samples or more, above which the lead counts as saturated.
    saturated_leads
        Number of saturated leads from which the recording is refused.
    lowest_range, highest_range
        Median over leads of the 0.5-99.5 percentile range in millivolts; outside, gain or unit is wrong.
    wander_ratio
        Highest median ratio over leads of power below 0.5 Hz (the diagnostic band starts there,
        Kligfield et al. 2007) to power between 1 and 25 Hz.
    powerline_ratio
        Highest median ratio of power within 0.7 Hz of 50 or 60 Hz to power between 1 and 25 Hz.
    noise_ratio
        Highest median ratio of power above 25 Hz (without the powerline) to power between 1 and 25 Hz.
    lowest_rate, highest_rate
        Plausible heart rate, beats a minute.
    """

    required_leads: tuple[str, ...] = INDEPENDENT_LEADS
    shortest: float = 2.5
    flat_range: float = 0.02
    flat_share: float = 0.5
    flat_leads: int = 2
    clipped_share: float = 0.05
    saturated_leads: int = 2
    lowest_range: float = 0.1
    highest_range: float = 10.0
    wander_ratio: float = 5.0
    powerline_ratio: float = 0.5
    noise_ratio: float = 0.6
    lowest_rate: float = 20.0
    highest_rate: float = 300.0


@dataclass(frozen=True, kw_only=True)
class ECGMeasures:
    """What was measured on one recording; aggregates of a signal, no sample of it."""

    seconds: float
    missing_leads: int
    finite: bool
    flat_leads: int = 0
    saturated_leads: int = 0
    median_range: float = 0.0
    wander_ratio: float = 0.0
    powerline_ratio: float = 0.0
    noise_ratio: float = 0.0
    rate: float | None = None


def measure_recording(
    samples: FloatArray, *, leads: list[str], sampling_rate: float, limits: ECGLimits | None = None
) -> ECGMeasures:
    """Measure one recording.

    Parameters
    ----------
    samples
        ``[leads, samples]`` in millivolts.
    leads
        Names in the order of the rows.
    sampling_rate
        Hertz.
    """
    limits = limits or ECGLimits()
    names = [name.strip().upper() for name in leads]
    missing = sum(name not in names for name in limits.required_leads)
    seconds = samples.shape[1] / sampling_rate
    finite = bool(np.isfinite(samples).all())
    if not finite or seconds < limits.shortest:
        return ECGMeasures(seconds=seconds, missing_leads=missing, finite=finite)
    centred = samples - np.median(samples, axis=1, keepdims=True)
    flat = _flat_share(centred, sampling_rate, limits.flat_range) >= limits.flat_share
    clipped = np.array([_clipped_share(lead) for lead in samples]) > limits.clipped_share
    low, high = np.percentile(centred, [0.5, 99.5], axis=1)
    live = ~flat
    wander, powerline, noise = _power_ratios(centred[live], sampling_rate) if live.any() else (0.0, 0.0, 0.0)
    return ECGMeasures(
        seconds=seconds,
        missing_leads=missing,
        finite=True,
        flat_leads=int(flat.sum()),
        saturated_leads=int((clipped & live).sum()),
        median_range=float(np.median((high - low)[live])) if live.any() else 0.0,
        wander_ratio=wander,
        powerline_ratio=powerline,
        noise_ratio=noise,
        rate=heart_rate(centred[live], sampling_rate) if live.any() else None,
    )


def _flat_share(centred: FloatArray, sampling_rate: float, flat_range: float) -> npt.NDArray[np.float64]:
    width = max(1, round(sampling_rate))
    seconds = centred.shape[1] // width
    pieces = centred[:, : seconds * width].reshape(centred.shape[0], seconds, width)
    return (np.ptp(pieces, axis=2) < flat_range).mean(axis=1)


def _clipped_share(lead: FloatArray) -> float:
    """Return the share of samples in runs of at least three at the lead's own extremes."""
    share = 0.0
    for extreme in (lead.max(), lead.min()):
        at = np.concatenate([[False], lead == extreme, [False]])
        edges = np.flatnonzero(at[1:] != at[:-1])
        runs = edges[1::2] - edges[::2]
        share += float(runs[runs >= 3].sum()) / lead.size
    return share


def _power_ratios(centred: FloatArray, sampling_rate: float) -> tuple[float, float, float]:
    """Return median over leads of wander, powerline and high-frequency power over the ECG band's power."""
    length = min(centred.shape[1], int(4 * sampling_rate))
    frequency, power = signal.welch(centred, sampling_rate, nperseg=length, detrend="constant", axis=1)
    line = (np.abs(frequency - 50.0) <= 0.7) | (np.abs(frequency - 60.0) <= 0.7)
    band = power[:, (frequency >= 1.0) & (frequency <= 25.0)].sum(axis=1) + 1e-12

    def ratio(chosen: npt.NDArray[np.bool_]) -> float:
        return float(np.median(power[:, chosen].sum(axis=1) / band)) if chosen.any() else 0.0

    return ratio(frequency < 0.5), ratio(line), ratio((frequency > 25.0) & ~line)


def heart_rate(centred: FloatArray, sampling_rate: float) -> float | None:
    """Return the median heart rate in beats a minute, or None where no two beats were found.

    The slope's magnitude over all leads, smoothed over 80 ms, is searched for peaks at least
    200 ms apart: enough to tell a plausible rate from an implausible one, and not a diagnosis.
    """
    if sampling_rate < 50:
        return None
    band = signal.butter(
        2, [5.0, min(20.0, 0.45 * sampling_rate)], "bandpass", fs=sampling_rate, output="sos"
    )
    slope = np.diff(signal.sosfiltfilt(band, centred, axis=1), axis=1)
    energy = np.sqrt((slope**2).sum(axis=0))
    width = max(1, round(0.08 * sampling_rate))
    envelope = np.convolve(energy, np.ones(width) / width, mode="same")
    top = float(np.percentile(envelope, 98))
    peaks, _ = signal.find_peaks(
        envelope, height=0.4 * top, prominence=0.3 * top, distance=max(1, round(0.2 * sampling_rate))
    )
    if len(peaks) < 2:
        return None
    return float(60.0 * sampling_rate / np.median(np.diff(peaks)))


def judge_measures(measures: ECGMeasures, limits: ECGLimits) -> Reason | None:
    """Return why a recording is refused, or None."""
    checks = (
        (measures.missing_leads > 0, Reason.ECG_LEADS_MISSING),
        (not measures.finite, Reason.VALUE_INVALID),
        (measures.seconds < limits.shortest, Reason.ECG_TOO_SHORT),
        (measures.flat_leads >= limits.flat_leads, Reason.ECG_FLAT),
        (measures.saturated_leads >= limits.saturated_leads, Reason.ECG_SATURATED),
        (
            not limits.lowest_range <= measures.median_range <= limits.highest_range,
            Reason.ECG_AMPLITUDE_IMPLAUSIBLE,
        ),
        (
            measures.wander_ratio > limits.wander_ratio
            or measures.powerline_ratio > limits.powerline_ratio
            or measures.noise_ratio > limits.noise_ratio,
            Reason.ECG_NOISE,
        ),
        (
            measures.rate is None or not limits.lowest_rate <= measures.rate <= limits.highest_rate,
            Reason.ECG_RATE_IMPLAUSIBLE,
        ),
    )
    return next((reason for broken, reason in checks if broken), None)


def judge_recordings(
    recordings: pl.DataFrame, run_folder: Path, limits: ECGLimits | None = None
) -> Judgement:
    """Split recordings into those fit for a model and those that are not.

    Parameters
    ----------
    recordings
        Rows of the ``Recordings`` contract.
    run_folder
        Folder that ``array_path`` is relative to; each file holds float32 ``[leads, samples]`` in mV.
    limits
        Thresholds; the defaults when None.

    Returns
    -------
    Judgement
        A file that is missing or unreadable is ``ecg.unreadable``; samples that came earlier for
        the same patient are ``ecg.duplicate``. Every quarantine row has ``whole`` true.
    """
    limits = limits or ECGLimits()
    seen: set[tuple[int, str]] = set()
    reasons: list[str | None] = []
    order = recordings.with_row_index("row").sort("time", "row")["row"]
    verdicts: dict[int, str | None] = {}
    for row in order:
        fields = recordings.row(row, named=True)
        key = (fields["subject_id"], fields["array_sha256"])
        reason = Reason.ECG_DUPLICATE if key in seen else _judge_one(fields, run_folder, limits)
        seen.add(key)
        verdicts[row] = str(reason) if reason else None
    reasons = [verdicts[row] for row in range(recordings.height)]
    verdict = pl.Series("reason", reasons, dtype=pl.String)
    refused = recordings.filter(verdict.is_not_null()).with_columns(verdict.drop_nulls())
    return Judgement(
        recordings.filter(verdict.is_null()),
        quarantine_rows(
            refused, stage="ecg_quality", reason=pl.col("reason"), feature=pl.lit("ecg"), whole=True
        ),
    )


def _judge_one(fields: dict[str, Any], run_folder: Path, limits: ECGLimits) -> Reason | None:
    try:
        samples = np.load(run_folder / fields["array_path"], allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return Reason.ECG_UNREADABLE
    if samples.ndim != 2 or samples.shape[0] != len(fields["leads"]) or samples.dtype.kind != "f":
        return Reason.ECG_UNREADABLE
    if fields["unit"] != "mV":
        return Reason.UNIT_UNKNOWN
    measures = measure_recording(
        samples, leads=fields["leads"], sampling_rate=fields["sampling_rate"], limits=limits
    )
    return judge_measures(measures, limits)
