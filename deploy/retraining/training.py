"""Training of one model of a retraining: a candidate, or the boosting that it has to beat."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl
from torch import Tensor

from deploy.champion import champion_folder, open_registry
from deploy.errors import SettingsError
from deploy.retraining.data import BOOSTING, TaskData, read_task
from deploy.retraining.job import Retraining
from deploy.settings import Settings
from modelling.baselines.boosting import Boosting
from modelling.baselines.features import FeatureSettings, feature_table
from modelling.batches import Encoding
from modelling.catalogue import load_catalogue
from modelling.cohorts.splits import HELD_OUT, TRAIN
from modelling.cohorts.tasks import get_task
from modelling.errors import ModellingError
from modelling.registry.folder import read_folder
from modelling.scoring.reference import write_reference
from modelling.shipped_weights.ecg import load_signal_weights
from modelling.training import TrainingConfig, preset, train
from validation.contracts import write_json

Watcher = Callable[[str, int, int], None]
CHAMPION = "champion"
REQUEST = "request.json"


def train_model(settings: Settings, job: Retraining, task: str, model: str) -> dict[str, Any]:
    """Train a model unless it is there already; a killed training goes on from its last epoch.

    Returns
    -------
    dict
        ``task``, ``model``, ``folder`` and, but for boosting, ``digest``.
    """
    folder = job.model_folder(task, model)
    data = read_task(job, task)
    if model == BOOSTING:
        if not (folder / "held_out.parquet").is_file():
            fit_boosting(data, folder, seed=settings.retraining.seed)
        job.note("train", 1)
        return {"task": task, "model": model, "folder": str(folder)}
    weights, encoding, changes = starting_point(settings, task, model)
    config = training_config(settings, model, changes)
    request = {
        "data": json.loads((job.path / "data.json").read_text("utf-8")),
        "split": sorted(data.split.items()),
        "config": config.to_dict(),
        "seed": settings.retraining.seed,
        "start": sha256(b"".join(weights[name].numpy().tobytes() for name in sorted(weights))).hexdigest(),
    }
    asked = sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    digest = complete_digest(folder) if _answers(folder, asked) else None
    if digest is None:
        if not _answers(folder, asked):
            shutil.rmtree(folder, ignore_errors=True)  # of other data or settings
        write_json({"request": asked}, folder / REQUEST)
        trained = train(
            samples=data.samples,
            encounters=data.tables.encounters,
            events=data.tables.events,
            recordings=data.tables.recordings,
            images=data.tables.images,
            run_folder=data.tables.root,
            catalogue=load_catalogue(),
            task=task,
            model=model,
            config=config,
            out=folder,
            seed=settings.retraining.seed,
            horizon_hours=get_task(task).horizon_hours,
            split=data.split,
            description=_description(settings, job, encoding),
            initial_weights=weights,
            encoding=encoding,
            progress=lambda stage, done, total: job.note(f"train {model}: {stage}", done, total),
        )
        digest = trained.digest
        fitted = [subject for subject, name in data.split.items() if name == TRAIN]
        write_reference(
            folder,
            samples=data.samples,
            encounters=data.tables.encounters,
            events=data.tables.events,
            recordings=data.tables.recordings,
            images=data.tables.images,
            run_folder=data.tables.root,
            unseen=data.samples.filter(~pl.col("subject_id").is_in(fitted)),
        )
    job.note("train", 1)
    return {"task": task, "model": model, "folder": str(folder), "digest": digest}


def _answers(folder: Path, asked: str) -> bool:
    """Return whether what lies in a folder, complete or not, is of this very request."""
    path = folder / REQUEST
    return path.is_file() and json.loads(path.read_text("utf-8")).get("request") == asked


def complete_digest(folder: Path) -> str | None:
    """Return the digest of a model folder that is complete and whole, else None."""
    try:
        return read_folder(folder).digest if folder.is_dir() else None
    except ModellingError:
        return None


def training_config(settings: Settings, model: str, changes: Mapping[str, Any]) -> TrainingConfig:
    """Return the preset of a model with the site's epochs."""
    found = replace(preset(settings.retraining.preset, model), **changes)
    most = settings.retraining.epochs
    if most is not None:
        found = replace(
            found, epochs=min(found.epochs, most), pretrain_epochs=min(found.pretrain_epochs, most)
        )
    return found


def starting_point(
    settings: Settings, task: str, model: str
) -> tuple[Mapping[str, Tensor], Encoding | None, dict[str, Any]]:
    """Return the weights to start from, the encoding that they need, and the settings of their model.

    Without ``retraining.start_from`` this is the shipped ECG encoder, pre-trained on open data, where its shapes
    fit. With it, the weights of a whole model: its encoding is kept, so that every weight still reads the
    feature that it was trained on.

    Raises
    ------
    SettingsError
        If the model to start from is of another kind.
    """
    name = settings.retraining.start_from
    if name is None:
        return load_signal_weights(), None, {}
    path = champion_folder(settings, task) if name == CHAMPION else open_registry(settings).folder(name)
    folder = read_folder(path)
    if folder.config["model"] != model:
        raise SettingsError(
            f"retraining.start_from: {path.name[:12]} is of kind {folder.config['model']!r}, not {model!r}"
        )
    encoding = Encoding.from_dict(folder.config["encoding"])
    return folder.weights, encoding, {"model": dict(folder.config["model_settings"])}


def fit_boosting(data: TaskData, folder: Path, *, seed: int) -> None:
    """Fit gradient boosting on the training patients and keep its scores of the held-out ones."""
    train_part, held_out = data.part(TRAIN), data.part(HELD_OUT)
    events, encounters = data.tables.events, data.tables.encounters
    known = events.join(train_part.select("subject_id").unique(), on="subject_id", how="semi")
    settings = FeatureSettings.fit(known, encounters, wards=False, minimum=min(50, train_part.height // 10))
    model = Boosting(
        seeds=(seed, seed + 1, seed + 2),
        # Leaves of 40 patients, the setting for thousands of stays, leave nothing to split among a few hundred.
        parameters={"min_data_in_leaf": max(5, min(40, train_part.height // 40))},
    )
    model.fit(feature_table(train_part, known, encounters, settings), train_part["boolean_value"].to_numpy())
    scores = model.predict(feature_table(held_out, events, encounters, settings))
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder)
    held_out.select("encounter_id", "prediction_time").with_columns(
        pl.Series("score", scores, pl.Float64)
    ).write_parquet(folder / "held_out.parquet")


def _description(settings: Settings, job: Retraining, encoding: Encoding | None) -> str:
    how = "fine-tuned" if encoding is not None else "trained"
    note = f" {settings.site.data_note}" if settings.site.data_note else ""
    return f"A model {how} on finished stays of {settings.site.name}, data version {job.version}.{note}"
