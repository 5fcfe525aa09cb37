"""PTB-XL diagnostic superclasses from the ECG alone: the signal encoder beside summary features.

    python -m modelling.benchmarks.ptbxl --data DIR [--results DIR] [--seeds 3]

``DIR`` holds PTB-XL's layout (``ptbxl_database.csv``, ``records100``); an excerpt of 365 recordings is enough
to run it, too few to claim anything about PTB-XL as a whole.

References
----------
Wagner et al., PTB-XL, Scientific Data 2020, doi 10.1038/s41597-020-0495-6 (superclasses NORM, MI, STTC, CD,
HYP; patients never straddle folds).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import wfdb
from numpy.typing import NDArray

from modelling.baselines.arrays import FeatureTable
from modelling.baselines.boosting import Boosting
from modelling.baselines.logistic import Logistic
from modelling.batches.settings import STANDARD_LEADS, SignalSettings
from modelling.batches.signal import prepare_signal
from modelling.benchmarks.encoders import (
    EncoderTraining,
    LabelledEncoder,
    encoder_logits,
    shifted_signals,
    train_encoder,
)
from modelling.benchmarks.multilabel import (
    Floats,
    Labelled,
    Rows,
    averaged,
    label_metrics,
    markdown,
    out_of_fold,
)
from modelling.errors import BenchmarkError
from modelling.models.encoders import SignalResNet

SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
CHANNELS, STRIDES = (16, 24, 32, 48), (2, 2, 4, 4)
TRAINING = EncoderTraining()


def read_recordings(folder: Path) -> tuple[NDArray[np.float32], pl.DataFrame]:
    """Return prepared windows ``[n, 12, 640]`` in mV at 125 Hz and the table of records.

    Raises
    ------
    BenchmarkError
        If the table or a record is missing.
    """
    table = folder / "ptbxl_database.csv"
    if not table.is_file():
        raise BenchmarkError(f"no ptbxl_database.csv in {folder}; pass the folder of PTB-XL")
    records = pl.read_csv(table, infer_schema_length=None).sort("ecg_id")
    windows = []
    for name in records["filename_lr"]:
        if not (folder / f"{name}.hea").is_file():
            raise BenchmarkError(f"record {name} of ptbxl_database.csv is not in {folder}")
        record = wfdb.rdrecord(str(folder / name))
        windows.append(
            prepare_signal(
                record.p_signal.T.astype(np.float32), record.sig_name, float(record.fs), SignalSettings()
            )
        )
    return np.stack(windows), records


def labelled(records: pl.DataFrame) -> Labelled:
    """Return the superclass labels; a record may have several."""
    lists = records["superclass"].fill_null("").str.split(";")
    labels = np.stack([lists.list.contains(name).to_numpy() for name in SUPERCLASSES], axis=1)
    return Labelled(
        name="ptbxl",
        labels=labels.astype(np.int64),
        names=SUPERCLASSES,
        patients=records["patient_id"].cast(pl.Int64).to_numpy(),
    )


def summary_features(windows: NDArray[np.float32]) -> FeatureTable:
    """Return hand-made features: amplitude, shape and band power of each lead, and the rate from R peaks.

    Parameters
    ----------
    windows
        ``[n, 12, length]`` in mV at 125 Hz.
    """
    rate = SignalSettings().rate
    x = windows.astype(np.float64)
    deviation = x.std(axis=2)
    centred = x - x.mean(axis=2, keepdims=True)
    scaled = centred / np.maximum(deviation, 1e-6)[:, :, None]
    power = np.abs(np.fft.rfft(centred, axis=2)) ** 2
    frequency = np.fft.rfftfreq(x.shape[2], 1 / rate)
    whole = power.sum(axis=2) + 1e-12
    per_lead = {
        "std": deviation,
        "max": x.max(axis=2),
        "min": x.min(axis=2),
        "skewness": (scaled**3).mean(axis=2),
        "kurtosis": (scaled**4).mean(axis=2),
        "steepness": np.abs(np.diff(x, axis=2)).mean(axis=2),
        **{
            f"power_{low}_{high}": power[:, :, (frequency >= low) & (frequency < high)].sum(axis=2) / whole
            for low, high in ((0, 3), (3, 8), (8, 15), (15, 40))
        },
    }
    names = [f"{lead}|{name}" for name in per_lead for lead in STANDARD_LEADS]
    columns = [np.concatenate(list(per_lead.values()), axis=1)]
    rhythm = np.array([_rhythm(window, rate) for window in x])
    return FeatureTable(
        (*names, "rr_mean", "rr_deviation", "beats"),
        np.concatenate([*columns, rhythm], axis=1).astype(np.float32),
    )


def _rhythm(window: Floats, rate: float) -> tuple[float, float, float]:
    """Return mean and deviation of RR intervals in seconds and the number of beats, from summed steepness."""
    energy = (np.diff(window, axis=1) ** 2).sum(axis=0)
    smooth = np.convolve(energy, np.ones(9) / 9, mode="same")
    refractory = int(0.3 * rate)
    threshold = 0.35 * np.quantile(smooth, 0.99)
    peaks: list[int] = []
    for position in np.argsort(-smooth):
        if smooth[position] < threshold:
            break
        if all(abs(position - other) > refractory for other in peaks):
            peaks.append(int(position))
    gaps = np.diff(sorted(peaks)) / rate
    if gaps.size == 0:
        return float("nan"), float("nan"), float(len(peaks))
    return float(gaps.mean()), float(gaps.std()), float(len(peaks))


def new_encoder(seed: int) -> LabelledEncoder:
    """Return an untrained signal encoder with one output a superclass."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = SignalResNet(CHANNELS, STRIDES, dropout=0.1)
        return LabelledEncoder(encoder, encoder.features, len(SUPERCLASSES))


