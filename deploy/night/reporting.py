"""The morning report of a run: its facts, read from what the steps left on disk and from the history."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import polars as pl

from deploy.errors import DeployError
from deploy.night.accounts import count, read_json, unmapped
from deploy.night.drift import compare_run
from deploy.night.remembered import remember, trends_until
from deploy.night.report_delivery import deliver_report
from deploy.night.run import Run
from deploy.settings import Settings
from deploy.site_catalogue import site_catalogue
from fhir_adapter.write_back import NdjsonDrop
from modelling.catalogue import Catalogue, load_catalogue
from modelling.errors import ModellingError
from validation.calibration import calibrate, known_outcomes
from validation.contracts import empty, write_json
from validation.errors import ValidationError
from validation.gate import GateDecision
from validation.profiles import Profiles
from validation.quarantine import read_quarantine
from validation.report import (
    ReportFacts,
    bin_scores,
    count_modalities,
    count_reasons,
    count_risk_levels,
    render_patients,
    write_patients,
    write_report,
)

log = logging.getLogger(__name__)


def read_gate(run: Run) -> GateDecision | None:
    """Return the gate's decision, or None where the night did not get so far."""
    fields = read_json(run.path / "gate" / "decision.json")
    return GateDecision.from_dict(fields) if fields else None


def model_facts(settings: Settings, run: Run, scores: pl.DataFrame) -> dict[str, str | None]:
    """Return name, version and digest of the model: of the scores, else of the folder that would score."""
    if scores.height:
        name, number, digest = scores.select("model_name", "model_version", "model_digest").row(0)
        return {"model_name": name, "model_version": number, "model_digest": digest}
    from deploy.night.scoring import model_folder  # torch takes seconds to import

    try:
        card = json.loads((model_folder(settings, run) / "card.json").read_text("utf-8"))
    except (DeployError, OSError, ValueError):
        return {}
    return {
        "model_name": card.get("name"),
        "model_version": card.get("version"),
        "model_digest": card.get("digest"),
    }


def scored_drift(settings: Settings, run: Run, scores: pl.DataFrame) -> pl.DataFrame | None:
    """Return drift of inputs, embeddings and scores, or None where nothing was scored or compared."""
    if not scores.height:
        return None
    try:
        return compare_run(settings, run, scores=scores)
    except (DeployError, ModellingError, ValidationError) as error:
        log.warning("scores were not compared with the reference: %s", type(error).__name__)
        return None


def outcomes_to_date(settings: Settings, run: Run, scores: pl.DataFrame) -> pl.DataFrame | None:
    """Return calibration over tonight's and all earlier scores of the same model whose outcome is known.

    A replay stands for itself: its scores are of the past, and so are its outcomes.
    """
    if not scores.height or settings.night.task != "in-hospital-mortality":
        return None
    folders = [run.path]
    if run.replay is None:
        siblings = sorted(run.path.parent.glob("*/run.json"))
        folders = [path.parent for path in siblings if path.parent.name <= run.partition]
    digest = scores["model_digest"][0]
    columns = ["encounter_id", "probability", "model_digest", "task"]
    frames = [
        pl.read_parquet(path, columns=columns)
        for folder in folders
        for path in folder.glob("scores/*.parquet")
    ]
    ended = [pl.read_parquet(path) for folder in folders if (path := folder / "outcomes.parquet").is_file()]
    known = pl.concat([empty("outcomes"), *ended]).drop_nulls("died_in_hospital")
    latest = known.unique("encounter_id", keep="last", maintain_order=True)
    same = (pl.col("model_digest") == digest) & (pl.col("task") == settings.night.task)
    pairs = known_outcomes(pl.concat(frames).filter(same), latest)
    return calibrate(pairs) if pairs.height else None


