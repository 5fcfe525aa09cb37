"""Embedding drift on real signals: how often a night is called drifted when it is not, and when it is.

    python tests/benchmark/bench_drift.py [--splits 20]

PTB-XL and ChestX-ray14 are divided by patient, again and again, into a reference and a night; the night's
signals are taken as they are, or spoilt in ways that a new device or a wrong setting would spoil them. ECGs go
through the shipped encoder, images through an untrained one (an untrained network serves drift detection well:
Rabanser et al., NeurIPS 2019), since no image encoder comes with Nightingale.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modelling.batches import Modality
from modelling.benchmarks.nih import read_images
from modelling.benchmarks.ptbxl import new_encoder, read_recordings
from modelling.models.encoders import ImageResNet
from modelling.scoring.reference import reference_embeddings
from modelling.shipped_weights.ecg import PREFIX, load_signal_weights
from validation.drift import build_reference, compare_night, embedding_values

PROJECT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("NIGHTINGALE_DATA", PROJECT.parent / "shared" / "data"))
RATE = 125.0
Change = Callable[[Any], Any]

ECG_CHANGES: dict[str, Change] = {
    "as recorded": lambda x: x,
    "amplitude halved": lambda x: 0.5 * x,
    "amplitude 10 % more": lambda x: 1.1 * x,
    "arm electrodes swapped": lambda x: np.concatenate([-x[:, :1], x[:, [2, 1, 4, 3]], x[:, 5:]], axis=1),
    "hum of 0.1 mV": lambda x: x + 0.1 * np.sin(2 * np.pi * 50 * np.arange(x.shape[2]) / RATE),
    "smoothed over 40 ms": lambda x: sum(np.roll(x, shift, axis=2) for shift in range(-2, 3)) / 5,
}
IMAGE_CHANGES: dict[str, Change] = {
    "as published": lambda x: x,
    "gamma 1.5": lambda x: 255 * (x / 255) ** 1.5,
    "contrast halved": lambda x: 64 + 0.5 * x,
    "mirrored": lambda x: x[..., ::-1],
    "blurred over 9 pixels": lambda x: np.repeat(np.repeat(x[..., 4::9, 4::9], 9, -2), 9, -1),
    "noise of 12 levels": lambda x: x + np.random.default_rng(0).normal(0, 12, x.shape),
}


@torch.inference_mode()
def embed(network: torch.nn.Module, items: Any) -> Any:
    """Return the embeddings ``[n, d]`` of arrays."""
    tensor = torch.as_tensor(np.ascontiguousarray(items), dtype=torch.float32)
    return torch.cat([network(part) for part in tensor.split(32)]).flatten(1).double().numpy()


def measure(
    modality: Modality, vectors: dict[str, Any], patients: Any, *, splits: int, night: int
) -> dict[str, list[int]]:
    """Return, for each change, the number of drifted axes in each split by patient."""
    found: dict[str, list[int]] = {name: [] for name in vectors}
    original = next(iter(vectors.values()))
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(np.unique(patients))
        tonight = np.isin(patients, order[:night])
        sketched = reference_embeddings(modality, original[~tonight])
        assert sketched is not None
        values, axes = sketched
        reference = build_reference([values], asked=int((~tonight).sum()))
        for name, changed in vectors.items():
            rows = embedding_values(str(modality), changed[tonight], axes)
            drift = compare_night(reference, [rows], asked=int(tonight.sum()))
            found[name].append(int(drift["drifted"].sum()))
    return found


def show(title: str, found: dict[str, list[int]]) -> None:
    """Print one line a change."""
    print(f"\n{title}")
    for name, drifted in found.items():
        nights = sum(axes > 0 for axes in drifted)
        print(
            f"  {name:24} called drifted in {nights:3} of {len(drifted)} nights, "
            f"{np.mean(drifted):.1f} of 8 axes on average"
        )


def main() -> None:
    """Measure both modalities."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--night", type=int, default=60, help="patients of a night")
    options = parser.parse_args()
    if not DATA.is_dir():
        print(f"no open data at {DATA}: nothing measured")
        return
    started = time.perf_counter()
    windows, records = read_recordings(DATA / "ptbxl")
    encoder = new_encoder(0).encoder.eval()
    encoder.load_state_dict(
        {name.removeprefix(PREFIX): tensor for name, tensor in load_signal_weights().items()}
    )
    vectors = {name: embed(encoder, change(windows)) for name, change in ECG_CHANGES.items()}
    found = measure(
        Modality.ECG, vectors, records["patient_id"].to_numpy(), splits=options.splits, night=options.night
    )
    show(f"ECG: PTB-XL, {len(windows)} recordings, {options.night} patients a night", found)

    images, labels = read_images(DATA / "nih-cxr14")
    torch.manual_seed(0)
    network = ImageResNet((1, 1, 1, 1), 16, 0.5, 0.25).eval()
    vectors = {
        name: embed(network, np.clip(change(images.astype(np.float32)), 0, 255))
        for name, change in IMAGE_CHANGES.items()
    }
    patients = labels["Image Index"].str.split("_").list.first().to_numpy()
    found = measure(Modality.CXR, vectors, patients, splits=options.splits, night=options.night)
    show(f"Chest X-ray: ChestX-ray14, {len(images)} images, {options.night} patients a night", found)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
