"""The evidence for a candidate: how it did on held-out patients, beside champion and baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from modelling.evaluation import evaluate, paired_difference
from modelling.evaluation.subgroups import group_rows
from modelling.registry.rules import CHAMPION

SMALLEST_CLASS = 5
"""Fewest events and non-events of a group whose difference to the champion is computed."""


def gather_evidence(
    labels: NDArray[np.generic],
    probability: NDArray[np.generic],
    *,
    task: str,
    model: str,
    champion: NDArray[np.generic] | None,
    champion_facts: Mapping[str, Any] | None,
    baselines: Mapping[str, NDArray[np.generic]],
    groups: pl.DataFrame,
    subjects: NDArray[np.generic],
    leaks: Sequence[Mapping[str, Any]] | None,
    skipped: Mapping[str, int] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluate a candidate on held-out samples that every compared model scored.

    Parameters
    ----------
    labels, probability
        ``[n]``; 0 or 1, and the candidate's calibrated probability.
    champion
        The champion's probability of the same samples; None if there is no champion or it cannot score.
    champion_facts
        ``digest``, ``name`` and, where it could not score, ``error``.
    baselines
        Name to scores of the same samples.
    groups
        From :func:`modelling.evaluation.sample_groups`.
    subjects
        ``[n]``; samples of one patient are resampled together.
    leaks
        From :func:`modelling.registry.leaks.find_leaks`.

    Returns
    -------
    dict
        JSON-ready; aggregates only. An :class:`modelling.evaluation.Evaluation` as dict, with ``champion``,
        ``subgroup_differences`` and ``leaks``.

    Raises
    ------
    EvaluationError
        If all labels are the same or shapes do not fit.
    """
    others = dict(baselines) if champion is None else {CHAMPION: champion, **baselines}
    evaluation = evaluate(
        labels,
        probability,
        task=task,
        model=model,
        groups=groups,
        subjects=subjects,
        others=others,
        skipped=skipped,
        resamples=resamples,
        seed=seed,
    )
    differences = []
    if champion is not None:
        differences = _by_group(
            np.asarray(labels), probability, champion, groups, subjects, resamples=resamples, seed=seed
        )
    return {
        **evaluation.to_dict(),
        "champion": None if champion_facts is None else dict(champion_facts),
        "subgroup_differences": differences,
        "leaks": None if leaks is None else [dict(item) for item in leaks],
    }


def _by_group(
    labels: NDArray[np.generic],
    first: NDArray[np.generic],
    second: NDArray[np.generic],
    groups: pl.DataFrame,
    subjects: NDArray[np.generic],
    *,
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    y = labels.astype(np.int64)
    rows = []
    for name, level, mask in group_rows(groups):
        part = mask.to_numpy()
        events = int(y[part].sum())
        if min(events, int(part.sum()) - events) < SMALLEST_CLASS:
            continue
        found = paired_difference(
            y[part],
            np.asarray(first)[part],
            np.asarray(second)[part],
            resamples=resamples,
            seed=seed,
            clusters=np.asarray(subjects)[part],
        )
        rows.append(
            {
                "subgroup": name,
                "level": level,
                "samples": int(part.sum()),
                "events": events,
                "difference": found["auroc"],
            }
        )
    return rows
