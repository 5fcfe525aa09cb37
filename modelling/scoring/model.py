"""A trained model, ready to score: read, checked, and refused when it does not fit."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from modelling.batches import Encoding, Modality
from modelling.errors import CatalogueMismatchError, CheckpointFormatError, ModellingError
from modelling.models import RiskModel, build_model
from modelling.registry.folder import ModelFolder, read_folder
from modelling.scoring.encoders import Encoders, build_encoders
from modelling.training.calibrate import Calibration
from modelling.training.intervals import ProbabilityInterval, interval_from_dict
from modelling.training.workers import choose_device

log = logging.getLogger(__name__)

GPU_BATCHES = 8
"""How many times the tokens of a CPU's batch a GPU's may have; memory that runs out halves it."""


@dataclass(frozen=True, kw_only=True)
class ScoringModel:
    """A network in evaluation mode with all that its scores need.

    Attributes
    ----------
    network, encoding, calibration
        From input tables to a calibrated probability.
    encoders
        What turns ECGs and images into embeddings before the network; None if it reads neither.
    thresholds
        Lowest probability of each risk level.
    interval
        Conformal bounds of the probability; None for a model that was trained without.
    name, version, digest, task, horizon_hours
        Identity, as written into scores.
    device, dtype
        Where and in what precision the network computes: float64 on a CPU, so that the rounded score does
        not depend on how samples were batched; float32 on a GPU. ``device`` becomes ``computed_on`` of
        every score.
    card
        The model card.
    """

    network: RiskModel
    encoders: Encoders | None
    encoding: Encoding
    calibration: Calibration
    thresholds: list[dict[str, Any]]
    name: str
    version: str
    digest: str
    task: str
    horizon_hours: float
    device: str
    dtype: torch.dtype
    card: dict[str, Any]
    interval: ProbabilityInterval | None = None

    @property
    def token_budget(self) -> int:
        """Padded tokens a batch: a GPU takes more, since there the time of a small batch is that of its calls."""
        return self.network.token_budget * (GPU_BATCHES if self.device.startswith("cuda") else 1)

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Modalities that the network can use."""
        return self.network.modalities


def scoring_device(name: str) -> str:
    """Return the device to score on: a GPU that is asked for but not there becomes the CPU, with a warning."""
    chosen = choose_device(name)
    if chosen.startswith("cuda") and not torch.cuda.is_available():
        log.warning("no GPU is available: scores are computed on the CPU, and say so")
        return "cpu"
    return chosen


def scoring_model(folder: ModelFolder, *, device: str = "auto") -> ScoringModel:
    """Build the network of a checked folder.

    Raises
    ------
    CheckpointFormatError
        If weights and configuration do not fit each other.
    """
    config, card = folder.config, folder.card
    kind = config.get("target", {}).get("kind", "binary")
    if kind != "binary":
        raise CheckpointFormatError(
            f"model folder {folder.path.name!r} answers a {kind} task; nightly scores are probabilities of one event"
        )
    try:
        encoding = Encoding.from_dict(config["encoding"])
        network = build_model(config["model"], encoding, config["model_settings"])
        network.load_state_dict(folder.weights)
        calibration = Calibration(**config["calibration"])
        interval = interval_from_dict(config.get("conformal"))
    except (KeyError, TypeError, RuntimeError, ModellingError) as error:
        raise CheckpointFormatError(
            f"weights and configuration in {folder.path.name!r} do not fit ({type(error).__name__})"
        ) from None
    name = scoring_device(device)
    dtype = torch.float64 if name == "cpu" else torch.float32
    encoders = build_encoders(network, encoding, device=name)  # before the network changes its precision
    return ScoringModel(
        network=network.to(device=name, dtype=dtype).eval(),
        encoders=encoders,
        encoding=encoding,
        calibration=calibration,
        thresholds=config["thresholds"],
        interval=interval if isinstance(interval, ProbabilityInterval) else None,
        name=card["name"],
        version=card["version"],
        digest=folder.digest,
        task=config["task"],
        horizon_hours=float(config["horizon_hours"] or 0.0),
        device=name,
        dtype=dtype,
        card=card,
    )


def load_model(folder: Path, *, device: str = "auto", catalogue_digest: str) -> ScoringModel:
    """Read a model folder for scoring.

    Parameters
    ----------
    folder
        As written by :func:`modelling.training.train`.
    device
        ``auto``, ``cpu`` or ``cuda:N``; without a GPU all of them are the CPU.
    catalogue_digest
        Version of the catalogue that maps the night's events.

    Raises
    ------
    CheckpointFormatError, CheckpointDigestError
        If the folder cannot be trusted; see :func:`modelling.registry.read_folder`.
    CatalogueMismatchError
        If the model was trained with another catalogue.
    """
    read = read_folder(folder)
    trained = str(read.config.get("catalogue_digest"))
    if trained != catalogue_digest:
        raise CatalogueMismatchError(
            f"model {folder.name!r} was trained with catalogue {trained[:12]}, "
            f"this is {catalogue_digest[:12]}; train it again or install the catalogue version it names"
        )
    return scoring_model(read, device=device)
