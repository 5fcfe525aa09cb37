"""The shipped ECG encoder: pre-trained on an excerpt of PTB-XL, as a start for small hospitals' own training.

    python -m modelling.shipped_weights.ecg --data DIR [--out DIR]

Its weights have the names of a model's signal encoder (``signal.*``), so that
``modelling.training.train(initial_weights=...)`` takes them where shapes agree. It is no diagnostic model.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from modelling.batches.settings import SignalSettings
from modelling.benchmarks.encoders import shifted_signals, train_encoder
from modelling.benchmarks.ptbxl import (
    CHANNELS,
    STRIDES,
    SUPERCLASSES,
    TRAINING,
    cross_validated_encoder,
    labelled,
    new_encoder,
    read_recordings,
)
from modelling.errors import ModellingError
from modelling.registry.folder import read_folder, write_folder
from modelling.training.train import code_version

FOLDER = Path(__file__).parent / "ptbxl-ecg-encoder"
PREFIX = "signal."


def build(data: Path, out: Path, *, results: Path, seed: int = 0) -> str:
    """Train on every recording of the excerpt and write the folder; return its digest."""
    windows, records = read_recordings(data)
    described = labelled(records)
    metrics = cross_validated_encoder(windows, described, results, seeds=1)
    model = train_encoder(
        new_encoder(seed),
        torch.from_numpy(windows),
        described.labels,
        TRAINING,
        seed=seed,
        augment=shifted_signals,
    )
    weights = {f"{PREFIX}{name}": tensor for name, tensor in model.encoder.state_dict().items()}
    weights |= {f"superclass.{name}": tensor for name, tensor in model.head.state_dict().items()}
    return write_folder(
        out,
        weights=weights,
        config={
            "model": "signal-encoder",
            "channels": list(CHANNELS),
            "strides": list(STRIDES),
            "signal": asdict(SignalSettings()),
            "outputs": list(SUPERCLASSES),
            "training": asdict(TRAINING),
            "seed": seed,
            "code_version": code_version(),
        },
        card={
            "name": "nightingale-ecg-encoder",
            "version": code_version(),
            "model": "signal-encoder",
            "task": "pre-training",
            "description": "One-dimensional ResNet over twelve leads, pre-trained on the diagnostic "
            "superclasses of an excerpt of PTB-XL 1.0.3 (CC BY 4.0; Wagner et al. 2020).",
            "modalities": ["ecg"],
            "parameters": sum(parameter.numel() for parameter in model.encoder.parameters()),
            "trained_on": {
                "data": "PTB-XL 1.0.3, excerpt",
                "samples": len(windows),
                "subjects": len(set(described.patients.tolist())),
                "events": dict(zip(SUPERCLASSES, described.labels.sum(axis=0).tolist(), strict=True)),
            },
            "metrics": {"out_of_fold": metrics},
            "limits": [
                "A start for training, not a model for patients: it was fitted on a few hundred recordings.",
                "PTB-XL was recorded from 1989 to 1996 and is not a sample of intensive-care patients.",
                "Expects the preparation of modelling.batches.signal: 125 Hz, 0.5-40 Hz, 640 samples.",
            ],
        },
        metrics={"out_of_fold": metrics},
    )


def load_signal_weights(folder: Path = FOLDER) -> dict[str, Tensor]:
    """Return the encoder's weights by the names of a model's signal encoder, for ``initial_weights``.

    Raises
    ------
    CheckpointFormatError, CheckpointDigestError
        If the folder cannot be trusted.
    """
    return {name: tensor for name, tensor in read_folder(folder).weights.items() if name.startswith(PREFIX)}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Pre-train the shipped ECG encoder on PTB-XL's excerpt")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=Path("var/bench-models"))
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        digest = build(arguments.data, arguments.out, results=arguments.results)
    except ModellingError as error:
        sys.exit(f"error: {error}")
    print(json.dumps({"folder": str(arguments.out), "digest": digest}))


if __name__ == "__main__":
    main()
