"""Twelve-lead ECGs: sums of Gaussian waves per beat, projected onto the leads.

The idea of one Gaussian per wave is that of McSharry et al., IEEE Trans Biomed Eng 2003;50:289. Limb leads
obey Einthoven's and Goldberger's relations exactly.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import wfdb
from numpy.typing import NDArray

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
GAIN = 1000.0
"""Analogue-digital units a millivolt."""

_WAVES = ("P", "Q", "R", "S", "ST", "T")
_OFFSET = np.array([-0.17, -0.035, 0.0, 0.035, 0.12, 0.27])  # s from the R peak at 60 beats a minute
_WIDTH = np.array([0.025, 0.010, 0.012, 0.011, 0.045, 0.055])  # s
# mV of each wave in the eight independent leads I, II, V1 ... V6.
_AMPLITUDE = np.array(
    [
        [0.08, -0.05, 0.65, -0.12, 0.0, 0.20],
        [0.12, -0.08, 1.00, -0.18, 0.0, 0.28],
        [0.05, 0.00, 0.22, -0.85, 0.0, -0.08],
        [0.06, 0.00, 0.45, -1.10, 0.0, 0.30],
        [0.06, -0.03, 0.80, -0.75, 0.0, 0.36],
        [0.07, -0.07, 1.25, -0.42, 0.0, 0.36],
        [0.07, -0.09, 1.15, -0.20, 0.0, 0.30],
        [0.07, -0.08, 0.90, -0.10, 0.0, 0.24],
    ]
)
_ISCHAEMIA = np.array([-0.05, -0.08, 0.03, 0.06, 0.05, -0.07, -0.11, -0.09])  # mV of ST shift at severity 1


def _beats(
    heart_rate: float, seconds: float, *, irregular: bool, rng: np.random.Generator
) -> NDArray[np.float64]:
    count = int(seconds * heart_rate / 60) + 4
    spread = 0.16 if irregular else 0.025
    intervals = 60 / heart_rate * np.clip(rng.normal(1.0, spread, size=count), 0.55, 1.6)
    return np.cumsum(intervals) - float(rng.uniform(0.3, 1.0)) * 60 / heart_rate


def synthesise(
    *, heart_rate: float, severity: float, sampling_rate: int, rng: np.random.Generator, seconds: float = 10.0
) -> NDArray[np.int16]:
    """Return samples of shape ``[samples, 12]`` in microvolt steps (gain 1000 per mV).

    Parameters
    ----------
    heart_rate
        Beats a minute.
    severity
        Latent severity of the heart: ST shift, flat or inverted T waves, ectopic beats and atrial
        fibrillation become more likely and larger with it.
    sampling_rate
        Hertz.
    """
    time = np.arange(int(seconds * sampling_rate)) / sampling_rate
    ill = float(np.logaddexp(0.0, severity))
    fibrillation = bool(rng.random() < 1 / (1 + np.exp(3.0 - 1.4 * severity)))
    peaks = _beats(heart_rate, seconds, irregular=fibrillation, rng=rng)
    stretch = np.sqrt(60 / heart_rate)
    offset = _OFFSET * np.where(np.array(_WAVES) == "R", 0, stretch)
    basis = np.zeros((len(_WAVES), time.size))
    ectopic = rng.random(peaks.size) < min(0.02 + 0.03 * ill, 0.2)
    for peak, early in zip(peaks, ectopic, strict=True):
        wide = 2.6 if early else 1.0
        centre = peak - (0.12 if early else 0.0)
        for wave in range(len(_WAVES)):
            if early and wave == 0:
                continue
            width = _WIDTH[wave] * (wide if wave in (1, 2, 3) else 1.0)
            basis[wave] += np.exp(-((time - centre - offset[wave]) ** 2) / (2 * width**2))
    amplitude = _AMPLITUDE * rng.normal(1.0, 0.10, size=_AMPLITUDE.shape)
    amplitude[:, 4] = _ISCHAEMIA * ill * rng.uniform(0.7, 1.3)
    amplitude[:, 5] *= 1.0 - 0.55 * min(ill, 3.0)
    if fibrillation:
        amplitude[:, 0] = 0.0
    independent = amplitude @ basis
    if fibrillation:
        flutter = 0.05 * np.sin(2 * np.pi * rng.uniform(5, 8) * time + rng.uniform(0, 6))
        independent += flutter * np.array([0.5, 1.0, 1.4, 0.8, 0.4, 0.3, 0.3, 0.3])[:, None]
    wander = 0.06 * np.sin(2 * np.pi * rng.uniform(0.15, 0.35) * time + rng.uniform(0, 6))
    independent += wander * rng.uniform(0.3, 1.0, size=8)[:, None]
    independent += rng.normal(0.0, 0.012, size=independent.shape)
    lead_i, lead_ii = independent[0], independent[1]
    limb = [
        lead_i,
        lead_ii,
        lead_ii - lead_i,
        -(lead_i + lead_ii) / 2,
        lead_i - lead_ii / 2,
        lead_ii - lead_i / 2,
    ]
    signal = np.vstack([*limb, *independent[2:]]).T
    return np.clip(np.round(signal * GAIN), -32000, 32000).astype(np.int16)


def write_wfdb(
    folder: Path, name: str, samples: NDArray[np.int16], *, sampling_rate: int, recorded: datetime
) -> None:
    """Write ``<name>.hea`` and ``<name>.dat`` (format 16) through the wfdb package.

    Parameters
    ----------
    recorded
        Start of the recording on the ward's clock; WFDB headers hold no zone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wfdb.wrsamp(
        name,
        fs=sampling_rate,
        units=["mV"] * len(LEADS),
        sig_name=list(LEADS),
        d_signal=samples.astype(np.int64),
        fmt=["16"] * len(LEADS),
        adc_gain=[GAIN] * len(LEADS),
        baseline=[0] * len(LEADS),
        base_date=recorded.date(),
        base_time=recorded.time().replace(microsecond=0),
        comments=["Synthetic test data of the Nightingale demo hospital, not a patient"],
        write_dir=str(folder),
    )
