"""How many local patients does fine-tuning take? PhysioNet 2012 as two hospitals, by type of ICU.

    python -m modelling.benchmarks.few_shot --data DIR [--out FILE.json] [--picture FILE.png]

"Hospital A" are the medical units (coronary care, medical ICU), "hospital B" the surgical ones (cardiac surgery
recovery, surgical ICU). A network is trained on A, and then, for each number of B's patients, it is fine-tuned on
them with A's encoding and weights, and another one is trained on them alone. Both are judged on the same half of
B, which no training sees.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from modelling.batches import Dataset, Encoding, fit_encoding, prepare
from modelling.batches.encoding import CatalogueLike
from modelling.benchmarks.harness import Cohort
from modelling.benchmarks.physionet2012 import load_cohort
from modelling.errors import BenchmarkError, ModellingError
from modelling.evaluation import classification_metrics
from modelling.evaluation.plots import BLUE, GREY, ORANGE
from modelling.training import Fitted, TrainingConfig, fit_network, predict, preset
from modelling.training.calibrate import fit_calibration
from validation.contracts import empty, write_json

SURGICAL = ("Cardiac Surgery Recovery Unit", "Surgical ICU")
SIZES = (50, 100, 200, 400, 800)
MODEL = "medfuse"
TUNING_SHARE = 0.25
Rows = NDArray[np.int64]
Say = Callable[[str], None]


def hospitals(cohort: Cohort) -> tuple[Rows, Rows]:
    """Return the rows of the medical and of the surgical units.

    Raises
    ------
    BenchmarkError
        If either is empty.
    """
    wards = dict(cohort.encounters.select("encounter_id", "ward").iter_rows())
    surgical = np.array([wards[name] in SURGICAL for name in cohort.samples["encounter_id"]])
    if surgical.all() or not surgical.any():
        raise BenchmarkError("the data hold one type of unit only")
    return np.flatnonzero(~surgical), np.flatnonzero(surgical)


def divided(rows: Rows, labels: NDArray[np.int64], share: float, seed: int) -> tuple[Rows, Rows]:
    """Split rows at random with the same share of events on both sides; the second part has ``share``."""
    generator = np.random.default_rng(seed)
    first, second = [], []
    for value in (0, 1):
        own = generator.permutation(rows[labels[rows] == value])
        cut = max(1, round(share * own.size))
        second.append(own[:cut])
        first.append(own[cut:])
    return np.sort(np.concatenate(first)), np.sort(np.concatenate(second))


class Study:
    """The two hospitals, encoded by one or another encoding.

    Parameters
    ----------
    steps_of
        Fewer patients than this are trained on for more epochs, so that they make as many steps; early stopping
        ends what does not get better.
    """

    def __init__(
        self, cohort: Cohort, catalogue: CatalogueLike, config: TrainingConfig, *, steps_of: int = 0
    ) -> None:
        self.cohort, self.catalogue, self.config, self.steps_of = cohort, catalogue, config, steps_of
        self.samples = cohort.samples.with_columns(
            pl.Series("boolean_value", cohort.labels.astype(bool), pl.Boolean)
        )

    def encoding(self, rows: Rows) -> Encoding:
        """Fit an encoding on these rows."""
        return fit_encoding(
            samples=self.samples[rows],
            encounters=self.cohort.encounters,
            events=self.cohort.events,
            recordings=empty("recordings"),
            catalogue=self.catalogue,
            settings=self.config.encoding,
        )

    def encoded(self, rows: Rows, encoding: Encoding) -> Dataset:
        """Encode these rows."""
        samples = self.samples[rows]
        own = self.cohort.events.join(samples.select("subject_id").unique(), on="subject_id", how="semi")
        return prepare(
            samples=samples,
            encounters=self.cohort.encounters,
            events=own,
            recordings=empty("recordings"),
            images=empty("images"),
            run_folder=Path(),
            encoding=encoding,
        )

    def fit(
        self, rows: Rows, encoding: Encoding, *, seed: int, start: Fitted | None = None
    ) -> tuple[Fitted, Dataset]:
        """Train on most of these rows, and stop and calibrate by the others."""
        train, tuning = divided(rows, self.cohort.labels, TUNING_SHARE, seed)
        held = self.encoded(tuning, encoding)
        config = self.config
        if rows.size < self.steps_of:
            config = replace(config, epochs=math.ceil(config.epochs * self.steps_of / rows.size))
        if start is not None:
            # Encoders are trained already; the whole network moves on from where it stands, more slowly.
            config = replace(config, pretrain_epochs=0, learning_rate=config.learning_rate / 2)
        fitted = fit_network(
            train=self.encoded(train, encoding),
            tuning=held,
            model=MODEL,
            config=config,
            seed=seed,
            initial_weights=None if start is None else start.network.state_dict(),
        )
        return fitted, held

    def judge(self, fitted: Fitted, tuning: Dataset | None, test: Dataset) -> dict[str, Any]:
        """Return AUROC, AUPRC and calibration in the large on the test rows, with intervals."""
        calibration = None
        if tuning is not None:
            logits = predict(fitted.network, tuning, device=fitted.device)[:, 0]
            calibration = fit_calibration(logits, tuning.all.label.double().numpy())
        logits = predict(fitted.network, test, device=fitted.device)[:, 0]
        p = 1 / (1 + np.exp(-logits)) if calibration is None else calibration.probability(logits)
        found = classification_metrics(test.all.label.numpy().astype(np.int64), p, resamples=200)
        names = ("auroc", "auprc_average_precision", "calibration_in_the_large")
        return {name: found[name].to_dict() for name in names}


def run_study(study: Study, *, sizes: Sequence[int], draws: int, say: Say) -> dict[str, Any]:
    """Run the study and return its numbers.

    Parameters
    ----------
    sizes
        Numbers of hospital B's patients.
    draws
        Random draws of each number.
    """
    home, away = hospitals(study.cohort)
    pool, test_rows = divided(away, study.cohort.labels, 0.5, 0)
    encoding = study.encoding(home)
    start, tuning = study.fit(home, encoding, seed=0)
    test = study.encoded(test_rows, encoding)
    rows = [
        {"patients": 0, "draw": 0, "how": "as trained on A", **study.judge(start, tuning, test)},
    ]
    say(f"A alone: AUROC on B {rows[0]['auroc']['value']:.3f}")
    for size in (n for n in sizes if n <= pool.size):
        for draw in range(draws):
            own = divided(pool, study.cohort.labels, size / pool.size, 100 + draw)[1]
            tuned, held = study.fit(own, encoding, seed=draw, start=start)
            rows.append(
                {"patients": size, "draw": draw, "how": "fine-tuned", **study.judge(tuned, held, test)}
            )
            local = study.encoding(own)
            alone, held = study.fit(own, local, seed=draw)
            judged = study.judge(alone, held, study.encoded(test_rows, local))
            rows.append({"patients": size, "draw": draw, "how": "B alone", **judged})
            say(
                f"{size} patients, draw {draw}: fine-tuned {rows[-2]['auroc']['value']:.3f}, "
                f"alone {rows[-1]['auroc']['value']:.3f}"
            )
    return {
        "data": study.cohort.digest,
        "patients_of_a": int(home.size),
        "test_patients_of_b": int(test_rows.size),
        "test_events_of_b": int(study.cohort.labels[test_rows].sum()),
        "model": MODEL,
        "epochs": study.config.epochs,
        "steps_of": study.steps_of,
        "rows": rows,
    }


def table(result: dict[str, Any]) -> str:
    """Return the mean over draws as Markdown."""
    lines = ["| patients of B | how | AUROC | AUPRC | in the large |", "|--:|---|--:|--:|--:|"]
    keys = dict.fromkeys((row["patients"], row["how"]) for row in result["rows"])
    for patients, how in keys:
        own = [row for row in result["rows"] if (row["patients"], row["how"]) == (patients, how)]
        means = [
            float(np.mean([row[name]["value"] for row in own]))
            for name in ("auroc", "auprc_average_precision", "calibration_in_the_large")
        ]
        lines.append(f"| {patients} | {how} | {means[0]:.3f} | {means[1]:.3f} | {means[2]:+.2f} |")
    return "\n".join(lines)


def draw(result: dict[str, Any]) -> Figure:
    """Draw AUROC on B's test patients against the number of B's patients, each draw a point."""
    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    rows = result["rows"]
    start = rows[0]["auroc"]["value"]
    axes.axhline(start, color=GREY, linestyle="--", linewidth=1, label=f"as trained on A, {start:.3f}")
    for how, colour in (("fine-tuned", BLUE), ("B alone", ORANGE)):
        own = [row for row in rows if row["how"] == how]
        sizes = sorted({row["patients"] for row in own})
        means = [np.mean([row["auroc"]["value"] for row in own if row["patients"] == n]) for n in sizes]
        axes.scatter(
            [row["patients"] for row in own],
            [row["auroc"]["value"] for row in own],
            s=12,
            color=colour,
            alpha=0.5,
        )
        axes.plot(sizes, means, color=colour, label=how)
    axes.set(xscale="log", xlabel="Patients of hospital B", ylabel="AUROC")
    axes.set_xticks(sizes, [str(size) for size in sizes], minor=False)
    axes.minorticks_off()
    axes.legend(loc="best", frameon=False)
    return figure


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Few-shot curves between two types of ICU")
    parser.add_argument("--data", type=Path, required=True, help="folder of set-a.parquet and so on")
    parser.add_argument("--sets", nargs="+", default=["a"])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument(
        "--steps-of",
        type=int,
        default=0,
        help="give fewer patients than this more epochs, for as many steps; 0 gives all the same epochs",
    )
    parser.add_argument("--out", type=Path, help="also write the numbers as JSON")
    parser.add_argument("--picture", type=Path, help="also write the curves as PNG")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = preset("demo", MODEL, epochs=arguments.epochs, pretrain_epochs=0, device="cpu")
    try:
        cohort, catalogue = load_cohort(arguments.data, arguments.sets)
        result = run_study(
            Study(cohort, catalogue, config, steps_of=arguments.steps_of),
            sizes=arguments.sizes,
            draws=arguments.draws,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    except ModellingError as error:
        sys.exit(f"error: {error}")
    if arguments.out is not None:
        write_json(result, arguments.out)
    if arguments.picture is not None:
        draw(result).savefig(arguments.picture, dpi=110)
    print(json.dumps({key: value for key, value in result.items() if key != "rows"}))
    print(table(result))


if __name__ == "__main__":
    main()
