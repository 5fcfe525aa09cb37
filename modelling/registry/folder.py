"""The folder of a trained model, and how its digest guards it.

``weights.safetensors``  the weights and nothing else
``config.json``          model, settings, encoding, task, catalogue, calibration: what a score depends on
``card.json``            digest, thresholds, what it was trained on, limits: what a person needs
``metrics.json``         metrics and the history of training
``curves.png``           the curves of training

The digest is the SHA-256 of the weights file followed by ``config.json``: it changes when a score could.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from modelling.errors import CheckpointDigestError, CheckpointFormatError
from validation.contracts import write_json

WEIGHTS, CONFIG, CARD, METRICS, CURVES = (
    "weights.safetensors", "config.json", "card.json", "metrics.json", "curves.png",
)  # fmt: skip
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A model folder that was read and checked."""

    path: Path
    digest: str
    config: dict[str, Any]
    card: dict[str, Any]
    weights: dict[str, Tensor]


def folder_digest(weights: bytes, config: bytes) -> str:
    """Return the hex digest of a model's weights and configuration."""
    return sha256(weights + config).hexdigest()


def _write(content: bytes, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_folder(
    path: Path,
    *,
    weights: dict[str, Tensor],
    config: dict[str, Any],
    card: dict[str, Any],
    metrics: dict[str, Any],
) -> str:
    """Write a model folder and return its digest; the card, which names it, is written last."""
    path.mkdir(parents=True, exist_ok=True)
    temporary = path / f".{WEIGHTS}.{os.getpid()}.tmp"
    save_file(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}, temporary
    )
    content = temporary.read_bytes()
    text = json.dumps({"format": FORMAT, **config}, indent=1, sort_keys=True).encode()
    temporary.replace(path / WEIGHTS)
    _write(text, path / CONFIG)
    write_json(metrics, path / METRICS)
    digest = folder_digest(content, text)
    write_json({**card, "digest": digest}, path / CARD)
    return digest


def read_folder(path: Path) -> ModelFolder:
    """Read a model folder and check it; nothing in it is executed.

    Raises
    ------
    CheckpointFormatError
        If a file is missing, weights are not safetensors (a pickle, say), or JSON cannot be read.
    CheckpointDigestError
        If weights or configuration are not those that the card names.
    """
    missing = [name for name in (WEIGHTS, CONFIG, CARD) if not (path / name).is_file()]
    if missing:
        pickled = [
            item.name for item in path.glob("*") if item.suffix in {".pt", ".pth", ".pkl", ".bin", ".ckpt"}
        ]
        hint = f"; {', '.join(sorted(pickled))} is not safetensors and is never loaded" if pickled else ""
        raise CheckpointFormatError(f"model folder {path.name!r} lacks {', '.join(missing)}{hint}")
    content, text = (path / WEIGHTS).read_bytes(), (path / CONFIG).read_bytes()
    try:
        weights = load(content)
    except SafetensorError:
        raise CheckpointFormatError(f"{WEIGHTS} in {path.name!r} is not a safetensors file") from None
    try:
        config, card = json.loads(text), json.loads((path / CARD).read_bytes())
    except ValueError:
        raise CheckpointFormatError(f"{CONFIG} or {CARD} in {path.name!r} is not JSON") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise CheckpointFormatError(f"model folder {path.name!r} has another format; train it again")
    digest = folder_digest(content, text)
    if not isinstance(card, dict) or card.get("digest") != digest:
        raise CheckpointDigestError(
            f"weights or configuration in {path.name!r} are not those of its card "
            f"(found {digest[:12]}, card says {str(card.get('digest'))[:12]})"
        )
    return ModelFolder(path=path, digest=digest, config=config, card=card, weights=weights)
