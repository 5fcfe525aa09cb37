"""The training loop: epochs of stages, early stopping, resuming. Knows nothing of any model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modelling.batches import Batch, Dataset, shuffled_batches
from modelling.batches.ahead import ahead
from modelling.training.checkpoint import Progress, read_progress, restore_optimiser, save_progress
from modelling.training.config import TrainingConfig
from modelling.training.workers import Workers

#: ``(stage, done, total)``; called once an epoch and once a batch.
Watcher = Callable[[str, int, int], None]


def ignore(stage: str, done: int, total: int) -> None:
    """Watch nothing."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One thing to train.

    Attributes
    ----------
    name
        Shown and recorded.
    rows
        Called with a generator at the start of an epoch: positions in the dataset that it sees.
    loss
        ``(batch, generator) -> summed loss, number of terms``; the mean over the whole batch is minimised.
    score
        Score on the tuning split; higher is better.
    parameters
        What is optimised.
    mode
        Puts the model into the right mode at the start of an epoch.
    dataset
        What it trains on, when that is not the samples of the task.
    """

    name: str
    rows: Callable[[np.random.Generator], NDArray[np.int64]]
    loss: Callable[[Batch, torch.Generator], tuple[Tensor, Tensor]]
    score: Callable[[], float]
    parameters: list[nn.Parameter]
    mode: Callable[[], None]
    epochs: int
    learning_rate: float
    dataset: Dataset | None = None


def seed_of(*names: object) -> int:
    """Return a 63-bit seed that depends on all the names; the same in every process and version."""
    text = "|".join(str(name) for name in names)
    return int.from_bytes(sha256(text.encode()).digest()[:8]) >> 1


def _share(rows: NDArray[np.int64], workers: Workers, accumulation: int) -> Iterator[NDArray[np.int64]]:
    mine = rows[workers.rank :: workers.count]
    for cut in np.array_split(mine, min(accumulation, max(1, mine.size))):
        if cut.size:
            yield cut


def learning_rate_at(stage: Stage, config: TrainingConfig, step: int, total: int) -> float:
    """Return the learning rate of one step of ``total``: warm-up, then constant or cosine to a tenth."""
    rate = stage.learning_rate
    if step < config.warmup_steps:
        return rate * (step + 1) / config.warmup_steps
    if config.schedule == "cosine":
        done = (step - config.warmup_steps) / max(1, total - config.warmup_steps)
        return rate * (0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, done))))
    return rate


def _epoch(
    stage: Stage,
    dataset: Dataset,
    config: TrainingConfig,
    optimiser: torch.optim.Optimizer,
    *,
    epoch: int,
    seed: int,
    device: str,
    workers: Workers,
    watch: Watcher,
) -> float:
    # Everything random in an epoch follows from its number, so that a resumed run walks the same way.
    generator = np.random.default_rng(seed_of(seed, stage.name, epoch))
    torch.manual_seed(seed_of(seed, stage.name, epoch, workers.rank))
    noise = torch.Generator().manual_seed(seed_of(seed, stage.name, epoch, "noise", workers.rank))
    rows = stage.rows(generator)
    batches = [
        rows[part]
        for part in shuffled_batches(
            dataset.token_counts[rows], batch_size=config.batch_size, generator=generator
        )
    ]
    total, terms = torch.zeros((), dtype=torch.float64, device=device), 0.0
    mixed = config.precision == "bfloat16" and device.startswith("cuda")
    shares = [list(_share(batch_rows, workers, config.accumulation)) for batch_rows in batches]
    # Gathered and moved by a thread, so that the device does not wait for the next batch.
    gathered = ahead((dataset.batch(cut).to(device) for share in shares for cut in share), depth=2)
    for number, share in enumerate(shares):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate_at(
                stage, config, epoch * len(batches) + number, stage.epochs * len(batches)
            )
        optimiser.zero_grad(set_to_none=True)
        # The loss stays on the device until the epoch ends: to read it would make the device wait.
        summed = torch.zeros((), dtype=torch.float64, device=device)
        counted = torch.zeros((), dtype=torch.float64)
        for _ in share:
            batch = next(gathered)
            with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
                loss, count = stage.loss(batch, noise)
            if loss.requires_grad:
                loss.backward()
            summed += loss.detach()
            counted += count.detach()
        n = float(workers.sum(counted))
        workers.sum_gradients(stage.parameters)
        if n == 0:
            continue
        used = [parameter for parameter in stage.parameters if parameter.grad is not None]
        if used:
            torch._foreach_div_([parameter.grad for parameter in used if parameter.grad is not None], n)
        if config.gradient_clip is not None:
            nn.utils.clip_grad_norm_(used, config.gradient_clip)
        optimiser.step()
        total, terms = total + workers.sum(summed), terms + n
        watch(stage.name, epoch * len(batches) + number + 1, stage.epochs * len(batches))
    return float(total) / terms if terms else float("nan")


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }


def run_stages(
    model: nn.Module,
    stages: list[Stage],
    dataset: Dataset,
    config: TrainingConfig,
    *,
    seed: int,
    device: str,
    workers: Workers,
    checkpoint: Path | None,
    fingerprint: str,
    watch: Watcher,
) -> list[dict[str, Any]]:
    """Run stages one after another; each ends with its best weights in the model.

    Parameters
    ----------
    checkpoint
        File to write after every epoch and to resume from; None for neither.
    fingerprint
        Digest of all that decides the result; a checkpoint with another one is ignored.

    Returns
    -------
    list of dict
        ``stage``, ``epoch``, ``loss``, ``score`` of every epoch.
    """
    found = read_progress(checkpoint, fingerprint) if checkpoint else None
    progress, saved = found or (Progress(fingerprint=fingerprint), None)
    best = _tensors(model)
    if saved:
        model.load_state_dict(saved["model"])
        best = saved["best"]
    while progress.stage < len(stages):
        stage = stages[progress.stage]
        optimiser = torch.optim.AdamW(
            stage.parameters,
            lr=stage.learning_rate,
            weight_decay=config.weight_decay,
            fused=device.startswith("cuda"),
        )
        if saved:
            restore_optimiser(optimiser, saved["optimiser"])
            saved = None
        while progress.epoch < stage.epochs and progress.epoch - progress.best_epoch <= config.patience:
            stage.mode()
            loss = _epoch(
                stage, stage.dataset or dataset, config, optimiser,
                epoch=progress.epoch, seed=seed, device=device, workers=workers, watch=watch,
            )  # fmt: skip
            score = stage.score()
            progress.history.append(
                {
                    "stage": stage.name,
                    "epoch": progress.epoch,
                    "loss": round(loss, 6),
                    "score": round(score, 6),
                }
            )
            if score > progress.best_score:
                progress.best_score, progress.best_epoch, best = score, progress.epoch, _tensors(model)
            progress.epoch += 1
            if checkpoint and workers.rank == 0:
                save_progress(checkpoint, progress, model=model, best=best, optimiser=optimiser)
        if progress.best_epoch >= 0:
            model.load_state_dict(best)
        progress.stage, progress.epoch = progress.stage + 1, 0
        progress.best_score, progress.best_epoch = float("-inf"), -1
        best = _tensors(model)
        watch(stage.name, 1, 1)
    workers.wait()
    return progress.history
