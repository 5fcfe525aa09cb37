"""Cross-validation that can be stopped at any time: one small result file a model, fold and seed."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from modelling.benchmarks.stored import StoredRun, read_run, write_run
from modelling.errors import BenchmarkError
from modelling.evaluation.discrimination import RankedScores, auroc_of, average_precision_of

Rows = NDArray[np.intp]
Floats = NDArray[np.float64]
FOLDS = 5
FOLD_SEED = 2012


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Labelled samples with all that any contender reads.

    Attributes
    ----------
    name
        Name of the data.
    samples, events, encounters
        Contract tables; rows of the arrays below follow ``samples``.
    labels
        0 or 1, ``[n]``.
    outcomes
        Further outcomes by name, ``[n]`` each, which may help training and are never inputs.
    folds
        Fold of each sample, ``[n]``.
    digest
        What the data and their mapping were: results of another digest are never mixed in.
    """

    name: str
    samples: pl.DataFrame
    events: pl.DataFrame
    encounters: pl.DataFrame
    labels: NDArray[np.int64]
    outcomes: Mapping[str, Floats] = field(default_factory=dict)
    folds: NDArray[np.int64]
    digest: str

    @cached_property
    def subjects(self) -> NDArray[np.int64]:
        """Subject of each sample, ``[n]``."""
        return self.samples["subject_id"].to_numpy()

    def split(self, fold: int) -> tuple[Rows, Rows]:
        """Return training and test rows of a fold."""
        return np.flatnonzero(self.folds != fold), np.flatnonzero(self.folds == fold)


def assign_folds(subjects: NDArray[np.generic], labels: NDArray[np.int64], *, folds: int = FOLDS) -> Rows:
    """Return a fixed stratified fold of each subject, whatever the order of the rows.

    Raises
    ------
    BenchmarkError
        If a subject has two samples: patients must not straddle folds.
    """
    if len(np.unique(subjects)) != len(subjects):
        raise BenchmarkError("a subject has more than one sample")
    order = np.argsort(subjects, kind="stable")
    result = np.empty(len(subjects), dtype=np.int64)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=FOLD_SEED)
    for fold, (_, test) in enumerate(splitter.split(order, labels[order])):
        result[order[test]] = fold
    return result


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A model of a benchmark.

    Attributes
    ----------
    name
        Shown in the table and used as folder name.
    score
        ``score(cohort, train, test, seed)`` returns scores of the test rows (log-odds where the model has
        probabilities). It may read labels of training rows only.
    settings
        Whatever changes its results; part of the results' key.
    seeds
        Seeds to run; a model without randomness has one.
    on_gpu
        Whether it computes on a GPU where there is one; not part of the results' key.
    """

    name: str
    score: Callable[[Cohort, Rows, Rows, int], Floats]
    settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    on_gpu: bool = False

    def key(self, cohort: Cohort) -> str:
        """Return a short digest of the settings and the data."""
        text = json.dumps(
            {"settings": dict(self.settings), "data": cohort.digest}, sort_keys=True, default=str
        )
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def result_path(folder: Path, cohort: Cohort, contender: Contender, fold: int, seed: int) -> Path:
    """Return where one run's scores lie."""
    name = re.sub(r"[^a-z0-9]+", "-", contender.name.lower()).strip("-")
    return folder / cohort.name / f"{name}-{contender.key(cohort)}" / f"fold-{fold}-seed-{seed}.json"


def auroc_and_precision(labels: NDArray[np.int64], scores: Floats) -> tuple[float, float]:
    """Return AUROC and average precision."""
    true, false = RankedScores.of(labels, scores).counts(np.ones(len(labels)))
    return float(auroc_of(true, false)[0]), float(average_precision_of(true, false)[0])


def _device(contender: Contender) -> str:
    if contender.on_gpu and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {platform.machine()}"


def run_once(folder: Path, cohort: Cohort, contender: Contender, fold: int, seed: int) -> bool:
    """Run one fold and seed unless its result is there; return whether it ran."""
    path = result_path(folder, cohort, contender, fold, seed)
    if path.is_file():
        return False
    train, test = cohort.split(fold)
    started = time.perf_counter()
    scores = np.asarray(contender.score(cohort, train, test, seed), dtype=np.float64)
    if scores.shape != test.shape or not np.isfinite(scores).all():
        raise BenchmarkError(f"{contender.name} gave scores of shape {scores.shape} or not finite")
    elapsed = time.perf_counter() - started
    auroc, precision = auroc_and_precision(cohort.labels[test], scores)
    about = {
        "contender": contender.name,
        "settings": json.loads(json.dumps(dict(contender.settings), default=str)),
        "data": cohort.digest,
        "fold": fold,
        "seed": seed,
        "computed_on": _device(contender),
        "auroc": round(auroc, 4),
        "average_precision": round(precision, 4),
    }
    write_run(path, StoredRun(scores=scores, seconds=elapsed, about=about), subjects=cohort.subjects[test])
    return True


@dataclass(frozen=True)
class OutOfFold:
    """Scores of every sample by models that never saw its label.

    Attributes
    ----------
    name
        Contender.
    runs
        Scores of each seed, ``[seeds, n]``.
    seconds
        Mean time of one fold's run.
    """

    name: str
    runs: Floats
    seconds: float

    @property
    def mean(self) -> Floats:
        """Scores averaged over seeds, ``[n]``."""
        return self.runs.mean(axis=0)


def collect(folder: Path, cohort: Cohort, contender: Contender) -> OutOfFold | None:
    """Read all finished seeds of a contender; None if no seed has all its folds."""
    complete, seconds = [], []
    for seed in contender.seeds:
        scores = np.full(len(cohort.labels), np.nan)
        for fold in range(int(cohort.folds.max()) + 1):
            path = result_path(folder, cohort, contender, fold, seed)
            if not path.is_file():
                break
            _, test = cohort.split(fold)
            stored = read_run(path, subjects=cohort.subjects[test])
            scores[test] = stored.scores
            seconds.append(stored.seconds)
        if np.isfinite(scores).all():
            complete.append(scores)
    if not complete:
        return None
    return OutOfFold(contender.name, np.stack(complete), float(np.mean(seconds)))


def missing(
    folder: Path, cohort: Cohort, contenders: Sequence[Contender]
) -> Iterator[tuple[Contender, int, int]]:
    """Yield contender, fold and seed of what has no result yet: every first seed before any second one."""
    for position in range(max(len(contender.seeds) for contender in contenders)):
        for contender in contenders:
            if position >= len(contender.seeds):
                continue
            for fold in range(int(cohort.folds.max()) + 1):
                seed = contender.seeds[position]
                if not result_path(folder, cohort, contender, fold, seed).is_file():
                    yield contender, fold, seed


def run_all(
    folder: Path,
    cohort: Cohort,
    contenders: Sequence[Contender],
    *,
    say: Callable[[str], None],
) -> None:
    """Run what is missing, one after another."""
    for contender, fold, seed in missing(folder, cohort, contenders):
        started = time.perf_counter()
        if run_once(folder, cohort, contender, fold, seed):
            say(f"{contender.name}: fold {fold}, seed {seed}, {time.perf_counter() - started:.0f} s")
