"""MedM2T's question: hospital stay for cardiovascular disease within 90 days of an ECG (arXiv 2510.27321)."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from modelling.cohorts.attrition import Attrition
from modelling.cohorts.diagnoses import CARDIOVASCULAR, OPERATIONS, grouped, prefixes
from modelling.cohorts.night import age_years, as_table, lookback_start
from modelling.cohorts.tasks import get_task
from modelling.cohorts.training import Cohort

CLASSES = ("none", *CARDIOVASCULAR)
"""Class numbers in ``float_value``: 0 none, 1 coronary heart disease, 2 stroke, 3 heart failure."""
WITHIN = timedelta(days=90)
LEAST_STAY = timedelta(hours=24)
AGES = (18.0, 90.0)


def cardiovascular_samples(
    recordings: pl.DataFrame,
    encounters: pl.DataFrame,
    diagnoses: pl.DataFrame,
    procedures: pl.DataFrame | None = None,
) -> Cohort:
    """Return one sample an index ECG that a hospital stay follows within 90 days.

    The stay lasts 24 hours or longer, the patient is 18 to 89 years old. The class is that of the stay's
    primary diagnosis, or else of a cardiovascular operation in it; a stay with a cardiovascular code that is
    neither primary nor operated on is left out, since it says neither yes nor no.

    Parameters
    ----------
    recordings
        Rows of ``Recordings``: ``recording_id``, ``subject_id``, ``time``, ``available_time``.
    encounters, diagnoses, procedures
        Rows of those tables; without procedures no operation is known.
    """
    task = get_task("cardiovascular-90-days")
    attrition = Attrition()
    stays = encounters.filter((pl.col("kind") == "hospital") & pl.col("end").is_not_null()).select(
        "encounter_id", "subject_id", "start", "end", "birth_date"
    )
    ecgs = recordings.select("recording_id", "subject_id", prediction_time="available_time")
    pairs = ecgs.join(stays, on="subject_id").filter(
        (pl.col("start") > pl.col("prediction_time"))
        & (pl.col("start") <= pl.col("prediction_time") + WITHIN)
    )
    asked = pairs.sort("recording_id", "start", "encounter_id").unique(
        "recording_id", keep="first", maintain_order=True
    )
    attrition.note("ECGs with a hospital stay within 90 days", asked)
    asked = attrition.note(
        "stay of 24 h or longer", asked.filter(pl.col("end") - pl.col("start") >= LEAST_STAY)
    )
    age = age_years(pl.col("prediction_time"), pl.col("birth_date"))
    asked = attrition.note("aged 18 to 89", asked.filter((age >= AGES[0]) & (age < AGES[1])))
    coded = diagnoses.select("encounter_id").unique()
    asked = attrition.note("diagnoses coded", asked.join(coded, on="encounter_id", how="semi"))
    found = grouped(diagnoses, prefixes(CARDIOVASCULAR))
    primary = (
        found.filter(pl.col("position") == 1)
        .sort("encounter_id", "group")
        .unique("encounter_id", keep="first", maintain_order=True)
        .select("encounter_id", disease="group")
    )
    cause = primary if procedures is None else pl.concat([primary, _operated(found, procedures, primary)])
    other = found.select("encounter_id").unique().join(cause, on="encounter_id", how="anti")
    asked = asked.join(other, on="encounter_id", how="anti")
    attrition.note("cardiovascular code, if any, is primary or operated on", asked)
    number = {name: float(position) for position, name in enumerate(CLASSES)}
    labelled = asked.join(cause, on="encounter_id", how="left").with_columns(
        pl.col("disease")
        .fill_null("none")
        .replace_strict(number, return_dtype=pl.Float64)
        .alias("float_value"),
        pl.lit(None, pl.Boolean).alias("boolean_value"),
        lookback_start(task).alias("lookback_start"),
        pl.lit(task.name).alias("task"),
    )
    samples = labelled.sort("subject_id", "prediction_time", "encounter_id")
    return Cohort(samples=as_table(samples, "samples"), labels=None, attrition=attrition.frame())


def _operated(found: pl.DataFrame, procedures: pl.DataFrame, primary: pl.DataFrame) -> pl.DataFrame:
    """Return ``encounter_id``, ``disease`` of stays with an operation on a coded, not primary, disease."""
    operations = grouped(procedures, prefixes(OPERATIONS)).select("encounter_id", "group")
    return (
        found.join(operations, on=["encounter_id", "group"], how="semi")
        .join(primary, on="encounter_id", how="anti")
        .sort("encounter_id", "group")
        .unique("encounter_id", keep="first", maintain_order=True)
        .select("encounter_id", disease="group")
    )
