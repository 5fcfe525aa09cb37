"""The tables of the three papers on MIMIC-IV, one command a table, for those who hold the full data.

    python -m modelling.benchmarks.mimic TABLE --data DIR [--out DIR] [--seeds 3] [--smoke]

``DIR`` is what ``nightingale map-mimic`` writes, with ``--ecg`` and ``--cxr`` where a table needs them. Every row
is a training run like any other (its folder stays below ``--out``), so that a table that was stopped goes on.
``--smoke`` trains tiny networks for one epoch: it shows that a command runs, its figures mean nothing.

References
----------
Hayat et al., MedFuse, MLHC 2022, tables 2 and 3; MuFuse, arXiv 2511.09247; MedM2T, arXiv 2510.27321 v2.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from modelling.batches.encoding import CatalogueLike
from modelling.catalogue import load_catalogue
from modelling.cohorts.tasks import get_task
from modelling.cohorts.visibility import visible
from modelling.errors import BenchmarkError, ModellingError
from modelling.evaluation.mapped import MappedFolder, labelled_cohort, read_mapped
from modelling.registry.folder import CARD
from modelling.training import PRESETS, TrainingConfig, train

Settings = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """One table: a task, who is asked about, and rows of models with changes of the paper's settings.

    Attributes
    ----------
    paired
        Only samples that have an image (MedFuse's paired test set).
    """

    task: str
    rows: Mapping[str, tuple[str, Settings]]
    paired: bool = False
    needs: str = ""


def _medfuse(optimal: float) -> dict[str, tuple[str, Settings]]:
    def fused(name: str) -> dict[str, Any]:
        return {"model": {"fusion": name}}

    return {
        "LSTM, EHR only": ("medfuse", {"model": {"modalities": ("ehr",)}}),
        "early": ("medfuse", fused("early")),
        "joint": ("medfuse", fused("joint") | {"pretrain_epochs": 0}),
        "unified": ("medfuse", fused("unified") | {"pretrain_epochs": 0, "modality_dropout": 0.5}),
        "MMTM": ("medfuse", fused("mmtm") | {"pretrain_epochs": 0}),
        "DAFT": ("medfuse", fused("daft") | {"pretrain_epochs": 0}),
        "MedFuse, random start": ("medfuse", {"pretrain_epochs": 0}),
        "MedFuse, pre-trained": ("medfuse", {}),
        "MedFuse, OPTIMAL": ("medfuse", {"unimodal_ratio": optimal}),
    }


_MUFUSE = {
    "additive (STraTS)": ("mufuse", {"model": {"embedding": "additive", "pooling": "attention"}}),
    "SCANE": ("mufuse", {"model": {"embedding": "scane"}}),
    "MuFuse": ("mufuse", {}),
}


def _medm2t(*parts: str) -> dict[str, tuple[str, Settings]]:
    rows: dict[str, tuple[str, Settings]] = {"all": ("medm2t", {"model": {"parts": parts}})}
    for left_out in parts:
        kept = tuple(part for part in parts if part != left_out)
        rows[f"without {left_out}"] = ("medm2t", {"model": {"parts": kept}})
    return rows


_PARTS = ("static", "labs", "vitals", "ecg")
TABLES: dict[str, PaperTable] = {
    f"medfuse-{short}-{kind}": PaperTable(
        task=task, rows=_medfuse(optimal), paired=kind == "paired", needs="--cxr"
    )
    for short, task, optimal in (
        ("mortality", "in-hospital-mortality", 0.1),
        ("phenotyping", "phenotyping", 0.2),
    )
    for kind in ("paired", "partial")
} | {
    "mufuse-mortality": PaperTable(task="in-hospital-mortality", rows=_MUFUSE),
    "medm2t-mortality": PaperTable(task="mortality-24h", rows=_medm2t(*_PARTS), needs="--ecg"),
    "medm2t-length-of-stay": PaperTable(task="icu-length-of-stay", rows=_medm2t(*_PARTS), needs="--ecg"),
    "medm2t-cardiovascular": PaperTable(
        task="cardiovascular-90-days", rows=_medm2t("static", "labs", "ecg"), needs="--ecg"
    ),
}
"""Tables by name; ``needs`` names what ``map-mimic`` must be given beside the tables."""


def settings_of(model: str, changes: Settings, *, smoke: bool) -> TrainingConfig:
    """Return a row's settings: the paper's preset (the demo's for one epoch, with ``smoke``) with changes."""
    fields = dict(PRESETS["demo" if smoke else "paper"][model])
    given = {**fields, **changes, "model": {**fields.get("model", {}), **changes.get("model", {})}}
    if smoke:
        given |= {"epochs": 1, "pretrain_epochs": min(1, given.get("pretrain_epochs", 1))}
    return TrainingConfig.from_dict(given)


def run_table(
    table: PaperTable,
    folder: MappedFolder,
    catalogue: CatalogueLike,
    *,
    out: Path,
    seeds: int,
    smoke: bool,
    say: Callable[[str], None],
) -> dict[str, list[dict[str, Any]]]:
    """Run what is missing of a table and return the held-out metrics of each row, one entry a seed.

    Raises
    ------
    BenchmarkError
        If no sample is left.
    """
    cohort = labelled_cohort(folder, table.task)
    samples = cohort.samples
    if table.paired:
        rows = visible(folder.images, samples)["row"].unique().sort()
        samples = samples[rows.cast(pl.Int64).to_list()]
        if samples.is_empty():
            raise BenchmarkError(f"no sample has an image; map with {table.needs}")
    found: dict[str, list[dict[str, Any]]] = {}
    for row, (model, changes) in table.rows.items():
        config = settings_of(model, changes, smoke=smoke)
        for seed in range(seeds):
            where = out / row.replace(" ", "-").replace(",", "") / f"seed-{seed}"
            if (where / CARD).is_file():
                metrics = json.loads((where / CARD).read_text(encoding="utf-8"))["metrics"]
            else:
                metrics = train(
                    samples=samples,
                    labels=cohort.labels,
                    classes=cohort.classes,
                    kind=get_task(table.task).kind,
                    encounters=folder.encounters,
                    events=folder.events,
                    recordings=folder.recordings,
                    images=folder.images,
                    findings=folder.findings,
                    run_folder=folder.root,
                    catalogue=catalogue,
                    task=table.task,
                    model=model,
                    config=config,
                    out=where,
                    seed=seed,
                ).metrics
                say(f"{row}, seed {seed}: {json.dumps(metrics['held_out'].get('auroc'))}")
            found.setdefault(row, []).append(metrics["held_out"])
    return found


def markdown(found: Mapping[str, list[dict[str, Any]]]) -> str:
    """Return held-out metrics as a table: mean and, of several seeds, standard deviation."""
    names = [
        name
        for name in ("auroc", "average_precision", "mae", "rmse")
        if any(name in run for runs in found.values() for run in runs)
    ]
    lines = ["| model | samples | " + " | ".join(names) + " |", "|---|--:|" + "--:|" * len(names)]
    for row, runs in found.items():
        cells = []
        for name in names:
            values = [run[name] for run in runs if run.get(name) is not None]
            spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.3f}{spread}" if values else "–")
        lines.append(f"| {row} | {runs[0]['samples']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="A table of one of the papers, on mapped MIMIC-IV")
    parser.add_argument("table", choices=sorted(TABLES))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("var/bench-mimic"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="one epoch of tiny networks: no figure counts")
    arguments = parser.parse_args()
    try:
        found = run_table(
            TABLES[arguments.table],
            read_mapped(arguments.data),
            load_catalogue(),
            out=arguments.out / arguments.table,
            seeds=arguments.seeds,
            smoke=arguments.smoke,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    except ModellingError as error:
        sys.exit(f"error: {error}")
    if arguments.smoke:
        print("Smoke check: tiny networks, one epoch; these figures mean nothing.\n")
    print(markdown(found))


if __name__ == "__main__":
    main()
