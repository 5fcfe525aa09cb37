"""Labels of samples: every rule looks only at what came after the prediction time, or at discharge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from modelling.cohorts.attrition import Attrition
from modelling.cohorts.diagnoses import grouped, phenotype_prefixes, phenotype_table
from modelling.cohorts.kidney import creatinine_after, injury_times
from modelling.cohorts.sepsis import onset_times
from modelling.cohorts.tasks import TaskSpec
from modelling.errors import CohortError

ICU_DEATH_MARGIN = pl.duration(hours=6)
"""A death so long after the stay's recorded end counts as one in it (Harutyunyan et al. 2019)."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Tables that a label may need beside encounters and outcomes.

    Attributes
    ----------
    events
        Rows of ``Events``: acute kidney injury, kidney function, sepsis.
    diagnoses
        Discharge diagnoses (:data:`modelling.mapping.folder.DIAGNOSES`): phenotyping.
    suspicions
        ``subject_id``, ``time`` of suspected infections: sepsis.
    supports
        Intervals of vasoactive infusions and ventilation (:func:`modelling.cohorts.sepsis.sofa_points`):
        sepsis, which without them knows less of circulation and lungs.
    """

    events: pl.DataFrame | None = None
    diagnoses: pl.DataFrame | None = None
    suspicions: pl.DataFrame | None = None
    supports: pl.DataFrame | None = None


Rule = Callable[[pl.DataFrame, Facts, TaskSpec, Attrition], pl.DataFrame]


def _needed(table: pl.DataFrame | None, name: str, task: TaskSpec) -> pl.DataFrame:
    if table is None:
        raise CohortError(f"task {task.name!r} needs the table of {name}")
    return table


def _alive(asked: pl.DataFrame, attrition: Attrition) -> pl.DataFrame:
    later = (pl.col("death_time") > pl.col("prediction_time")).fill_null(value=True)
    return attrition.note("alive at prediction time", asked.filter(later))


def _boolean(asked: pl.DataFrame, label: pl.Expr) -> pl.DataFrame:
    return asked.with_columns(
        label.cast(pl.Boolean).alias("boolean_value"), pl.lit(None, pl.Float64).alias("float_value")
    )


def _float(asked: pl.DataFrame, label: pl.Expr) -> pl.DataFrame:
    return asked.with_columns(
        pl.lit(None, pl.Boolean).alias("boolean_value"), label.cast(pl.Float64).alias("float_value")
    )


def death_in_hospital(
    asked: pl.DataFrame, facts: Facts, task: TaskSpec, attrition: Attrition
) -> pl.DataFrame:
    """Label with death before discharge from hospital."""
    del facts, task
    known = _alive(asked, attrition).filter(pl.col("died_in_hospital").is_not_null())
    return _boolean(attrition.note("outcome known", known), pl.col("died_in_hospital"))


def death_in_icu(asked: pl.DataFrame, facts: Facts, task: TaskSpec, attrition: Attrition) -> pl.DataFrame:
    """Label with death in the ICU stay, by a margin of six hours."""
    del facts, task
    known = _alive(asked, attrition).filter(
        pl.col("died_in_hospital").is_not_null() & pl.col("end").is_not_null()
    )
    inside = (pl.col("death_time") <= pl.col("end") + ICU_DEATH_MARGIN).fill_null(value=False)
    return _boolean(attrition.note("outcome known", known), pl.col("died_in_hospital") & inside)


def death_within_horizon(
    asked: pl.DataFrame, facts: Facts, task: TaskSpec, attrition: Attrition
) -> pl.DataFrame:
    """Label with death within the horizon; a survivor's, and a later death's, label is false."""
    del facts
    known = _alive(asked, attrition).filter(
        pl.col("died_in_hospital").is_not_null()
        & ~(pl.col("died_in_hospital") & pl.col("death_time").is_null())
    )
    soon = pl.col("death_time") <= pl.col("prediction_time") + _horizon(task)
    return _boolean(attrition.note("outcome known", known), soon.fill_null(value=False))


def icu_days(asked: pl.DataFrame, facts: Facts, task: TaskSpec, attrition: Attrition) -> pl.DataFrame:
    """Label with the length of the whole ICU stay, in days."""
    del facts, task
    ended = attrition.note("stay ended", asked.filter(pl.col("end").is_not_null()))
    return _float(ended, (pl.col("end") - pl.col("start")).dt.total_seconds() / 86_400)


def remaining_hours(asked: pl.DataFrame, facts: Facts, task: TaskSpec, attrition: Attrition) -> pl.DataFrame:
    """Label with the hours from the prediction time to the end of the ICU stay."""
    del facts, task
    ended = attrition.note("stay ended", asked.filter(pl.col("end").is_not_null()))
    return _float(ended, (pl.col("end") - pl.col("prediction_time")).dt.total_seconds() / 3600)


def phenotypes(asked: pl.DataFrame, facts: Facts, task: TaskSpec, attrition: Attrition) -> pl.DataFrame:
    """Label with 25 groups of the admission's diagnoses, as columns ``label/<phenotype>``."""
    diagnoses = _needed(facts.diagnoses, "diagnoses", task)
    admission = pl.coalesce("part_of", "encounter_id")
    coded = diagnoses.select(admission="encounter_id").unique()
    known = asked.with_columns(admission.alias("admission")).join(coded, on="admission", how="semi")
    known = attrition.note("diagnoses coded", known)
    found = grouped(diagnoses, phenotype_prefixes()).select(admission="encounter_id", group="group").unique()
    names = phenotype_table()["phenotype"].to_list()
    wide = found.group_by("admission").agg(
        pl.col("group").eq(name).any().alias(f"label/{name}") for name in names
    )
    labelled = known.join(wide, on="admission", how="left").with_columns(
        pl.col(f"label/{name}").fill_null(value=False) for name in names
    )
    return _float(labelled, pl.lit(None))


