"""In-hospital mortality on PhysioNet 2012, cross-validated on sets a and b.

    python -m modelling.benchmarks.physionet2012 --data DIR [--results DIR] [--seeds 3] [--workers 1] [--table]

Runs what is missing (it may be stopped and started again at any time) and prints one table; ``--table`` only
prints. Finished runs are kept in ``results`` beside this file, one small JSON each, and are committed.
``DIR`` is laid out as the challenge's Parquet edition: ``set-a.parquet``, ``outcomes-a.parquet``, the same for b.
Set c is neither read nor sought: it is kept for judging.

Every value passes the catalogue and the row rules, as at night. Folds are fixed (five, stratified); all
choices of features, settings and members were made on these folds, so the table is slightly optimistic; the
means of single runs and the stacked ensembles share that. Ward (the ICU type) is not used, so that the
measured ensemble is the shipped one.

References
----------
Silva et al., Predicting In-Hospital Mortality of ICU Patients: The PhysioNet/Computing in Cardiology
Challenge 2012, Computing in Cardiology 2012; data ODC-By 1.0.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch

from modelling.benchmarks.contenders import InputCache, baseline_contenders
from modelling.benchmarks.harness import Cohort, Contender, OutOfFold, assign_folds, collect, run_all
from modelling.benchmarks.networks import network_contenders
from modelling.benchmarks.parallel import run_parallel
from modelling.benchmarks.table import differences, markdown, rows_of
from modelling.catalogue import Catalogue, load_catalogue
from modelling.cohorts.tasks import get_task
from modelling.cohorts.training import training_samples
from modelling.errors import ModellingError
from modelling.mapping import map_observations
from modelling.physionet2012.reader import HOURS, observations, outcomes, read_outcomes, read_records, stays
from validation.contracts import write_json
from validation.rules import judge_events

SETS = ("a", "b")
TASK = "in-hospital-mortality"
ENSEMBLE = (
    "boosting + later outcomes",
    "logistic regression + later outcomes",
    "GRU + later outcomes",
)
BASELINE = "boosting"
FIRST = (
    "logistic regression", "boosting", "LSTM (MedFuse 2022, EHR only)", *ENSEMBLE, "MuFuse", "Nightingale",
    "SCANE", "additive (STraTS-style)",
)  # fmt: skip
"""What is run first: a stopped run should leave the rows that say most."""
OPTIONAL = ("MuFuse, forecasting first", "Nightingale, forecasting first")
"""Run only where ``--only`` names them: half an hour a fold on a CPU, before the rows that are compared."""
RESULTS = Path(__file__).parent / "results"
"""Kept with the code: hours of training that the next session need not repeat."""


def load_cohort(folder: Path, sets: Sequence[str] = SETS) -> tuple[Cohort, Catalogue]:
    """Read, map and judge the sets, and return every stay with its label and further outcomes.

    Raises
    ------
    SourceTableError
        If a file is missing or not as described.
    """
    catalogue = load_catalogue()
    parts = [read_set(folder, name, catalogue) for name in sets]
    samples, events, encounters, results = (
        pl.concat([part[position] for part in parts]) for position in range(4)
    )
    order = samples["subject_id"].arg_sort()
    samples, results = samples[order], results[order]
    labels = results["In-hospital_death"].to_numpy().astype(np.int64)
    days = results["Survival"].to_numpy()

    def died_within(limit: int) -> np.ndarray:
        return (((days >= 0) & (days <= limit)) | (labels == 1)).astype(np.float64)

    stay = results["Length_of_stay"].cast(pl.Float64)
    subjects = samples["subject_id"].to_numpy()
    cohort = Cohort(
        name="physionet2012",
        samples=samples,
        events=events,
        encounters=encounters,
        labels=labels,
        outcomes={
            "died_within_90_days": died_within(90),
            "died_within_year": died_within(365),
            "log_days": np.log1p(stay.clip(0, 60).to_numpy()),
        },
        folds=assign_folds(subjects, labels),
        digest=cohort_digest(samples, events, encounters, labels),
    )
    return cohort, catalogue


def read_set(
    folder: Path, name: str, catalogue: Catalogue
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Return samples, events, encounters and outcomes of one set; samples and outcomes are aligned."""
    records_file, outcomes_file = folder / f"set-{name}.parquet", folder / f"outcomes-{name}.parquet"
    records, results = read_records(records_file), read_outcomes(outcomes_file)
    said = observations(records, system=catalogue.system_url("p12"), source_file=records_file.name)
    events = judge_events(map_observations(said, catalogue).events, catalogue.limits()).accepted
    encounters = stays(records, source_file=records_file.name)
    # The challenge asks about every record, whatever the age.
    task = replace(get_task(TASK), minimum_age=0.0)
    samples = training_samples(encounters, outcomes(results), task=task, at_hours=HOURS).samples
    aligned = samples.select(RecordID="subject_id").join(
        results, on="RecordID", how="left", maintain_order="left"
    )
    return samples, events, encounters, aligned


