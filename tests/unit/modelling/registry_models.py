"""Small real model folders and held-out predictions for tests of the registry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import torch

from modelling.registry.evidence import gather_evidence
from modelling.registry.folder import write_folder

TASK = "in-hospital-mortality"


def model_folder(folder: Path, *, seed: int = 0, task: str = TASK) -> str:
    """Write a folder whose weights depend on the seed; return its digest."""
    weights = {"layer.weight": torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))}
    return write_folder(
        folder,
        weights=weights,
        config={
            "model": "medfuse",
            "task": task,
            "catalogue_digest": "c" * 64,
            "calibration": {"temperature": 1.0, "shift": 0.0},
            "thresholds": [{"level": "low", "from": 0.0}],
            "code_version": "0.1.0",
            "seed": seed,
        },
        card={
            "name": f"nightingale-medfuse-{task}",
            "version": "0.1.0",
            "description": "Random weights.",
        },
        metrics={"splits": {}},
    )


class HeldOut:
    """Held-out patients with a known risk: labels are drawn from it, so the true risk is calibrated."""

    def __init__(self, n: int = 500, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.risk_logit = generator.normal(-1.2, 1.6, n)
        self.labels = (generator.random(n) < self.at(0.0)).astype(int)
        self.noise = generator.normal(0, 1, (3, n))
        self.groups = pl.DataFrame(
            {"sex": np.where(np.arange(n) % 2, "female", "male"), "unit": ["MICU"] * n}
        )
        self.subjects = np.arange(n)

    def at(self, shift: float, *, sharpen: float = 1.0) -> np.ndarray:
        """Return the true risk, shifted and sharpened on the scale of log-odds."""
        return 1 / (1 + np.exp(-(self.risk_logit * sharpen + shift)))

    def blurred(self, amount: float, row: int = 0) -> np.ndarray:
        """Return a risk that ranks worse the larger the amount."""
        return 1 / (1 + np.exp(-(self.risk_logit + amount * self.noise[row])))

    def evidence(self, probability: np.ndarray, *, champion: np.ndarray | None = None, **facts) -> dict:
        """Return the evidence of a candidate beside a champion and two weaker baselines."""
        digest = facts.pop("champion_digest", "shipped")
        settings = {
            "baselines": {"NEWS2": np.round(20 * self.blurred(4.0, 1)), "boosting": self.blurred(1.5, 2)},
            "leaks": [],
            "resamples": 200,
            "groups": self.groups,
        } | facts
        return gather_evidence(
            self.labels,
            probability,
            task=TASK,
            model="candidate",
            champion=champion,
            champion_facts=None if champion is None else {"digest": digest, "name": "champion"},
            subjects=self.subjects,
            **settings,
        )
