"""From the array of a recording to the fixed window that an ECG encoder reads."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from scipy.signal import butter, resample_poly, sosfiltfilt

from modelling.batches.settings import STANDARD_LEADS, SignalSettings
from modelling.errors import ArrayUnreadableError

# Einthoven and Goldberger: any limb lead follows from I and II.
_FROM_I_II = {"III": (-1.0, 1.0), "aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)}
_CANONICAL = {name.upper(): name for name in STANDARD_LEADS}


def standard_leads(array: NDArray[np.float32], leads: Sequence[str]) -> NDArray[np.float32]:
    """Return the twelve standard leads in their usual order; what cannot be known stays zero.

    Parameters
    ----------
    array
        ``[leads, samples]`` in millivolts.
    leads
        Lead names, in any letter case.

    Returns
    -------
    numpy.ndarray
        ``[12, samples]``.

    Raises
    ------
    ArrayUnreadableError
        If the number of rows is not the number of names, or no standard lead is among them.
    """
    if array.ndim != 2 or array.shape[0] != len(leads):
        raise ArrayUnreadableError(f"{len(leads)} lead names for an array of shape {array.shape}")
    known = {_CANONICAL[name.upper()]: row for row, name in enumerate(leads) if name.upper() in _CANONICAL}
    if not known:
        raise ArrayUnreadableError("no standard lead in the recording")
    result = np.zeros((12, array.shape[1]), dtype=np.float32)
    for position, name in enumerate(STANDARD_LEADS):
        if name in known:
            result[position] = array[known[name]]
        elif name in _FROM_I_II and {"I", "II"} <= known.keys():
            first, second = _FROM_I_II[name]
            result[position] = first * array[known["I"]] + second * array[known["II"]]
    return result


def _filled(signal: NDArray[np.float32]) -> NDArray[np.float64]:
    """Replace samples that are not numbers by linear interpolation along time; an empty lead is zero."""
    filled = signal.astype(np.float64)
    for lead in np.flatnonzero(~np.isfinite(filled).all(axis=1)):
        good = np.flatnonzero(np.isfinite(filled[lead]))
        filled[lead] = np.interp(np.arange(filled.shape[1]), good, filled[lead, good]) if good.size else 0.0
    return filled


def _window(signal: NDArray[np.float64], settings: SignalSettings) -> NDArray[np.float64]:
    """Cut ``start : start + length``; a short recording gives its centre, a shorter one is padded."""
    samples, length = signal.shape[1], settings.length
    if samples < length:
        before = (length - samples) // 2
        return np.pad(signal, ((0, 0), (before, length - samples - before)))
    start = settings.start if samples >= settings.start + length else (samples - length) // 2
    return signal[:, start : start + length]


def prepare_signal(
    array: NDArray[np.float32], leads: Sequence[str], rate: float, settings: SignalSettings
) -> NDArray[np.float32]:
    """Order leads, resample, remove the baseline, band-pass and cut one recording.

    Parameters
    ----------
    array
        ``[leads, samples]`` in millivolts.
    leads
        Lead names.
    rate
        Sampling rate in Hz.
    settings
        Target rate, band and window.

    Returns
    -------
    numpy.ndarray
        float32 ``[12, settings.length]`` in millivolts.

    Raises
    ------
    ArrayUnreadableError
        If the leads do not fit the array, or the recording is too short to filter.

    Notes
    -----
    The baseline is what remains after moving medians of 200 ms and 600 ms (de Chazal et al. 2004,
    doi 10.1109/TBME.2004.827359); the band is MedM2T's third-order Butterworth, 0.5-40 Hz, applied
    forward and backward so that it shifts nothing in time.
    """
    signal = _filled(standard_leads(array, leads))
    ratio = Fraction(settings.rate / rate).limit_denominator(1000)
    if ratio != 1:
        signal = resample_poly(signal, ratio.numerator, ratio.denominator, axis=1)
    if signal.shape[1] <= 6 * (settings.order + 1):
        raise ArrayUnreadableError("recording is too short to filter")
    short, long = (int(settings.rate * seconds) // 2 * 2 + 1 for seconds in (0.2, 0.6))
    # Lead by lead: SciPy has a running median for one dimension, twenty times faster than its general filter.
    baseline = np.stack([median_filter(median_filter(lead, size=short), size=long) for lead in signal])
    band = butter(
        settings.order, (settings.low, settings.high), btype="bandpass", fs=settings.rate, output="sos"
    )
    filtered = sosfiltfilt(band, signal - baseline, axis=1)
    return np.ascontiguousarray(_window(filtered, settings), dtype=np.float32)
