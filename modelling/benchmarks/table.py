"""A benchmark's table: single runs, averaged seeds, and stacked ensembles, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelling.baselines.ensemble import fit_stack
from modelling.benchmarks.harness import Cohort, Floats, OutOfFold, auroc_and_precision
from modelling.evaluation.metrics import classification_metrics, paired_difference


def stacked(cohort: Cohort, members: Sequence[OutOfFold]) -> Floats:
    """Combine members' out-of-fold log-odds; the weights for a fold are fitted on the other folds only.

    The members' scores of those other folds come from models that saw this fold's labels, as always with
    stacking on one set of folds; with a handful of weights for 8,000 rows the effect is far below the noise.
    """
    columns = np.stack([member.mean for member in members], axis=1)
    result = np.full(len(cohort.labels), np.nan)
    for fold in range(int(cohort.folds.max()) + 1):
        train, test = cohort.split(fold)
        weights, intercept = fit_stack(columns[train], cohort.labels[train])
        result[test] = columns[test] @ weights + intercept
    return result


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    name: str
    seeds: int
    run_auroc: tuple[float, float]
    run_auprc: tuple[float, float]
    auroc: dict[str, Any]
    auprc: dict[str, Any]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def rows_of(
    cohort: Cohort,
    results: Mapping[str, OutOfFold],
    ensembles: Mapping[str, Sequence[str]],
    *,
    resamples: int = 1000,
) -> tuple[list[Row], dict[str, Floats]]:
    """Return the table's rows and each row's out-of-fold scores, ensembles last."""
    scores: dict[str, Floats] = {}
    rows = []
    for name, result in results.items():
        scores[name] = result.mean
        rows.append(_row(cohort, name, result.runs, result.seconds, resamples))
    for name, members in ensembles.items():
        found = [results[member] for member in members if member in results]
        if len(found) < len(members):
            continue
        scores[name] = stacked(cohort, found)
        rows.append(
            _row(cohort, name, scores[name][None, :], sum(r.seconds * len(r.runs) for r in found), resamples)
        )
    return rows, scores


def _row(cohort: Cohort, name: str, runs: Floats, seconds: float, resamples: int) -> Row:
    single = []
    for run in runs:
        for fold in range(int(cohort.folds.max()) + 1):
            _, test = cohort.split(fold)
            single.append(auroc_and_precision(cohort.labels[test], run[test]))
    mean, spread = np.mean(single, axis=0), np.std(single, axis=0, ddof=1)
    pooled = classification_metrics(
        cohort.labels, runs.mean(axis=0), resamples=resamples, calibration=False, clusters=cohort.subjects
    )
    return Row(
        name=name,
        seeds=len(runs),
        run_auroc=(float(mean[0]), float(spread[0])),
        run_auprc=(float(mean[1]), float(spread[1])),
        auroc=pooled["auroc"].to_dict(),
        auprc=pooled["auprc_average_precision"].to_dict(),
        seconds=seconds,
    )


def markdown(rows: Sequence[Row]) -> str:
    """Return the table as Markdown."""
    lines = [
        "| model | seeds | AUROC, one run: mean ± sd over folds | AUPRC, one run "
        "| AUROC, seeds averaged, pooled (95 %) | AUPRC, seeds averaged, pooled (95 %) | s a run |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        cells = [
            row.name,
            str(row.seeds),
            f"{row.run_auroc[0]:.3f} ± {row.run_auroc[1]:.3f}",
            f"{row.run_auprc[0]:.3f} ± {row.run_auprc[1]:.3f}",
            _interval(row.auroc),
            _interval(row.auprc),
            f"{row.seconds:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _interval(fields: Mapping[str, Any]) -> str:
    return f"{fields['value']:.4f} ({fields['lower']:.3f}–{fields['upper']:.3f})"


def differences(
    cohort: Cohort, scores: Mapping[str, Floats], pairs: Sequence[tuple[str, str]]
) -> dict[str, dict[str, Any]]:
    """Return paired bootstrap differences of named rows, first minus second."""
    return {
        f"{first} - {second}": paired_difference(
            cohort.labels, scores[first], scores[second], clusters=cohort.subjects
        )
        for first, second in pairs
        if first in scores and second in scores
    }
