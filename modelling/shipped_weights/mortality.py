"""The shipped model of in-hospital mortality: the stacked ensemble, refitted on every stay of PhysioNet 2012.

    python -m modelling.shipped_weights.mortality --data DIR [--results DIR] [--out DIR]

The stacking weights, the calibration, the thresholds and the metrics on the card come from the out-of-fold
scores of :mod:`modelling.benchmarks.physionet2012` (run that first): nothing on the card was measured on
stays that the measured model had seen. The members are then fitted on all stays.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modelling.baselines.boosting import sigmoid
from modelling.baselines.ensemble import Ensemble, EnsembleSettings, fit_stack
from modelling.baselines.risk_model import ensemble_settings, ensemble_weights
from modelling.batches import EncodingSettings, fit_encoding
from modelling.batches.encoding import CatalogueLike
from modelling.benchmarks.contenders import (
    SEQUENCES,
    SOFT,
    InputCache,
    auxiliary_targets,
    baseline_contenders,
)
from modelling.benchmarks.harness import Cohort, OutOfFold, collect
from modelling.benchmarks.physionet2012 import ENSEMBLE, RESULTS, load_cohort
from modelling.benchmarks.table import stacked
from modelling.errors import BenchmarkError, ModellingError
from modelling.evaluation import Evaluation, evaluate, sample_groups, write_evaluation
from modelling.registry.folder import METRICS, read_folder, write_folder
from modelling.training.calibrate import Calibration, risk_thresholds
from modelling.training.train import code_version
from validation.contracts import empty

TASK = "in-hospital-mortality"
FOLDER = Path(__file__).parent / "physionet2012-mortality"
LIMITS = [
    "For review by clinicians; not a medical device, and not to be acted on alone.",
    "Trained on adult intensive-care stays of one hospital (2001-2008): expect other risks, and recalibrate, "
    "elsewhere, on general wards and in children.",
    "Asked at 48 hours after admission in training; at other times of a stay its calibration is unknown.",
    "Which tests were ordered, and how often, is part of what it reads: other routines shift its scores.",
    "No vasopressor, diagnosis, ECG or image is used.",
    "Valid only for inputs mapped by the catalogue version that it names.",
]


def members(cohort: Cohort, results: Path, inputs: InputCache, seeds: tuple[int, ...]) -> list[OutOfFold]:
    """Return the out-of-fold scores of the ensemble's members.

    Raises
    ------
    BenchmarkError
        If the benchmark has not been run on this cohort.
    """
    contenders = {contender.name: contender for contender in baseline_contenders(inputs, seeds=seeds)}
    found = []
    for name in ENSEMBLE:
        result = collect(results, cohort, contenders[name])
        if result is None or len(result.runs) < len(contenders[name].seeds):
            raise BenchmarkError(
                f"no complete out-of-fold scores of {name!r} in {results}; run "
                "python -m modelling.benchmarks.physionet2012 first"
            )
        found.append(result)
    return found


def build(
    cohort: Cohort,
    catalogue: CatalogueLike,
    *,
    results: Path,
    out: Path,
    seeds: tuple[int, ...],
    say: Callable[[str], None],
) -> str:
    """Fit on every stay, write the model folder and its evaluation, and return the digest."""
    inputs = InputCache()
    parts = members(cohort, results, inputs, seeds)
    crossed = sigmoid(stacked(cohort, parts))
    groups = sample_groups(cohort.samples, cohort.encounters)
    evaluation = evaluate(
        cohort.labels,
        crossed,
        task=TASK,
        model="shipped ensemble, out of fold",
        groups=groups,
        subjects=cohort.subjects,
        others={part.name: part.mean for part in parts},
        notes=(
            "Five-fold cross-validation on PhysioNet 2012 sets a and b; the shipped weights are then fitted "
            "on all of these stays.",
        ),
    )
    say(f"out of fold: AUROC {evaluation.metrics['auroc'].value:.4f}")

    settings = EnsembleSettings(sequences={"gru": SEQUENCES["GRU"]}, seeds=seeds, soft=SOFT)
    ensemble = Ensemble(features=inputs.settings(cohort), settings=settings)
    ensemble.weights, ensemble.intercept = fit_stack(
        np.stack([part.mean for part in parts], axis=1), cohort.labels
    )
    say("fitting the members on every stay")
    ensemble.fit_members(
        inputs(cohort),
        np.arange(len(cohort.labels)),
        cohort.labels,
        later=cohort.outcomes["died_within_90_days"],
        auxiliary=auxiliary_targets(cohort),
    )
    encoding = fit_encoding(
        samples=cohort.samples,
        encounters=cohort.encounters,
        events=cohort.events,
        recordings=empty("recordings"),
        catalogue=catalogue,
        settings=EncodingSettings(max_tokens=8192),
    )
    thresholds = risk_thresholds(crossed)
    config = {
        "model": "ensemble",
        "model_settings": ensemble_settings(ensemble),
        "encoding": encoding.to_dict(),
        "catalogue_digest": catalogue.digest,
        "task": TASK,
        "horizon_hours": None,
        "calibration": Calibration().to_dict(),
        "thresholds": thresholds,
        "seed": 0,
        "code_version": code_version(),
    }
    digest = write_folder(
        out,
        weights=ensemble_weights(ensemble),
        config=config,
        card=_card(cohort, catalogue, evaluation, thresholds, ensemble),
        metrics=evaluation.to_dict(),
    )
    from modelling.shipped_weights.reference import write_shipped_reference  # which imports this module

    write_shipped_reference(cohort, out, scores=crossed)
    for path in write_evaluation(evaluation, out, name="evaluation"):
        if path.suffix == ".png":
            path.replace(out / "curves.png")
        elif path.suffix in {".json", ".svg"}:
            path.unlink()
    return digest


def _card(
    cohort: Cohort,
    catalogue: CatalogueLike,
    evaluation: Evaluation,
    thresholds: list[dict[str, Any]],
    ensemble: Ensemble,
) -> dict[str, Any]:
    shown = ("auroc", "auprc_average_precision", "brier", "calibration_slope", "calibration_in_the_large")
    return {
        "name": f"nightingale-ensemble-{TASK}",
        "version": code_version(),
        "model": "ensemble",
        "task": TASK,
        "horizon_hours": None,
        "catalogue_digest": catalogue.digest,
        "description": "Gradient boosting, logistic regression and a recurrent network on vital signs, "
        "laboratory values, age and sex, stacked and calibrated. Trained on PhysioNet/CinC Challenge 2012 "
        "sets a and b (ODC-By 1.0; Silva et al. 2012, Goldberger et al. 2000).",
        "modalities": ["ehr"],
        "thresholds": thresholds,
        "trained_on": {
            "data": "PhysioNet/CinC Challenge 2012, sets a and b",
            "digest": cohort.digest,
            "samples": len(cohort.labels),
            "subjects": len(np.unique(cohort.subjects)),
            "events": int(cohort.labels.sum()),
            "features": len(ensemble.features.codes),
        },
        "metrics": {
            "out_of_fold": {
                "samples": evaluation.samples,
                "events": evaluation.events,
                **{name: evaluation.metrics[name].to_dict() for name in shown},
            }
        },
        "stack": dict(zip(ensemble.settings.members, np.round(ensemble.weights, 4).tolist(), strict=True)),
        "limits": LIMITS,
    }


def restamp(cohort: Cohort, catalogue: CatalogueLike, out: Path) -> str:
    """Let a shipped model follow a changed catalogue that leaves its training data as they were.

    A catalogue may gain a hospital's codes without touching any value of PhysioNet 2012. The events that
    the present catalogue gives are compared, by digest, with those of the training; only if they
    are equal does the folder name the present catalogue.

    Raises
    ------
    BenchmarkError
        If the training data would differ: the model must be built again.
    """
    found = read_folder(out)
    if found.card["trained_on"]["digest"] != cohort.digest:
        raise BenchmarkError("the present catalogue gives other training events: build the model again")
    config = {**found.config, "catalogue_digest": catalogue.digest}
    config["encoding"] = {**config["encoding"], "catalogue_digest": catalogue.digest}
    return write_folder(
        out,
        weights=found.weights,
        config=config,
        card={**found.card, "catalogue_digest": catalogue.digest},
        metrics=json.loads((out / METRICS).read_text(encoding="utf-8")),
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Fit the shipped mortality model on PhysioNet 2012")
    parser.add_argument("--data", type=Path, required=True, help="folder of set-a.parquet and so on")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument(
        "--restamp",
        action="store_true",
        help="only follow a catalogue that maps these data equally",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        cohort, catalogue = load_cohort(arguments.data)
        if arguments.restamp:
            digest = restamp(cohort, catalogue, arguments.out)
        else:
            digest = build(
                cohort,
                catalogue,
                results=arguments.results,
                out=arguments.out,
                seeds=tuple(range(arguments.seeds)),
                say=lambda line: print(line, file=sys.stderr, flush=True),
            )
    except ModellingError as error:
        sys.exit(f"error: {error}")
    print(json.dumps({"folder": str(arguments.out), "digest": digest}))


if __name__ == "__main__":
    main()
