"""The baselines of a benchmark, as contenders of the harness."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

import numpy as np

from modelling.baselines.boosting import PARAMETERS, ROUNDS, Boosting
from modelling.baselines.clinical_scores import CLINICAL_SCORES
from modelling.baselines.ensemble import Inputs, prepare_inputs, soft_labels
from modelling.baselines.features import FeatureSettings
from modelling.baselines.grid import GridPreparation
from modelling.baselines.logistic import Logistic
from modelling.baselines.sequence import Sequence, SequenceSettings
from modelling.baselines.summaries import observed_tokens
from modelling.benchmarks.harness import Cohort, Contender, Floats, Rows

SOFT = 0.3
"""Weight of a death within 90 days of a survivor to discharge, in soft labels."""

SEQUENCES = {
    "GRU": SequenceSettings(),
    "grid transformer": SequenceSettings(body="transformer", layers=2, learning_rate=1e-3),
}


class InputCache:
    """Inputs of a cohort, computed when first asked for; no label is read, no statistic of other rows."""

    def __init__(self, *, wards: bool = False) -> None:
        self.wards = wards
        self._held: dict[str, Inputs] = {}

    def settings(self, cohort: Cohort) -> FeatureSettings:
        """Return the columns: codes seen in at least 50 patients of the cohort (no label is read)."""
        return FeatureSettings.fit(cohort.events, cohort.encounters, wards=self.wards)

    def __call__(self, cohort: Cohort) -> Inputs:
        """Return the inputs of every sample."""
        if cohort.digest not in self._held:
            self._held[cohort.digest] = prepare_inputs(
                cohort.samples, cohort.events, cohort.encounters, self.settings(cohort)
            )
        return self._held[cohort.digest]


def auxiliary_targets(cohort: Cohort) -> np.ndarray | None:
    """Return further outcomes as columns ``[n, k]``, or None."""
    names = [name for name in ("died_within_year", "log_days") if name in cohort.outcomes]
    return np.stack([cohort.outcomes[name] for name in names], axis=1) if names else None


def _clinical(name: str, cohort: Cohort, train: Rows, test: Rows, seed: int) -> Floats:
    tokens = observed_tokens(cohort.samples[test.tolist()], cohort.events)
    return CLINICAL_SCORES[name](tokens, rows=len(test)).total


def _logistic(inputs: InputCache, soft: float, cohort: Cohort, train: Rows, test: Rows, seed: int) -> Floats:
    table = inputs(cohort).features
    model = Logistic().fit(table.take(train), _labels(cohort, soft)[train])
    return model.decision(table.take(test))


def _boosting(inputs: InputCache, soft: float, cohort: Cohort, train: Rows, test: Rows, seed: int) -> Floats:
    table = inputs(cohort).features
    model = Boosting(seeds=(seed,)).fit(table.take(train), _labels(cohort, soft)[train])
    return model.decision(table.take(test))


def _sequence(
    inputs: InputCache,
    settings: SequenceSettings,
    soft: float,
    cohort: Cohort,
    train: Rows,
    test: Rows,
    seed: int,
) -> Floats:
    held = inputs(cohort)
    codes = sorted(held.tokens["code"].unique())
    preparation = GridPreparation.fit(held.tokens, held.static, train, codes=codes)
    grid, static = preparation.transform(held.tokens, held.static, rows=held.rows)
    extra = auxiliary_targets(cohort) if settings.auxiliary_weight > 0 else None
    model = Sequence(settings=settings, preparation=preparation).fit(
        grid[train],
        static[train],
        _labels(cohort, soft)[train],
        None if extra is None else extra[train],
        seeds=(seed,),
    )
    return model.decision(grid[test], static[test])


def _labels(cohort: Cohort, soft: float) -> Floats:
    return soft_labels(cohort.labels, cohort.outcomes.get("died_within_90_days"), soft)


def baseline_contenders(inputs: InputCache, *, seeds: tuple[int, ...] = (0, 1, 2)) -> list[Contender]:
    """Return the clinical scores and the trained baselines.

    ``boosting`` and ``logistic regression`` see the plain label; those named ``+ later outcomes`` also learn
    from what happened after discharge (training rows only).
    """
    wards = {"wards": inputs.wards, "version": 1}
    found = [
        Contender(name=name, score=partial(_clinical, name), seeds=(0,), settings={"version": 1})
        for name in CLINICAL_SCORES
    ]
    for soft, suffix in ((0.0, ""), (SOFT, " + later outcomes")):
        common = wards | {"soft": soft}
        found.append(
            Contender(
                name=f"logistic regression{suffix}",
                score=partial(_logistic, inputs, soft),
                seeds=(0,),
                settings=common | {"strength": Logistic().strength},
            )
        )
        found.append(
            Contender(
                name=f"boosting{suffix}",
                score=partial(_boosting, inputs, soft),
                settings=common | dict(PARAMETERS) | {"rounds": ROUNDS},
                seeds=seeds,
            )
        )
    for name, settings in SEQUENCES.items():
        found.append(
            Contender(
                name=f"{name} + later outcomes",
                score=partial(_sequence, inputs, settings, SOFT),
                settings=wards | {"soft": SOFT} | asdict(settings),
                seeds=seeds,
            )
        )
    return found
