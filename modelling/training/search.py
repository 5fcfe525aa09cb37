"""Random search over the learning rates, as MedFuse 2022 draws them: resumable, judged on the tuning split."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from modelling.errors import TrainingError
from modelling.registry.folder import CARD
from modelling.training.config import TrainingConfig
from modelling.training.loop import seed_of
from modelling.training.train import TrainedRun
from modelling.training.workers import current_workers
from validation.contracts import write_json

RANGE = (1e-5, 1e-3)
"""MedFuse 2022, appendix: ten draws between these, log-uniform."""
RESULT = "search.json"


def draw_rates(config: TrainingConfig, *, count: int, seed: int) -> list[TrainingConfig]:
    """Return ``count`` settings whose two learning rates are drawn log-uniformly from :data:`RANGE`."""
    rng = np.random.default_rng(seed_of(seed, "search"))
    low, high = (math.log(rate) for rate in RANGE)
    rates = np.exp(rng.uniform(low, high, size=(count, 2)))
    return [
        replace(config, learning_rate=float(f"{fusion:.4g}"), pretrain_learning_rate=float(f"{encoder:.4g}"))
        for fusion, encoder in rates
    ]


def tuning_score(metrics: dict[str, Any]) -> float:
    """Return what candidates are ranked by: average precision, or minus the mean absolute error."""
    tuning = metrics["tuning"]
    if tuning.get("mae") is not None:
        return -float(tuning["mae"])
    found = tuning.get("average_precision")
    return float("-inf") if found is None else float(found)


def search_rates(
    run: Callable[[TrainingConfig, Path], TrainedRun],
    config: TrainingConfig,
    *,
    count: int,
    seed: int,
    out: Path,
) -> TrainedRun:
    """Train ``count`` candidates and leave the best one's folder in ``out``, beside ``search.json``.

    The held-out split has no part in the choice. A search that was killed goes on: candidates that were
    finished are read, not trained again.

    Parameters
    ----------
    run
        Trains with settings into a folder.
    config
        All other settings.
    out
        Folder of the result; candidates are trained in ``out/search/00`` and so on, and removed at the end.

    Raises
    ------
    TrainingError
        If ``count`` is below 1.
    """
    if count < 1:
        raise TrainingError("a search needs at least one draw")
    tried: list[dict[str, Any]] = []
    best: TrainedRun | None = None
    for number, candidate in enumerate(draw_rates(config, count=count, seed=seed)):
        folder = out / "search" / f"{number:02d}"
        result = _finished(folder, candidate) or run(candidate, folder)
        tried.append(
            {
                "learning_rate": candidate.learning_rate,
                "pretrain_learning_rate": candidate.pretrain_learning_rate,
                "tuning": result.metrics["tuning"],
            }
        )
        if best is None or tuning_score(result.metrics) > tuning_score(best.metrics):
            best = result
    assert best is not None  # noqa: S101 - count is at least 1
    workers = current_workers()
    if workers.rank == 0:
        for path in best.folder.iterdir():
            path.replace(out / path.name)
        write_json({"range": RANGE, "chosen": int(best.folder.name), "tried": tried}, out / RESULT)
        shutil.rmtree(out / "search")
    workers.wait()
    return replace(best, folder=out)


def _finished(folder: Path, config: TrainingConfig) -> TrainedRun | None:
    """Return a candidate that an earlier, killed search finished with the same settings."""
    if not (folder / CARD).is_file():
        return None
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    made = json.loads((folder / "config.json").read_text(encoding="utf-8"))["training"]
    same = json.loads(json.dumps({**config.to_dict(), "kind": made["kind"], "targets": made["targets"]}))
    if made != same:
        return None
    return TrainedRun(folder=folder, digest=card["digest"], metrics=card["metrics"], card=card)
