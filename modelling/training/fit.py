"""Fit a network on encoded samples, in memory: what ``train`` and the benchmarks share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelling.batches import Dataset
from modelling.models import RiskModel, build_model, model_config
from modelling.training.config import TrainingConfig
from modelling.training.loop import Watcher, ignore, run_stages, seed_of
from modelling.training.objective import outputs_of
from modelling.training.picture_labels import Pictures
from modelling.training.stages import Material, plan_stages
from modelling.training.workers import Workers, choose_device


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A trained network.

    Attributes
    ----------
    network
        In evaluation mode, with the best weights, on ``device``.
    settings
        Complete settings of the model.
    history
        ``stage``, ``epoch``, ``loss``, ``score`` of every epoch.
    """

    network: RiskModel
    settings: dict[str, Any]
    history: list[dict[str, Any]]
    device: str


def fingerprint(config: TrainingConfig, model: str, seed: int, datasets: list[Dataset]) -> str:
    """Return a digest of all that decides the result of a fit."""
    encoding = datasets[0].encoding.to_dict()
    digest = sha256(json.dumps([config.to_dict(), model, seed, encoding], sort_keys=True).encode())
    for dataset in datasets:
        for name in ("feature", "value", "hours", "token_offsets", "label", "auxiliary", "static", "present"):
            digest.update(getattr(dataset.all, name).numpy().tobytes())
    return digest.hexdigest()


def _compiled(model: RiskModel, config: TrainingConfig, device: str) -> Callable[..., Tensor]:
    if not (config.compile and device.startswith("cuda")):
        return model
    torch._dynamo.config.suppress_errors = True  # what cannot be compiled runs as it is, with a warning
    return torch.compile(model, dynamic=True)


def fit_network(
    *,
    train: Dataset,
    tuning: Dataset,
    model: str,
    config: TrainingConfig,
    seed: int = 0,
    initial_weights: Mapping[str, Tensor] | None = None,
    pictures: Pictures | None = None,
    checkpoint: Path | None = None,
    workers: Workers | None = None,
    progress: Watcher | None = None,
) -> Fitted:
    """Build a network, run its stages, and return it with its best weights.

    Parameters
    ----------
    train, tuning
        Encoded with one encoding, fitted on the training samples.
    model, config
        Key of :data:`modelling.models.MODELS`, and settings.
    seed
        Of weights, order and noise.
    initial_weights
        Weights to start from where names and shapes agree.
    pictures
        Labelled images that its image encoder is trained on first.
    checkpoint
        File to resume from and to write after every epoch.
    workers
        This process among those that train together.
    progress
        ``(stage, done, total)``.
    """
    device = choose_device(config.device)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads or threads)
    try:
        torch.manual_seed(seed_of(seed, "weights"))
        given = dict(config.model)
        if outputs_of(config) > 1:
            given["outputs"] = outputs_of(config)
        if pictures is not None:
            given["image_labels"] = len(pictures.names)
        settings = model_config(model, given)
        network = build_model(model, train.encoding, settings)
        if initial_weights:
            own = network.state_dict()
            fitting = {
                name: tensor
                for name, tensor in initial_weights.items()
                if name in own and own[name].shape == tensor.shape
            }
            network.load_state_dict({**own, **fitting})
        network.to(device)
        if device.startswith("cuda"):
            # Tensor cores want channels last; four-dimensional weights are convolutions over images.
            network.to(memory_format=torch.channels_last)
        stages = plan_stages(
            network,
            Material(train=train, tuning=tuning),
            config,
            device,
            _compiled(network, config, device),
            pictures,
        )
        parts = [train, tuning] if pictures is None else [train, tuning, pictures.train, pictures.tuning]
        history = run_stages(
            network,
            stages,
            train,
            config,
            seed=seed,
            device=device,
            workers=workers or Workers(),
            checkpoint=checkpoint,
            fingerprint=fingerprint(config, model, seed, parts),
            watch=progress or ignore,
        )
    finally:
        torch.set_num_threads(threads)
    network.to(memory_format=torch.contiguous_format)
    return Fitted(network=network.eval(), settings=settings, history=history, device=device)
