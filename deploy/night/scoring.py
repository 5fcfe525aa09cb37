"""Scoring of one shard: which model, and what it reads."""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl

from deploy.champion import champion_folder, shadow_folders
from deploy.errors import SettingsError
from deploy.night.judging import shard_name
from deploy.night.run import EMBEDDINGS, Run
from deploy.settings import Settings
from modelling.catalogue import load_catalogue
from modelling.scoring import load_model, score_samples
from modelling.scoring.model import ScoringModel

PINNED = "model.json"
SHADOW = "shadow"
"""Folder of a run with what shadow models say; no other step of a night reads it."""
log = logging.getLogger(__name__)


def model_folder(settings: Settings, run: Run | None = None) -> Path:
    """Return the model that scores: see :func:`deploy.champion.champion_folder`.

    Parameters
    ----------
    run
        With a run, the first answer is kept in its folder: a promotion in the middle of a night does not let
        two models score it.

    Raises
    ------
    SettingsError
        If there is none.
    """
    if run is None:
        return champion_folder(settings, settings.night.task)
    pin = run.path / PINNED
    if not pin.is_file():
        folder = champion_folder(settings, settings.night.task).resolve()
        draft = run.path / f".{PINNED}.{os.getpid()}"
        draft.write_text(json.dumps({"folder": str(folder)}), "utf-8")
        with suppress(FileExistsError):  # another shard was first: its choice holds
            os.link(draft, pin)
        draft.unlink()
    return Path(json.loads(pin.read_text("utf-8"))["folder"])


def night_model(settings: Settings, run: Run | None = None) -> ScoringModel:
    """Load and check the model that scores.

    Raises
    ------
    SettingsError
        If the model answers another task.
    """
    folder = model_folder(settings, run)
    model = load_model(folder, catalogue_digest=load_catalogue().digest)
    if model.task != settings.night.task:
        raise SettingsError(
            f"the model in {folder} answers {model.task!r}, the night asks {settings.night.task!r}"
        )
    return model


def score_shard(settings: Settings, run: Run, shard: int) -> int:
    """Score one shard's samples into ``scores/`` and ``skipped/``; return the number of scores."""
    name = shard_name(shard)
    samples = run.load("samples").filter(
        pl.col("subject_id").reinterpret(signed=False) % settings.night.shards == shard
    )
    tables: dict[str, Any] = {
        "samples": samples,
        "encounters": run.load("encounters").filter(
            pl.col("subject_id").is_in(samples["subject_id"].unique().implode())
        ),
        "events": run.load(f"events/{name}"),
        "recordings": run.load(f"recordings/{name}"),
        "images": run.load(f"images/{name}"),
        "embeddings": run.path / EMBEDDINGS,
    }
    scores, skipped = score_samples(
        night_model(settings, run), **tables, run_folder=run.path, site=settings.site.name
    )
    run.save(scores, "scores", f"scores/{name}", shard=shard)
    run.save(skipped, "skipped", f"skipped/{name}", shard=shard)
    _score_in_shadow(settings, run, name, tables)
    run.report_progress("score", 1)
    return scores.height


def _score_in_shadow(settings: Settings, run: Run, name: str, tables: dict[str, Any]) -> None:
    """Let shadow models score the same samples; whatever goes wrong with one of them is only logged."""
    try:
        folders = shadow_folders(settings, settings.night.task)
    except Exception as error:
        log.warning("no shadow model scored: %s", type(error).__name__)
        return
    for digest, folder in folders.items():
        try:
            model = load_model(folder, catalogue_digest=load_catalogue().digest)
            scores, skipped = score_samples(
                model, **tables, run_folder=run.path, site=settings.site.name, explain=False
            )
            run.save(scores, "scores", f"{SHADOW}/{digest[:12]}/scores/{name}")
            run.save(skipped, "skipped", f"{SHADOW}/{digest[:12]}/skipped/{name}")
        except Exception as error:
            log.warning("shadow model %s did not score: %s", digest[:12], type(error).__name__)
