"""The drift reference of the shipped mortality model: what 8,000 stays of PhysioNet 2012 knew at 48 hours.

    python -m modelling.shipped_weights.reference --data DIR [--results DIR]

Scores come into it only from the benchmark's complete out-of-fold scores: those of the fitted model on its
own stays would be too sure of themselves.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import polars as pl

from modelling.baselines.boosting import sigmoid
from modelling.benchmarks.contenders import InputCache
from modelling.benchmarks.harness import Cohort, Floats
from modelling.benchmarks.physionet2012 import RESULTS, load_cohort
from modelling.benchmarks.table import stacked
from modelling.errors import BenchmarkError, ModellingError
from modelling.scoring.reference import write_reference
from modelling.shipped_weights.mortality import FOLDER, TASK, members
from validation.contracts import empty
from validation.drift import Reference


def write_shipped_reference(cohort: Cohort, folder: Path, *, scores: Floats | None) -> Reference:
    """Write ``reference/`` into the shipped model's folder.

    Parameters
    ----------
    scores
        Out-of-fold probabilities ``[n]`` of the cohort's samples; None leaves scores out.
    """
    values = pl.DataFrame(schema={"kind": pl.String, "name": pl.String, "value": pl.Float64})
    if scores is not None:
        values = pl.select(kind=pl.lit("score"), name=pl.lit(TASK)).join(
            pl.DataFrame({"value": scores}), how="cross"
        )
    return write_reference(
        folder,
        samples=cohort.samples,
        encounters=cohort.encounters,
        events=cohort.events,
        recordings=empty("recordings"),
        images=empty("images"),
        run_folder=folder,
        scores=values,
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Write the shipped mortality model's drift reference")
    parser.add_argument("--data", type=Path, required=True, help="folder of set-a.parquet and so on")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    try:
        cohort, _ = load_cohort(arguments.data)
        try:
            parts = members(cohort, arguments.results, InputCache(), tuple(range(arguments.seeds)))
            scores = sigmoid(stacked(cohort, parts))
        except BenchmarkError as error:
            print(f"scores are left out: {error}", file=sys.stderr)
            scores = None
        reference = write_shipped_reference(cohort, arguments.out, scores=scores)
    except ModellingError as error:
        sys.exit(f"error: {error}")
    counts = dict(reference.frame.group_by("kind").len().sort("kind").iter_rows())
    print(json.dumps({"folder": str(arguments.out), "compared": counts}))


if __name__ == "__main__":
    main()
