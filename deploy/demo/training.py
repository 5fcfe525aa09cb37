"""Train the demo's model on the demo hospital's own history, with the same steps that a night takes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from deploy.demo_hospital import build_hospital
from deploy.night.history import map_history, read_history
from deploy.settings import configured, load_settings
from deploy.site_file import write_site
from modelling.catalogue import load_catalogue
from modelling.errors import ModellingError
from modelling.registry.folder import read_folder
from modelling.scoring.reference import write_reference
from modelling.shipped_weights.ecg import load_signal_weights
from modelling.training import train
from modelling.training.config import PRESETS

SYNTHETIC = "Synthetic data: simulated patients of a demo hospital. Scores mean nothing for anyone."
TASK = "in-hospital-mortality"
HISTORY_STAYS = 540
HISTORY_PACE = 2.0
"""Half as many Observations a stay as tonight's patients have: more stays teach more than more rows."""
REPLAY = "icu+48h"
CONFIG = {**PRESETS["demo"]["medfuse"], "pretrain_epochs": 30, "epochs": 30, "patience": 8}
DESCRIPTION = (
    "MedFuse (LSTM fusion) trained on the synthetic demo hospital; its ECG encoder starts from the shipped one. "
    "It means nothing for patients."
)
Watcher = Callable[[str, int, int], None]


def trained_model(
    root: Path, *, night: date, seed: int, watch: Watcher, stays: int = HISTORY_STAYS
) -> tuple[Path, bool]:
    """Return the demo's model folder and whether it was trained now; a complete one is kept.

    Parameters
    ----------
    root
        The demo's folder.
    night
        The demo's night: the history lies before it.
    seed
        Of the hospital and of training.
    stays
        Finished stays to learn from.
    """
    folder = root / "models" / f"medfuse-{TASK}"
    if (folder / "card.json").is_file():
        try:
            if read_folder(folder).config.get("catalogue_digest") == load_catalogue().digest:
                return folder, False
        except ModellingError:
            pass  # a damaged or foreign folder is trained anew
    hospital = root / "history"
    if not (hospital / "hospital.json").is_file():
        _remove(hospital)
        build_hospital(
            hospital,
            patients=stays,
            seed=seed,
            night=night,
            history=True,
            pace=HISTORY_PACE,
            progress=lambda done, total: watch("build history", done, total),
        )
    config = write_site(
        root / "history-site.toml", root=root, hospital=hospital, name="demo-history", note=SYNTHETIC
    )
    with configured(config):
        run = map_history(load_settings(), replay=REPLAY, watch=watch)
    history = read_history(run, task=TASK)
    train(
        samples=history.cohort.samples,
        encounters=history.encounters,
        events=history.events,
        recordings=history.recordings,
        images=history.images,
        run_folder=run.path,
        catalogue=load_catalogue(),
        task=TASK,
        model="medfuse",
        config=CONFIG,
        out=folder,
        seed=seed,
        description=DESCRIPTION,
        initial_weights=load_signal_weights(),
        progress=watch,
    )
    write_reference(
        folder,
        samples=history.cohort.samples,
        encounters=history.encounters,
        events=history.events,
        recordings=history.recordings,
        images=history.images,
        run_folder=run.path,
    )
    return folder, True


def held_out(folder: Path) -> dict[str, Any]:
    """Return the model's metrics on held-out patients of the history."""
    return dict(read_folder(folder).card["metrics"]["held_out"])


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
