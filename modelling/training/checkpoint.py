"""Where training stands: one safetensors file, replaced in one step; a kill loses an epoch at most."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from modelling.errors import CheckpointFormatError


@dataclass
class Progress:
    """Position in a run: which stage, which epoch, what was best.

    Attributes
    ----------
    fingerprint
        Digest of settings, data and seed; a checkpoint of another run is not resumed.
    stage, epoch
        Next stage and next epoch of it.
    best_score, best_epoch
        Of the current stage.
    history
        One entry an epoch: stage, epoch, loss, score.
    """

    fingerprint: str
    stage: int = 0
    epoch: int = 0
    best_score: float = float("-inf")
    best_epoch: int = -1
    history: list[dict[str, Any]] = field(default_factory=list)


def _optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"optimiser.{index}.{name}": torch.as_tensor(value).detach().cpu().contiguous()
        for index, state in optimiser.state_dict()["state"].items()
        for name, value in state.items()
    }


def _restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        _, index, name = key.split(".", 2)
        state.setdefault(int(index), {})[name] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def save_progress(
    path: Path,
    progress: Progress,
    *,
    model: nn.Module,
    best: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
) -> None:
    """Write position, current weights, best weights and optimiser state."""
    tensors = {
        f"model.{name}": tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    tensors |= {f"best.{name}": tensor.detach().cpu().contiguous() for name, tensor in best.items()}
    tensors |= _optimiser_tensors(optimiser)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    save_file(
        {name: tensor.clone() for name, tensor in tensors.items()},
        temporary,
        metadata={"progress": json.dumps(asdict(progress))},
    )
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def read_progress(path: Path, fingerprint: str) -> tuple[Progress, dict[str, dict[str, Tensor]]] | None:
    """Read a checkpoint of the same run, or None if there is none.

    Returns
    -------
    progress, tensors
        Tensors by part: ``model``, ``best``, ``optimiser``.

    Raises
    ------
    CheckpointFormatError
        If the file is not a checkpoint.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            progress = Progress(**json.loads(file.metadata()["progress"]))
            if progress.fingerprint != fingerprint:
                return None
            parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimiser": {}}
            for key in file.keys():  # noqa: SIM118 - not a dict
                name, _, rest = key.partition(".")
                parts[name][key if name == "optimiser" else rest] = file.get_tensor(key)
    except Exception as error:
        raise CheckpointFormatError(
            f"{path.name} is not a checkpoint ({type(error).__name__}); delete it"
        ) from None
    return progress, parts


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put a saved state back into a fresh optimiser of the same parameters."""
    if tensors:
        _restore_optimiser(optimiser, tensors)
