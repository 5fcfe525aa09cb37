"""Train a model on contract tables and leave a model folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from modelling.batches import Dataset, Encoding, fit_encoding, prepare
from modelling.batches.encoding import CatalogueLike
from modelling.errors import TrainingError
from modelling.registry.folder import CURVES, write_folder
from modelling.training.calibrate import Calibration, fit_calibration, risk_thresholds
from modelling.training.config import TrainingConfig, preset
from modelling.training.curves import draw_curves
from modelling.training.fit import fit_network
from modelling.training.intervals import (
    ProbabilityInterval,
    ValueInterval,
    fit_probability_interval,
    fit_value_interval,
)
from modelling.training.loop import Watcher, ignore
from modelling.training.picture_labels import prepare_pictures
from modelling.training.predict import predict
from modelling.training.split import HELD_OUT, TRAIN, TUNING, part, split_digest, split_subjects
from modelling.training.targets import further_values, labelled_rows, split_metrics
from modelling.training.workers import choose_device, join_workers


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """What training left.

    Attributes
    ----------
    folder
        Model folder (:mod:`modelling.registry.folder`).
    digest
        Of weights and configuration.
    metrics
        By split; see :func:`modelling.training.targets.split_metrics`.
    card
        The model card as written.
    """

    folder: Path
    digest: str
    metrics: dict[str, Any]
    card: dict[str, Any]


def code_version() -> str:
    """Return the version of the installed package."""
    try:
        return version("nightingale")
    except PackageNotFoundError:
        return "0+unknown"


def resolve_config(config: TrainingConfig | Mapping[str, Any] | str, model: str) -> TrainingConfig:
    """Return settings from a preset's name, a mapping, or as they are."""
    if isinstance(config, TrainingConfig):
        return config
    return preset(config, model) if isinstance(config, str) else TrainingConfig.from_dict(config)


