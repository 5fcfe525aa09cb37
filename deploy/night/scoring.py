"""Scoring of one shard: which model, and what it reads."""

from __future__ import annotations

import logging
from pathlib import Path

import polars as pl

from deploy.errors import SettingsError
from deploy.night.judging import shard_name
from deploy.night.run import Run
from deploy.settings import Settings
from modelling.catalogue import load_catalogue
from modelling.scoring import load_model, score_samples
from modelling.scoring.model import ScoringModel
from modelling.shipped_weights.cards import HERE as SHIPPED

SHIPPED_BY_TASK = {"in-hospital-mortality": SHIPPED / "physionet2012-mortality"}
log = logging.getLogger(__name__)


def model_folder(settings: Settings) -> Path:
    """Return the model that scores: the site's, or the shipped one of the task.

    Raises
    ------
    SettingsError
        If there is neither.
    """
    if settings.night.model is not None:
        return settings.night.model
    shipped = SHIPPED_BY_TASK.get(settings.night.task)
    if shipped is None:
        raise SettingsError(
            f"no model for task {settings.night.task!r} comes with Nightingale: "
            "train one (`nightingale train`) and name its folder in night.model"
        )
    return shipped


def night_model(settings: Settings) -> ScoringModel:
    """Load and check the model that scores.

    Raises
    ------
    SettingsError
        If the model answers another task.
    """
    folder = model_folder(settings)
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
    scores, skipped = score_samples(
        night_model(settings),
        samples=samples,
        encounters=run.load("encounters").filter(
            pl.col("subject_id").is_in(samples["subject_id"].unique().implode())
        ),
        events=run.load(f"events/{name}"),
        recordings=run.load(f"recordings/{name}"),
        images=run.load(f"images/{name}"),
        run_folder=run.path,
        site=settings.site.name,
    )
    run.save(scores, "scores", f"scores/{name}", shard=shard)
    run.save(skipped, "skipped", f"skipped/{name}", shard=shard)
    run.report_progress("score", 1)
    return scores.height
