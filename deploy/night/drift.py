"""Tonight beside the training data: inputs and embeddings at the gate, scores once there are any."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from deploy.night.run import Run
from deploy.settings import Settings
from validation.drift import Reference, compare_night, embedding_values, input_values, score_values

VALUES = "profile/drift_values.parquet"
"""What tonight's samples knew last, kept in the run folder for the report; it holds values of patients."""

EMBEDDINGS = "embeddings"
"""Folder of embeddings in a run folder, shared with scoring."""

MOST_SAMPLES = 20_000
"""Samples compared: far more than any test needs, and few enough to hold in memory."""


def read_reference(settings: Settings, run: Run) -> Reference | None:
    """Return the drift reference in the folder of the model that scores, or None where it has none."""
    from deploy.night.scoring import model_folder  # torch takes seconds to import

    folder = model_folder(settings, run) / "reference"
    return Reference.load(folder) if folder.is_dir() else None


def compared_samples(samples: pl.DataFrame) -> pl.DataFrame:
    """Return the samples that are compared: all, or the same :data:`MOST_SAMPLES` every time."""
    if samples.height <= MOST_SAMPLES:
        return samples
    return samples.sort(pl.col("encounter_id").hash(0), "encounter_id").head(MOST_SAMPLES)


def night_values(settings: Settings, run: Run, reference: Reference) -> pl.DataFrame:
    """Return ``kind``, ``name``, ``value`` of tonight's inputs and embeddings, shard by shard."""
    samples = compared_samples(run.load("samples"))
    events = sorted(run.path.glob("events/*.manifest.json"))
    shards = [path.name.removesuffix(".manifest.json") for path in events]
    frames = [pl.DataFrame(schema={"kind": pl.String, "name": pl.String, "value": pl.Float64})]
    frames += [input_values(run.load(f"events/{name}"), samples) for name in shards]
    if reference.axes:
        frames += _embeddings(settings, run, reference, samples)
    return pl.concat(frames)


def _embeddings(
    settings: Settings, run: Run, reference: Reference, samples: pl.DataFrame
) -> list[pl.DataFrame]:
    from deploy.night.scoring import night_model
    from modelling.batches import Modality
    from modelling.scoring.reference import embed_latest

    model = night_model(settings, run)
    encounters = run.load("encounters")
    tables = {Modality.ECG: "recordings", Modality.CXR: "images"}
    frames = []
    for modality, table in tables.items():
        axes = reference.axes.get(str(modality))
        if axes is None:
            continue
        vectors = embed_latest(
            model,
            modality,
            samples=samples,
            encounters=encounters,
            items=run.load_all(table, f"{table}/*"),
            run_folder=run.path,
            embeddings=run.path / EMBEDDINGS,
        )
        if len(vectors):
            frames.append(embedding_values(str(modality), vectors, axes))
    return frames


def compare_run(settings: Settings, run: Run, *, scores: pl.DataFrame | None = None) -> pl.DataFrame | None:
    """Compare a run with the reference; one correction covers all comparisons.

    Parameters
    ----------
    scores
        Rows of ``scores``, when the night got so far; what the gate compared is then not computed again.

    Returns
    -------
    polars.DataFrame or None
        Result of :func:`validation.drift.compare_night`; None where the model has no reference.
    """
    reference = read_reference(settings, run)
    if reference is None:
        return None
    path: Path = run.path / VALUES
    if scores is None or not path.is_file():
        values = night_values(settings, run, reference)
        path.parent.mkdir(parents=True, exist_ok=True)
        values.write_parquet(path)
    else:
        values = pl.read_parquet(path)
    asked = compared_samples(run.load("samples")).height
    further = [] if scores is None else [score_values(scores)]
    return compare_night(reference, [values, *further], asked=asked)