def cohort_digest(
    samples: pl.DataFrame, events: pl.DataFrame, encounters: pl.DataFrame, labels: np.ndarray
) -> str:
    """Return a digest of all that a model can see: values, times before prediction, age, sex and labels."""
    seen = (
        events.join(samples.select("subject_id", "prediction_time"), on="subject_id")
        .select(
            "subject_id",
            "code",
            (pl.col("prediction_time") - pl.col("time")).dt.total_minutes().alias("minutes"),
            pl.col("numeric_value").cast(pl.Float32),
        )
        .sort(pl.all())
    )
    static = (
        samples.join(encounters.select("encounter_id", "birth_date", "sex"), on="encounter_id", how="left")
        .select(
            "subject_id",
            ((pl.col("prediction_time").dt.date() - pl.col("birth_date")).dt.total_days() / 365.2425)
            .floor()
            .alias("age"),
            "sex",
        )
        .sort("subject_id")
    )
    digest = hashlib.sha256()
    for frame in (seen, static):
        digest.update(frame.write_csv(float_precision=4).encode())
    digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()[:16]


def run(
    cohort: Cohort,
    contenders: Sequence[Contender],
    results: Path,
    *,
    workers: int = 1,
) -> None:
    """Run what is missing, saying each finished run on standard error."""
    if workers > 1:
        run_parallel(results, cohort, contenders, workers=workers)
    else:
        run_all(results, cohort, contenders, say=lambda line: print(line, file=sys.stderr, flush=True))


def table(cohort: Cohort, contenders: Sequence[Contender], results: Path) -> str:
    """Return the table of all finished contenders and write it, with differences, as JSON."""
    found: dict[str, OutOfFold] = {}
    for contender in contenders:
        result = collect(results, cohort, contender)
        if result is not None:
            found[contender.name] = result
    ensembles = {
        "boosting and logistic regression, stacked": list(ENSEMBLE[:2]),
        "shipped ensemble (boosting, logistic regression, GRU, stacked)": list(ENSEMBLE),
        "shipped ensemble and grid transformer, stacked": [*ENSEMBLE, "grid transformer + later outcomes"],
        "shipped ensemble, MuFuse and Nightingale, stacked": [*ENSEMBLE, "MuFuse", "Nightingale"],
    }
    rows, scores = rows_of(cohort, found, ensembles)
    pairs = [(name, BASELINE) for name in scores if name != BASELINE]
    compared = differences(cohort, scores, pairs)
    write_json(
        {"data": cohort.digest, "rows": [row.to_dict() for row in rows], "differences": compared},
        results / cohort.name / "table.json",
    )
    lines = [markdown(rows), "", f"Difference from {BASELINE!r}, paired bootstrap of stays (95 %):", ""]
    lines += ["| model | AUROC | p | AUPRC | p |", "|---|--:|--:|--:|--:|"]
    for name, parts in compared.items():
        auroc, auprc = parts["auroc"], parts["auprc_average_precision"]
        cells = [
            f"{part['value']:+.4f} ({part['lower']:+.4f} to {part['upper']:+.4f}) | {part['p_value']:.3f}"
            for part in (auroc, auprc)
        ]
        lines.append(f"| {name.removesuffix(f' - {BASELINE}')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="PhysioNet 2012 mortality, five folds of sets a and b")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="print what is finished, run nothing")
    parser.add_argument("--only", nargs="*", help="names to run; unset, all but those with forecasting first")
    parser.add_argument("--workers", type=int, default=1, help="processes; with several, one thread each")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        cohort, catalogue = load_cohort(arguments.data)
        seeds = tuple(range(arguments.seeds))
        inputs = InputCache()
        contenders = [
            *baseline_contenders(inputs, seeds=seeds),
            *network_contenders(catalogue, seeds=seeds),
        ]
        if not arguments.table:
            wanted = arguments.only or [one.name for one in contenders if one.name not in OPTIONAL]
            chosen = [one for one in contenders if one.name in wanted]
            chosen.sort(key=lambda one: FIRST.index(one.name) if one.name in FIRST else len(FIRST))
            if arguments.workers > 1:
                inputs(cohort)  # once, for all processes
            run(cohort, chosen, arguments.results, workers=arguments.workers)
        print(table(cohort, contenders, arguments.results))
    except ModellingError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
