"""Cross-validated comparison of models with several labels: AUROC a label, macro mean, intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from modelling.evaluation.bootstrap import draw, percentile_interval
from modelling.evaluation.discrimination import RankedScores, auroc_of, average_precision_of

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
Fit = Callable[[Rows, Rows, int], Floats]
"""``fit(train, test, seed)`` returns logits of the test rows, ``[len(test), labels]``."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Labelled items of patients.

    Attributes
    ----------
    name
        Name of the benchmark; part of the results' folder.
    labels
        0/1 ``[n, k]``.
    names
        Of the labels.
    patients
        Patient of each item, ``[n]``.
    """

    name: str
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    patients: NDArray[np.int64]

    def folds(self, count: int = 5) -> NDArray[np.int64]:
        """Return a fixed fold of each item; a patient is never in two."""
        result = np.empty(len(self.patients), dtype=np.int64)
        splitter = GroupKFold(count, shuffle=True, random_state=2012)
        for fold, (_, test) in enumerate(splitter.split(self.labels, groups=self.patients)):
            result[test] = fold
        return result


def out_of_fold(
    data: Labelled, name: str, fit: Fit, folder: Path, *, seed: int, say: Callable[[str], None]
) -> Floats:
    """Return out-of-fold logits ``[n, k]``, running what is not stored yet."""
    folds = data.folds()
    result = np.full(data.labels.shape, np.nan)
    for fold in range(int(folds.max()) + 1):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        path = folder / data.name / name / f"fold-{fold}-seed-{seed}.npz"
        if not path.is_file():
            logits = fit(train, test, seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.tmp")
            with temporary.open("wb") as file:
                np.savez(file, test=test, logits=logits)
            temporary.replace(path)
            say(f"{data.name}, {name}: fold {fold}, seed {seed}")
        with np.load(path, allow_pickle=False) as stored:
            result[stored["test"]] = stored["logits"]
    return result


def label_metrics(
    data: Labelled, logits: Floats, *, minimum: int = 20, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Return AUROC and average precision of each label with at least ``minimum`` positives, and their mean.

    Resamples are of patients; the macro mean is recomputed in each.
    """
    used = [k for k in range(len(data.names)) if data.labels[:, k].sum() >= minimum]
    ranked = {k: RankedScores.of(data.labels[:, k], logits[:, k]) for k in used}

    def statistic(weights: Floats) -> dict[str, Floats]:
        values = {}
        for k in used:
            true, false = ranked[k].counts(weights)
            values[f"{data.names[k]}|auroc"] = auroc_of(true, false)
            values[f"{data.names[k]}|average_precision"] = average_precision_of(true, false)
        for metric in ("auroc", "average_precision"):
            values[f"macro|{metric}"] = np.mean([values[f"{data.names[k]}|{metric}"] for k in used], axis=0)
        return values

    point, drawn = draw(
        statistic,
        len(data.labels),
        resamples=resamples,
        rng=np.random.default_rng(seed),
        clusters=data.patients,
    )
    return {name: percentile_interval(point[name], drawn[name]).to_dict() for name in point}


def markdown(data: Labelled, results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table with one row a model and one column a label."""
    shown = [name for name in (*data.names, "macro") if any(f"{name}|auroc" in r for r in results.values())]
    positives = dict(zip(data.names, data.labels.sum(axis=0).tolist(), strict=True))
    header = [f"{name} ({positives[name]})" if name in positives else "macro mean" for name in shown]
    lines = [
        "| model | " + " | ".join(header) + " | macro average precision |",
        "|---|" + "--:|" * (len(shown) + 1),
    ]
    for model, metrics in results.items():
        cells = [f"{metrics[f'{name}|auroc']['value']:.3f}" for name in shown[:-1]]
        cells.append(_interval(metrics["macro|auroc"]))
        lines.append(
            f"| {model} | " + " | ".join([*cells, _interval(metrics["macro|average_precision"])]) + " |"
        )
    return "\n".join(lines)


def _interval(fields: Mapping[str, Any]) -> str:
    return f"{fields['value']:.3f} ({fields['lower']:.3f}–{fields['upper']:.3f})"


def averaged(parts: Sequence[Floats]) -> Floats:
    """Return the mean logits of several seeds."""
    return np.mean(np.stack(parts), axis=0)
