"""Settings of retraining, promotion and monitoring: sections of :class:`deploy.settings.Settings`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Retraining(_Section):
    """What is trained, on what, and when."""

    data: Path | None = Field(
        None,
        description="Finished stays to learn from: a folder of NDJSON (or with fhir/, wfdb/, dicom/ in it), or of "
        "mapped tables such as map-mimic writes; unset, the site's own source.",
    )
    tasks: tuple[str, ...] = Field((), description="Tasks to train for; unset, the night's task.")
    models: tuple[str, ...] = Field(
        ("medfuse",), description="Models to train for each task; boosting is always trained to be beaten."
    )
    times: Literal["benchmark", "nights"] = Field(
        "benchmark",
        description="Ask about each stay once, at the task's benchmark time, or every night as deployed.",
    )
    preset: str = Field("demo", description="Training preset of modelling.training.config.PRESETS.")
    start_from: str | None = Field(
        None,
        description="Fine-tune instead of training anew: 'champion', or the digest of a registered model.",
    )
    held_out_share: float = Field(0.25, gt=0, lt=0.6, description="Share of patients kept for judging.")
    tuning_share: float = Field(
        0.15, gt=0, lt=0.4, description="Share of patients for stopping and calibration."
    )
    resamples: int = Field(1000, ge=100, description="Bootstrap resamples of the comparisons.")
    seed: int = Field(0, description="Seed of splits, weights, order and noise.")
    epochs: int | None = Field(None, ge=1, description="Epochs of every stage at most; unset, the preset's.")
    schedule: str | None = Field(
        None,
        description="Cron of the retraining DAG in the site's zone; unset, it runs when mapped data arrive.",
    )


class Promotion(_Section):
    """When a candidate may become champion; modelling.registry.rules says what each limit does."""

    fewest_events: int = Field(20, ge=1, description="Held-out events, and non-events, that are needed.")
    margin: float = Field(
        0.02,
        ge=0,
        le=1,
        description="How much lower than the champion's the AUROC may be, at the lower bound.",
    )
    beats: tuple[str, ...] = Field(("NEWS2", "boosting"), description="Baselines that must be beaten.")
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="Share of paired resamples in which a baseline must be beaten."
    )
    slope: tuple[float, float] = Field((0.7, 1.4), description="Tolerated calibration slope.")
    in_the_large: float = Field(0.3, gt=0, description="Tolerated calibration in the large, in log-odds.")
    calibration_error: float = Field(0.1, gt=0, lt=1, description="Tolerated expected calibration error.")
    subgroup_margin: float = Field(
        0.05, ge=0, le=1, description="Fall of a subgroup's AUROC beyond which it is harmed."
    )
    subgroup_events: int = Field(10, ge=5, description="Events of a subgroup below which it is not judged.")
    highest_auroc: float = Field(0.99, gt=0.5, le=1, description="AUROC above which a model is not believed.")
    highest_feature_auroc: float = Field(
        0.95, gt=0.5, le=1, description="AUROC of one input alone above which the label has leaked."
    )
    approvers: tuple[str, ...] = Field((), description="Who may approve; unset, anybody who gives a name.")


class Monitoring(_Section):
    """What is watched after the scores were written, and when it alarms."""

    schedule: str = Field("45 7 * * *", description="Cron of the monitoring DAG in the site's zone.")
    window_days: int = Field(30, ge=1, le=366, description="Length of a window, in days of prediction times.")
    fewest_events: int = Field(20, ge=2, description="Events of a window below which it raises no alarm.")
    auroc_fall: float = Field(
        0.05, gt=0, lt=1, description="Fall of the AUROC below the model's held-out value that alarms."
    )
    in_the_large: float = Field(0.5, gt=0, description="Calibration in the large that alarms, in log-odds.")
    subgroup_fall: float = Field(0.1, gt=0, lt=1, description="The same fall within one subgroup.")
    alert_rate_factor: float = Field(
        2.0,
        gt=1,
        description="Factor by which the share of high risk may rise or fall against the first window.",
    )
    psi: float = Field(0.25, gt=0, description="Population stability index of the scores that alarms.")
    resamples: int = Field(500, ge=100, description="Bootstrap resamples.")