def say(line: str) -> None:
    """Print a finished run on standard error."""
    print(line, file=sys.stderr, flush=True)


def _encoder_out_of_fold(
    windows: NDArray[np.float32], data: Labelled, results: Path, *, seeds: int
) -> Floats:
    inputs = torch.from_numpy(windows)

    def fit(train: Rows, test: Rows, seed: int) -> Floats:
        model = train_encoder(
            new_encoder(seed), inputs[train], data.labels[train], TRAINING, seed=seed, augment=shifted_signals
        )
        return encoder_logits(model, inputs[test])

    runs = [out_of_fold(data, "signal-resnet", fit, results, seed=seed, say=say) for seed in range(seeds)]
    return averaged(runs)


def cross_validated_encoder(
    windows: NDArray[np.float32], data: Labelled, results: Path, *, seeds: int
) -> dict[str, Any]:
    """Return the out-of-fold metrics of the signal encoder alone, running what is not stored yet."""
    return label_metrics(data, _encoder_out_of_fold(windows, data, results, seeds=seeds))


def compare(folder: Path, results: Path, *, seeds: int = 3) -> str:
    """Run or resume the comparison and return it as Markdown."""
    windows, records = read_recordings(folder)
    data = labelled(records)
    features = summary_features(windows)
    age = FeatureTable(
        ("age", "sex"), records.select(pl.col("age", "sex").cast(pl.Float32)).to_numpy().astype(np.float32)
    )

    def columns(
        model: type[Logistic] | type[Boosting], table: FeatureTable, train: Rows, test: Rows
    ) -> Floats:
        fitted = [
            (Logistic(strength=0.003) if model is Logistic else Boosting(seeds=(0,), rounds=300)).fit(
                table.take(train), data.labels[train, k]
            )
            for k in range(len(SUPERCLASSES))
        ]
        return np.stack([one.decision(table.take(test)) for one in fitted], axis=1)

    found: dict[str, Floats] = {
        "age and sex, logistic regression": out_of_fold(
            data, "age-sex", lambda a, b, s: columns(Logistic, age, a, b), results, seed=0, say=say
        ),
        "summary features, logistic regression": out_of_fold(
            data, "logistic", lambda a, b, s: columns(Logistic, features, a, b), results, seed=0, say=say
        ),
        "summary features, boosting": out_of_fold(
            data, "boosting", lambda a, b, s: columns(Boosting, features, a, b), results, seed=0, say=say
        ),
        f"signal ResNet alone, {seeds} seeds averaged": _encoder_out_of_fold(
            windows, data, results, seeds=seeds
        ),
    }
    return markdown(data, {name: label_metrics(data, logits) for name, logits in found.items()})


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="PTB-XL superclasses, encoder alone, five folds by patient")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=Path("var/bench-models"))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        print(compare(arguments.data, arguments.results, seeds=arguments.seeds))
    except BenchmarkError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