def acute_kidney_injury(
    asked: pl.DataFrame, facts: Facts, task: TaskSpec, attrition: Attrition
) -> pl.DataFrame:
    """Label with the onset of KDIGO stage 1 or above within the horizon; the time after onset is left out."""
    events = _needed(facts.events, "events", task)
    measured = events.filter(pl.col("code") == "creatinine").select("subject_id").unique()
    known = attrition.note("creatinine measured", asked.join(measured, on="subject_id", how="semi"))
    return _onset(known, injury_times(events), task, attrition, "no injury yet")


def sepsis(asked: pl.DataFrame, facts: Facts, task: TaskSpec, attrition: Attrition) -> pl.DataFrame:
    """Label with the onset of Sepsis-3 within the horizon; the time after onset is left out."""
    events = _needed(facts.events, "events", task)
    suspicions = _needed(facts.suspicions, "suspected infections", task)
    return _onset(asked, onset_times(events, suspicions, facts.supports), task, attrition, "no sepsis yet")


def creatinine_next_day(
    asked: pl.DataFrame, facts: Facts, task: TaskSpec, attrition: Attrition
) -> pl.DataFrame:
    """Label with the median creatinine within the horizon, in mg/dL."""
    values = creatinine_after(_needed(facts.events, "events", task), asked, hours=task.horizon_hours or 24.0)
    known = attrition.note(
        "creatinine in the horizon", asked.join(values, on=["encounter_id", "prediction_time"])
    )
    return _float(known, pl.col("value"))


def _horizon(task: TaskSpec) -> pl.Expr:
    return pl.duration(minutes=round((task.horizon_hours or 0) * 60))


def _onset(
    asked: pl.DataFrame, times: pl.DataFrame, task: TaskSpec, attrition: Attrition, step: str
) -> pl.DataFrame:
    """Label with the first of ``times`` in the stay, and leave out samples at or after it."""
    stays = asked.select("encounter_id", "subject_id", "start", "end").unique()
    first = (
        stays.join(times, on="subject_id")
        .filter(
            (pl.col("time") >= pl.col("start"))
            & (pl.col("end").is_null() | (pl.col("time") <= pl.col("end")))
        )
        .group_by("encounter_id")
        .agg(pl.col("time").min().alias("onset"))
    )
    joined = asked.join(first, on="encounter_id", how="left")
    before = joined.filter(pl.col("onset").is_null() | (pl.col("onset") > pl.col("prediction_time")))
    soon = pl.col("onset") <= pl.col("prediction_time") + _horizon(task)
    return _boolean(attrition.note(step, before), soon.fill_null(value=False))


LABELS: dict[str, Rule] = {
    "death_in_hospital": death_in_hospital,
    "death_in_icu": death_in_icu,
    "death_within_horizon": death_within_horizon,
    "icu_days": icu_days,
    "remaining_hours": remaining_hours,
    "phenotypes": phenotypes,
    "acute_kidney_injury": acute_kidney_injury,
    "sepsis": sepsis,
    "creatinine_next_day": creatinine_next_day,
}
"""Label rules by name."""
