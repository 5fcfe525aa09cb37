"""NIH ChestX-ray14 labels from the image alone: the image encoder beside simple baselines.

    python -m modelling.benchmarks.nih --data DIR [--results DIR] [--seeds 3]

``DIR`` holds ``labels.csv`` and ``images``. The excerpt of 400 images is half pneumonia, half no finding by
selection, and AP view goes with disease: view, age and sex alone are therefore shown as a baseline.

References
----------
Wang et al., ChestX-ray8, CVPR 2017; images by courtesy of the NIH Clinical Center.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from modelling.baselines.arrays import FeatureTable
from modelling.baselines.logistic import Logistic
from modelling.batches.picture import prepare_image
from modelling.batches.settings import ImageSettings
from modelling.benchmarks.encoders import EncoderTraining, LabelledEncoder, encoder_logits, train_encoder
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
from modelling.models.encoders import ImageResNet

LABELS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia",
    "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip
SETTINGS = ImageSettings(size=96, resize=104)
LAYERS, WIDTH = (1, 1, 1, 1), 16
TRAINING = EncoderTraining(epochs=30)
COMPONENTS = 40


def read_images(folder: Path) -> tuple[NDArray[np.uint8], pl.DataFrame]:
    """Return prepared images ``[n, 1, size, size]`` and the table of labels."""
    table = folder / "labels.csv"
    if not table.is_file():
        raise BenchmarkError(f"no labels.csv in {folder}")
    records = pl.read_csv(table).sort("Image Index")
    pictures = []
    for name in records["Image Index"]:
        path = folder / "images" / Path(name).with_suffix(".jpg").name
        if not path.is_file():
            raise BenchmarkError(f"image {path.name} of labels.csv is not in {folder / 'images'}")
        with Image.open(path) as image:
            pictures.append(prepare_image(np.asarray(image.convert("L")), SETTINGS))
    return np.stack(pictures)[:, None], records


def labelled(records: pl.DataFrame) -> Labelled:
    """Return the 14 text-mined labels, which are themselves noisy."""
    return Labelled(
        name="nih",
        labels=records.select(LABELS).to_numpy().astype(np.int64),
        names=LABELS,
        patients=records["Patient ID"].to_numpy().astype(np.int64),
    )


def background(records: pl.DataFrame) -> FeatureTable:
    """Return what is known without looking at the picture: age, sex, view."""
    frame = records.select(
        pl.col("Patient Age").cast(pl.Float32).alias("age"),
        (pl.col("Patient Gender") == "M").cast(pl.Float32).alias("male"),
        (pl.col("View Position") == "AP").cast(pl.Float32).alias("view_ap"),
    )
    return FeatureTable(tuple(frame.columns), frame.to_numpy().astype(np.float32))


def varied_images(images: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate by up to 10 degrees, scale and shift by up to 10 %, change contrast; never flip (the heart).

    Parameters
    ----------
    images
        ``[k, 1, size, size]``, 0-255.
    """
    k = len(images)
    draw = torch.rand(k, 5, generator=generator)
    angle = (draw[:, 0] * 2 - 1) * np.pi / 18
    scale = 0.9 + 0.2 * draw[:, 1]
    shift = (draw[:, 2:4] * 2 - 1) * 0.2
    theta = torch.stack(
        [
            torch.stack([scale * angle.cos(), -scale * angle.sin(), shift[:, 0]], dim=1),
            torch.stack([scale * angle.sin(), scale * angle.cos(), shift[:, 1]], dim=1),
        ],
        dim=1,
    )
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    moved = grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    contrast = (0.8 + 0.4 * draw[:, 4])[:, None, None, None]
    return ((moved - 128) * contrast + 128).clamp(0, 255)


def principal_components(images: NDArray[np.uint8], train: Rows, *, count: int = COMPONENTS) -> FeatureTable:
    """Return the leading components of 32-pixel thumbnails, fitted on training rows."""
    small = torch.nn.functional.interpolate(torch.from_numpy(images).float(), 32, mode="area")
    flat = small.flatten(1).double().numpy() / 255.0
    flat = flat - flat.mean(axis=1, keepdims=True)
    centre = flat[train].mean(axis=0)
    _, _, axes = np.linalg.svd(flat[train] - centre, full_matrices=False)
    values = (flat - centre) @ axes[:count].T
    return FeatureTable(tuple(f"component {k}" for k in range(values.shape[1])), values.astype(np.float32))


def compare(folder: Path, results: Path, *, seeds: int = 3) -> str:
    """Run or resume the comparison and return it as Markdown."""
    images, records = read_images(folder)
    data = labelled(records)
    known = background(records)
    inputs = torch.from_numpy(images)

    def columns(table: FeatureTable, train: Rows, test: Rows) -> Floats:
        result = np.zeros((len(test), len(LABELS)))
        for k in range(len(LABELS)):
            if data.labels[train, k].sum() >= 3:
                model = Logistic(strength=0.003).fit(table.take(train), data.labels[train, k])
                result[:, k] = model.decision(table.take(test))
        return result

    def encoder(train: Rows, test: Rows, seed: int) -> Floats:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            body = ImageResNet(LAYERS, WIDTH, SETTINGS.mean, SETTINGS.standard_deviation)
            model = LabelledEncoder(body, body.features, len(LABELS))
        model = train_encoder(
            model, inputs[train], data.labels[train], TRAINING, seed=seed, augment=varied_images
        )
        return encoder_logits(model, inputs[test])

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    runs = [out_of_fold(data, "image-resnet", encoder, results, seed=seed, say=say) for seed in range(seeds)]
    found = {
        "age, sex and view, logistic regression": out_of_fold(
            data, "background", lambda a, b, s: columns(known, a, b), results, seed=0, say=say
        ),
        f"{COMPONENTS} principal components, logistic regression": out_of_fold(
            data,
            "components",
            lambda a, b, s: columns(principal_components(images, a), a, b),
            results,
            seed=0,
            say=say,
        ),
        f"image ResNet alone ({SETTINGS.size} px), {seeds} seeds averaged": averaged(runs),
    }
    return markdown(data, {name: label_metrics(data, logits) for name, logits in found.items()})


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description="NIH ChestX-ray14 labels, encoder alone, five folds by patient"
    )
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