def train(
    *,
    samples: pl.DataFrame,
    encounters: pl.DataFrame,
    events: pl.DataFrame,
    recordings: pl.DataFrame,
    images: pl.DataFrame,
    run_folder: Path,
    catalogue: CatalogueLike,
    task: str,
    model: str,
    config: TrainingConfig | Mapping[str, Any] | str,
    out: Path,
    seed: int = 0,
    horizon_hours: float | None = None,
    kind: str = "binary",
    labels: pl.DataFrame | None = None,
    classes: Sequence[str] = (),
    further: pl.DataFrame | None = None,
    findings: pl.DataFrame | None = None,
    image_labels: pl.DataFrame | None = None,
    split: Mapping[int, str] | None = None,
    description: str = "",
    initial_weights: Mapping[str, torch.Tensor] | None = None,
    initial_split: str | None = None,
    encoding: Encoding | None = None,
    progress: Watcher | None = None,
) -> TrainedRun:
    """Train, calibrate, measure and write a model.

    Parameters
    ----------
    samples
        Samples without a label are left out; see :func:`modelling.training.targets.labelled_rows` for where
        the label of each kind of task stands.
    encounters, events, recordings, images
        Tables; only what was known at a sample's prediction time is used.
    run_folder
        Folder that ``array_path`` is relative to.
    catalogue
        The catalogue that mapped the events.
    task, model
        Name of the task, key of :data:`modelling.models.MODELS`.
    config
        Settings, part of them as a mapping, or the name of a preset (``demo``, ``paper``).
    out
        Model folder; a ``checkpoint`` in it is resumed if it is of the same run, and removed at the end.
    seed
        Decides split, initial weights, order and noise: the same call gives the same weights (on one
        device type).
    horizon_hours
        How far ahead the task looks; recorded in the card. None leaves it to the task.
    kind, labels, classes
        Of the task: ``binary``, ``regression``, ``multiclass`` or ``multilabel``; its table of labels; the
        names of its classes.
    further
        Values of the settings' further targets (multi-task heads): ``encounter_id`` and one column each, null
        where unknown; they are learnt beside the label and never asked for afterwards.
    findings
        Machine measurements and report terms of recordings; see
        :func:`modelling.batches.encoding.fit_encoding`.
    image_labels
        Radiologists' labels of studies; the image encoder is then trained on them first, and not on the
        task (:mod:`modelling.training.picture_labels`).
    split
        Subject to ``train``, ``tuning`` or ``held_out``; None draws one by patient.
    description
        What the data are, for the card.
    initial_weights
        Weights to start from where names and shapes agree (pre-trained encoders).
    initial_split
        ``split_digest`` of the run that they come from; another split than this run's is refused, since its
        training patients may be this run's test patients (MedM2T's released code: they are). None where the
        weights come from other patients altogether.
    encoding
        Encoding to keep instead of fitting one: that of the model whose weights are started from, so that
        each weight still reads the feature that it was trained on.
    progress
        ``(stage, done, total)``.

    Raises
    ------
    TrainingError
        If there is nothing to learn from, or a name is unknown.
    """
    watch = progress or ignore
    settings = resolve_config(config, model)
    workers = join_workers(choose_device(settings.device))
    labelled, values, target = labelled_rows(samples, kind=kind, task=task, labels=labels, names=classes)
    settings = replace(settings, kind=kind, targets=len(target.names))
    labelled = labelled.with_row_index("position")
    names = split or split_subjects(
        labelled, tuning_share=settings.tuning_share, held_out_share=settings.held_out_share, seed=seed
    )
    if initial_split is not None and initial_split != split_digest(names):
        raise TrainingError(
            "the weights to start from were trained on another split: its training patients may be test "
            "patients here; train the encoders with this data and seed"
        )
    beside = further_values(
        further if further is not None else labelled.select("encounter_id"),
        labelled,
        settings,
        part(labelled, names, TRAIN)["position"].to_numpy().astype(np.int64),
    )
    parts = {name: part(labelled, names, name) for name in (TRAIN, TUNING, HELD_OUT)}
    truth = {name: values[frame["position"].to_numpy()] for name, frame in parts.items()}
    more = {name: beside[frame["position"].to_numpy()] for name, frame in parts.items()}
    parts = {name: frame.drop("position") for name, frame in parts.items()}
    if parts[TRAIN].is_empty() or parts[TUNING].is_empty():
        raise TrainingError("training and tuning split both need samples")
    target = target.fitted(truth[TRAIN])
    tables: dict[str, Any] = {
        "encounters": encounters,
        "events": events,
        "recordings": recordings,
        "findings": findings,
    }
    watch("encode", 0, 4)
    encoding = encoding or fit_encoding(
        samples=parts[TRAIN], **tables, catalogue=catalogue, settings=settings.encoding
    )
    datasets: dict[str, Dataset] = {}
    for done, (name, frame) in enumerate(parts.items(), start=1):
        watch("encode", done, 4)
        encoded = prepare(samples=frame, **tables, images=images, run_folder=run_folder, encoding=encoding)
        datasets[name] = target.attach(encoded, truth[name], more[name])
    watch("encode", 4, 4)

    pictures = None
    if image_labels is not None:
        pictures = prepare_pictures(
            images, image_labels, split=names, encounters=encounters, run_folder=run_folder, encoding=encoding
        )
    checkpoint = out / "checkpoint" / "state.safetensors"
    fitted = fit_network(
        train=datasets[TRAIN],
        tuning=datasets[TUNING],
        model=model,
        config=settings,
        seed=seed,
        initial_weights=initial_weights,
        pictures=pictures,
        checkpoint=checkpoint,
        workers=workers,
        progress=watch,
    )
    network = fitted.network

    outputs = {
        name: predict(network, dataset, device=fitted.device, token_budget=settings.token_budget)
        for name, dataset in datasets.items()
    }
    calibration = Calibration()
    answers = {name: target.answers(found) for name, found in outputs.items()}
    thresholds: list[dict[str, Any]] = []
    conformal: ProbabilityInterval | ValueInterval | None = None
    if kind == "binary":
        calibration = fit_calibration(outputs[TUNING][:, 0], truth[TUNING][:, 0])
        answers = {name: calibration.probability(found[:, :1]) for name, found in outputs.items()}
        thresholds = risk_thresholds(answers[TUNING][:, 0], truth[TUNING][:, 0])
        conformal = fit_probability_interval(answers[TUNING][:, 0], truth[TUNING][:, 0])
    elif kind == "regression":
        conformal = fit_value_interval(truth[TUNING][:, 0], answers[TUNING][:, 0])
    metrics = {name: split_metrics(target, truth[name], answers[name]) for name in parts}
    fields = {
        "model": model,
        "model_settings": fitted.settings,
        "encoding": encoding.to_dict(),
        "catalogue_digest": catalogue.digest,
        "task": task,
        "horizon_hours": horizon_hours,
        "calibration": calibration.to_dict(),
        "thresholds": thresholds,
        "conformal": None if conformal is None else conformal.to_dict(),
        "target": target.to_dict(),
        "training": settings.to_dict(),
        "seed": seed,
        "split_digest": split_digest(names),
        "code_version": code_version(),
    }
    card = {
        "name": f"nightingale-{model}-{task}",
        "version": code_version(),
        "model": model,
        "task": task,
        "horizon_hours": horizon_hours,
        "catalogue_digest": catalogue.digest,
        "description": description,
        "modalities": [str(modality) for modality in network.modalities],
        "thresholds": thresholds,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "trained_on": {
            "samples": {name: frame.height for name, frame in parts.items()},
            "subjects": {name: frame["subject_id"].n_unique() for name, frame in parts.items()},
            "events": {name: metrics[name].get("events") for name in parts},
            "features": len(encoding.features),
            "left_out": datasets[TRAIN].left_out,
            "unreadable_arrays": sum(len(dataset.failures) for dataset in datasets.values()),
        },
        "metrics": metrics,
        "limits": [
            "For review by clinicians; not a medical device, and not to be acted on alone.",
            "Valid only for inputs mapped by the catalogue version that it names.",
        ],
    }
    digest = ""
    if workers.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        draw_curves(fitted.history, out / CURVES)
        digest = write_folder(
            out,
            weights=network.state_dict(),
            config=fields,
            card=card,
            metrics={"splits": metrics, "history": fitted.history, "training": settings.to_dict()},
        )
        checkpoint.unlink(missing_ok=True)
        if checkpoint.parent.is_dir():
            checkpoint.parent.rmdir()
    workers.wait()
    return TrainedRun(folder=out, digest=digest, metrics=metrics, card={**card, "digest": digest})