def places(settings: Settings, run: Run) -> dict[str, str]:
    """Return where what the night wrote lies: addresses without credentials, paths."""
    destination = settings.destination
    if destination.kind == "fhir":
        written = urlsplit(destination.base_url or settings.source.base_url or "")
        port = f":{written.port}" if written.port else ""
        scores = f"{written.scheme}://{written.hostname}{port}{written.path} (RiskAssessment)"
    else:
        drop = NdjsonDrop(destination.folder / settings.site.name)
        scores = str(drop.path("RiskAssessment", run.partition))
    return {"Scores": scores, "Run folder": str(run.path), "Data Docs": "gate/data_docs/index.html below it"}


def _catalogue(settings: Settings) -> Catalogue:
    """Return the site's catalogue; a file of site codes that broke mapping does not take the report with it."""
    try:
        return site_catalogue(settings)
    except ModellingError as error:
        log.warning("the report does not name the site's codings: %s", type(error).__name__)
        return load_catalogue()


def gather_facts(settings: Settings, run: Run, *, generated_at: datetime) -> ReportFacts:
    """Read a run's facts; a step that was not reached leaves its section empty."""
    counts = count(run)
    scores = run.load_all("scores", "scores/*")
    profiles = Profiles.load(run.path / "profile")
    drift = scored_drift(settings, run, scores)
    if profiles is not None:
        drift = profiles.drift if drift is None else drift
        profiles = replace(profiles, drift=drift)
        mean = scores.select(pl.col("probability").mean()).item()
        remember(
            settings,
            run,
            profiles,
            counts=counts,
            recorded_at=generated_at,
            further=None if mean is None else {"mean_probability": mean},
        )
    delivery = {
        name: n
        for name, n in read_json(run.path / "write_back" / "summary.json").items()
        if isinstance(n, int)
    }
    catalogue = _catalogue(settings)
    return ReportFacts(
        site=settings.site.name,
        partition=run.partition,
        prediction_time=run.moment.astimezone(settings.site.zone) if run.moment else None,
        replay=run.replay,
        generated_at=generated_at.astimezone(settings.site.zone),
        counts=counts,
        gate=read_gate(run),
        profiles=profiles,
        task=settings.night.task,
        catalogue_digest=catalogue.digest,
        site_codes_digest=catalogue.site_codes,
        software_version=version("nightingale"),
        quarantined=count_reasons(read_quarantine(run.path, placed=False)),
        skipped=count_reasons(run.load_all("skipped", "skipped/*")),
        modalities=count_modalities(scores),
        score_bins=bin_scores(scores),
        risk_levels=count_risk_levels(scores),
        unmapped=unmapped(run),
        drift=drift if drift is not None and drift.height else None,
        calibration=outcomes_to_date(settings, run, scores),
        trends=trends_until(settings, run),
        write_back=delivery,
        places=places(settings, run),
        data_notes=(settings.site.data_note,) if settings.site.data_note else (),
        **model_facts(settings, run, scores),
    )


def _patients(settings: Settings, run: Run) -> str | None:
    if not settings.site.patients_in_report:
        return None
    return render_patients(
        run.load_all("scores", "scores/*"),
        run.load_all("skipped", "skipped/*"),
        site=settings.site.name,
        partition=run.partition,
        data_notes=(settings.site.data_note,) if settings.site.data_note else (),
    )


def write_morning_report(settings: Settings, run: Run) -> Path:
    """Write ``report/index.html`` and ``report/report.json``, also of a night that stopped or broke off.

    Where the site turns it on, ``report/patients.html`` beside them.

    Returns
    -------
    Path
        The page.
    """
    run.path.mkdir(parents=True, exist_ok=True)
    facts = gather_facts(settings, run, generated_at=datetime.now(UTC))
    page = write_report(run.path, facts)
    write_patients(run.path, _patients(settings, run))
    delivered = deliver_report(settings, facts, page.read_text("utf-8"))
    if delivered:
        write_json(delivered, page.parent / "delivery.json")
    run.report_progress("report", 1, 1)
    return page
