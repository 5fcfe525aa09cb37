"""Every task's label, by hand on small stays; and a planted future moves no sample."""

from __future__ import annotations

from datetime import UTC, datetime, time
from pathlib import Path

import polars as pl
import pytest
from cohort_tables import START, at, charted, events, outcomes, stay, stays
from mimic_ward import FILES, write_mimic

from modelling.catalogue import load_catalogue
from modelling.cohorts.cardiovascular import CLASSES, cardiovascular_samples
from modelling.cohorts.diagnoses import grouped, phenotype_prefixes, phenotype_table
from modelling.cohorts.kidney import injury_times
from modelling.cohorts.labels import LABELS, Facts
from modelling.cohorts.sepsis import onset_times, sofa_by_hour, suspicion_times
from modelling.cohorts.tasks import TASKS, get_task
from modelling.cohorts.training import training_samples
from modelling.cohorts.visibility import visible
from modelling.errors import CohortError
from modelling.mapping import map_observations
from modelling.mimic.reader import read_observations
from modelling.mimic.stays import read_diagnoses, read_encounters, read_outcomes


def test_every_task_has_a_rule_and_a_coding() -> None:
    for task in TASKS.values():
        assert task.label in LABELS or task.label == "cardiovascular"
        assert task.outcome_code
        assert task.outcome_display
        assert task.source
        assert (task.unit is not None) == (task.kind == "regression")
    with pytest.raises(CohortError, match=r"no task 'fortune'; there are .*sepsis"):
        get_task("fortune")


def test_benchmark_rules_hold_in_the_benchmark_only() -> None:
    moved = [
        {"ward": "MICU", "start": START, "end": at(10)},
        {"ward": "SICU", "start": at(10), "end": at(60)},
    ]
    encounters = stays(
        stay("a", 1, part_of="h1"),
        stay("b", 2, part_of="h2"),
        stay("c", 2, part_of="h2", start=at(70), end=at(130)),
        stay("d", 3, moves=moved),
    )
    known = outcomes(
        *[(name, subject, False, None) for name, subject in (("a", 1), ("b", 2), ("c", 2), ("d", 3))]
    )
    task = get_task("in-hospital-mortality")
    benchmark = training_samples(encounters, known, task=task)
    assert benchmark.samples["encounter_id"].to_list() == ["a"]
    assert benchmark.attrition["stays"].to_list()[:4] == [4, 2, 1, 1]
    deployed = training_samples(encounters, known, task=task, mode="landmark", clock=time(9))
    assert set(deployed.samples["encounter_id"]) == {"a", "b", "c", "d"}


def test_decompensation_asks_every_hour_until_death() -> None:
    cohort = training_samples(
        stays(stay(hours=40)), outcomes(("stay", 1, True, 39.5)), task=get_task("decompensation")
    )
    samples = cohort.samples.with_columns(hour=(pl.col("prediction_time") - START).dt.total_hours())
    assert samples["hour"].to_list() == list(range(4, 40))
    assert samples.filter("boolean_value")["hour"].to_list() == list(range(16, 40))


def test_mortality_at_24_hours_is_in_the_icu() -> None:
    encounters = stays(stay("a", 1, 40), stay("b", 2, 40), stay("c", 3, 29), stay("d", 4, 40))
    known = outcomes(("a", 1, True, 44), ("b", 2, True, 60), ("c", 3, True, 28), ("d", 4, False, None))
    cohort = training_samples(encounters, known, task=get_task("mortality-24h"))
    assert dict(cohort.samples.select("encounter_id", "boolean_value").iter_rows()) == {
        "a": True,
        "b": False,
        "d": False,
    }


def test_lengths_of_stay() -> None:
    encounters = stays(stay("a", 1, 48), stay("later", 1, start=at(100), end=at(200)))
    known = outcomes(("a", 1, False, None), ("later", 1, False, None))
    whole = training_samples(encounters, known, task=get_task("icu-length-of-stay"))
    assert whole.samples.select("encounter_id", "float_value").rows() == [("a", 2.0)]
    left = training_samples(stays(stay(hours=6)), known, task=get_task("remaining-length-of-stay"))
    assert left.samples["float_value"].to_list() == [2.0, 1.0]


def test_phenotypes_follow_both_versions_of_the_codes() -> None:
    diagnoses = pl.DataFrame(
        {
            "subject_id": [1, 1, 2, 2],
            "encounter_id": ["h1", "h1", "h2", "h2"],
            "icd_version": [9, 9, 10, 10],
            "icd_code": ["0389", "5849", "A419", "E1122"],
            "position": [1, 2, 1, 2],
        },
        schema_overrides={"icd_version": pl.Int8, "position": pl.Int32},
    )
    encounters = stays(stay("a", 1, part_of="h1"), stay("b", 2, part_of="h2"), stay("c", 3, part_of="h3"))
    known = outcomes(("a", 1, False, None))
    cohort = training_samples(
        encounters, known, task=get_task("phenotyping"), facts=Facts(diagnoses=diagnoses)
    )
    assert cohort.labels is not None
    assert len(cohort.labels.columns) == 2 + 25
    positive = {
        row["encounter_id"]: {name for name, value in row.items() if value is True}
        for row in cohort.labels.iter_rows(named=True)
    }
    assert positive == {
        "a": {"septicemia", "acute_renal_failure"},
        "b": {"septicemia", "diabetes_with_complications"},
    }
    assert cohort.samples["lookback_start"].to_list() == [START, START]


def test_the_phenotypes_are_those_of_the_benchmark() -> None:
    table = phenotype_table()
    assert table.height == 25
    assert set(table["kind"]) == {"acute", "chronic", "mixed"}
    assert table["ccs"].is_unique().all()


@pytest.mark.data
def test_every_phenotype_prefix_exists_in_the_dictionary(data_dir: Path) -> None:
    icd = pl.read_csv(
        data_dir / "mimic-iv-demo/hosp/d_icd_diagnoses.csv.gz", schema_overrides={"icd_code": pl.String}
    )
    codes = icd.select(
        pl.lit(1).alias("subject_id"),
        pl.col("icd_code").str.strip_chars().alias("encounter_id"),
        pl.col("icd_version").cast(pl.Int8),
        pl.col("icd_code").str.strip_chars(),
        pl.lit(1).alias("position"),
    )
    prefixes = phenotype_prefixes()
    for row in prefixes.iter_rows(named=True):
        if row["prefix"].endswith("$"):
            continue  # a code that the dictionary of today lists no more
        starts = pl.col("icd_code").str.starts_with(row["prefix"]) & (
            pl.col("icd_version") == row["icd_version"]
        )
        assert codes.select(starts.any()).item(), row
    # Hypertension is essential or has complications; diabetes has complications or none.
    groups = grouped(codes, prefixes).select("encounter_id", "group").unique()
    for one, other in (
        ("essential_hypertension", "hypertension_with_complications"),
        ("diabetes_with_complications", "diabetes_without_complication"),
    ):
        both = groups.filter(pl.col("group").is_in([one, other]))
        assert both["encounter_id"].is_unique().all()


@pytest.mark.parametrize(
    ("values", "injured"),
    [
        ([(0, 1.0), (40, 1.3)], [40]),  # 0.3 within 48 h
        ([(0, 1.0), (50, 1.3)], []),  # too slow for 0.3, too little for half as much again
        ([(0, 1.0), (60, 1.5)], [60]),  # half as much again within 7 days
        ([(0, 0.6), (200, 1.0)], []),  # the low value is older than 7 days
        ([(0, 2.0), (24, 1.0)], []),  # a fall is no injury
        ([(0, 1.0), (10, 1.29), (20, 1.4)], [20]),
    ],
)
def test_kidney_injury_by_creatinine(values: list[tuple[float, float]], injured: list[float]) -> None:
    found = injury_times(events(*[("creatinine", hour, value) for hour, value in values]))
    assert found["time"].to_list() == [at(hour) for hour in injured]


def test_kidney_injury_by_urine() -> None:
    charted = [("urine_output", hour, 30.0) for hour in range(1, 13)]
    dry = injury_times(events(("weight", 0, 80.0), *charted))
    assert dry["time"].to_list() == [at(hour) for hour in range(7, 13)]
    assert injury_times(events(("weight", 0, 50.0), *charted)).is_empty()
    assert injury_times(events(*charted)).is_empty()  # no weight, no rate


def test_kidney_injury_labels_end_at_onset() -> None:
    facts = Facts(events=events(("creatinine", 1, 1.0), ("creatinine", 20.5, 1.6), *charted(40)))
    cohort = training_samples(
        stays(stay(hours=40)),
        outcomes(("stay", 1, False, None)),
        task=get_task("acute-kidney-injury"),
        facts=facts,
    )
    hours = cohort.samples.with_columns(hour=(pl.col("prediction_time") - START).dt.total_hours())
    assert hours["hour"].to_list() == list(range(6, 21))
    assert hours.filter("boolean_value")["hour"].to_list() == list(range(15, 21))


def test_kidney_function_is_the_next_day_s_median() -> None:
    facts = Facts(
        events=events(
            *[
                ("creatinine", hour, value)
                for hour, value in ((5, 9.0), (26, 1.0), (30, 3.0), (47, 2.0), (49, 9.0))
            ],
            *charted(60),
        )
    )
    cohort = training_samples(
        stays(stay()), outcomes(("stay", 1, False, None)), task=get_task("kidney-function"), facts=facts
    )
    assert cohort.samples["float_value"].to_list() == [2.0]


def test_suspicion_needs_antibiotic_and_culture_close_together() -> None:
    def times(*hours: float) -> pl.DataFrame:
        return pl.DataFrame({"subject_id": 1, "time": [at(hour) for hour in hours]})

    assert suspicion_times(times(10), times(30))["time"].to_list() == [at(10)]
    assert suspicion_times(times(80), times(10))["time"].to_list() == [at(10)]
    assert suspicion_times(times(10), times(35)).is_empty()
    assert suspicion_times(times(90), times(10)).is_empty()


def test_sofa_keeps_the_worst_of_a_day() -> None:
    sofa = sofa_by_hour(events(("platelets", 0.5, 90.0), ("creatinine", 2.5, 2.5), ("mean_bp", 2.5, 60.0)))
    points = {
        (hour - START).total_seconds() / 3600: value
        for hour, value in sofa.select("hour", "sofa").iter_rows()
    }
    assert points[1] == points[2] == 2
    assert points[3] == points[24] == 5
    assert points[26] == 3
    assert max(points) == 26


def test_sofa_of_the_lungs_needs_oxygen_and_its_share() -> None:
    sofa = sofa_by_hour(events(("pao2", 1.5, 80.0), ("fio2", 1.0, 0.5)))
    assert sofa["sofa"].unique().to_list() == [2]  # ratio 160, not on a ventilator
    ventilated = events(("pao2", 1.5, 80.0), ("fio2", 1.0, 0.5), ("mechanical_ventilation", 1.0, 1.0))
    assert sofa_by_hour(ventilated)["sofa"].unique().to_list() == [3]
    assert sofa_by_hour(events(("pao2", 1.5, 80.0))).is_empty()


def test_sepsis_is_a_rise_around_the_suspicion() -> None:
    rising = events(("platelets", 0.5, 200.0), ("platelets", 20.5, 90.0), *charted(40))
    suspected = pl.DataFrame({"subject_id": [1], "time": [at(18)]})
    assert onset_times(rising, suspected)["time"].min() == at(21)
    late = pl.DataFrame({"subject_id": [1], "time": [at(-10)]})
    assert onset_times(rising, late).is_empty()
    cohort = training_samples(
        stays(stay(hours=40)),
        outcomes(("stay", 1, False, None)),
        task=get_task("sepsis"),
        facts=Facts(events=rising, suspicions=suspected),
    )
    hours = cohort.samples.with_columns(hour=(pl.col("prediction_time") - START).dt.total_hours())
    assert hours.filter("boolean_value")["hour"].to_list() == list(range(15, 21))
    assert hours["hour"].max() == 20


def test_a_task_says_which_table_it_lacks() -> None:
    known = outcomes(("stay", 1, False, None))
    with pytest.raises(CohortError, match="task 'sepsis' needs the table of events"):
        training_samples(stays(stay()), known, task=get_task("sepsis"))
    with pytest.raises(CohortError, match="task 'phenotyping' needs the table of diagnoses"):
        training_samples(stays(stay()), known, task=get_task("phenotyping"))
    with pytest.raises(CohortError, match="is not asked about ICU stays"):
        training_samples(stays(stay()), known, task=get_task("cardiovascular-90-days"))


def test_cardiovascular_stays_within_90_days_of_an_ecg() -> None:
    encounters = stays(
        stay("chd", 1, kind="hospital", start=at(24), end=at(72)),
        stay("none", 2, kind="hospital", start=at(24), end=at(72)),
        stay("secondary", 3, kind="hospital", start=at(24), end=at(72)),
        stay("late", 4, kind="hospital", start=at(24 * 91), end=at(24 * 93)),
        stay("short", 5, kind="hospital", start=at(24), end=at(30)),
    )
    diagnoses = pl.DataFrame(
        [
            (1, "chd", 10, "I2510", 1),
            (2, "none", 10, "A419", 1),
            (3, "secondary", 9, "4280", 2),
            (3, "secondary", 9, "0389", 1),
            (4, "late", 9, "41401", 1),
            (5, "short", 9, "41401", 1),
        ],
        schema={
            "subject_id": pl.Int64,
            "encounter_id": pl.String,
            "icd_version": pl.Int8,
            "icd_code": pl.String,
            "position": pl.Int32,
        },
        orient="row",
    )
    recordings = pl.DataFrame(
        {
            "recording_id": [f"r{n}" for n in range(1, 6)],
            "subject_id": range(1, 6),
            "available_time": [START] * 5,
        }
    )
    cohort = cardiovascular_samples(recordings, encounters, diagnoses)
    classes = {
        row["encounter_id"]: CLASSES[int(row["float_value"])] for row in cohort.samples.iter_rows(named=True)
    }
    assert classes == {"chd": "chd", "none": "none"}
    assert cohort.attrition["samples"].to_list() == [4, 3, 3, 3, 2]


LATE = """90,10,200,9,50813,,2150-01-12 09:00:00,2150-01-12 15:00:00,9.9,9.9,mmol/L,,,,STAT,
91,10,200,9,50931,,2150-01-12 08:00:00,2150-01-12 16:00:00,777,777,mg/dL,,,,STAT,"CORRECTED RESULT"
92,10,200,9,50931,,2150-01-12 08:00:00,2150-01-12 08:30:00,99,99,mg/dL,,,,STAT,
"""
PLANTED_LATER = "".join(LATE.splitlines(keepends=True)[:2])
KNOWN_BEFORE = LATE.splitlines(keepends=True)[2]


def ward_inputs(root: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return samples at 10:00 of the third morning and what they see."""
    catalogue = load_catalogue()
    observations = read_observations(root, catalogue=catalogue, work=root / "work")
    mapped = map_observations(observations, catalogue).events
    encounters, known = read_encounters(root), read_outcomes(root)
    facts = Facts(events=mapped, diagnoses=read_diagnoses(root))
    cohort = training_samples(
        encounters,
        known,
        task=get_task("in-hospital-mortality"),
        mode="landmark",
        clock=time(10),
        zone="America/New_York",
        facts=facts,
    )
    samples = cohort.samples.filter(pl.col("encounter_id") == "31")
    samples = samples.filter(pl.col("prediction_time") == datetime(2150, 1, 12, 15, tzinfo=UTC))
    seen = visible(mapped, samples).drop("source_ref")
    return samples.drop("boolean_value"), seen.sort("row", "hours", "code", "numeric_value")


def test_a_planted_future_moves_no_sample(tmp_path: Path) -> None:
    labs = FILES["hosp/labevents"] + KNOWN_BEFORE
    before, seen_before = ward_inputs(write_mimic(tmp_path / "before", hosp__labevents=labs))
    assert before.height == 1
    assert 99 in seen_before.filter(pl.col("code") == "glucose")["numeric_value"].to_list()
    planted = {
        # A late-issued lactate and a corrected glucose, both of times before the prediction.
        "hosp__labevents": labs + PLANTED_LATER,
        # A discharge diagnosis, and values charted later for an earlier and a later hour.
        "hosp__diagnoses_icd": FILES["hosp/diagnoses_icd"] + "10,200,3,R6521,10\n",
        "icu__chartevents": FILES["icu/chartevents"]
        + "10,200,31,1,2150-01-12 09:30:00,2150-01-12 11:00:00,220045,180,180,bpm,0\n"
        + "10,200,31,1,2150-01-12 11:30:00,2150-01-12 11:31:00,220045,190,190,bpm,0\n",
        # The stay ends later, in another unit, and the patient lives.
        "icu__icustays": FILES["icu/icustays"].replace(
            "Medical Intensive Care Unit (MICU),2150-01-10 10:00:00,2150-01-14 10:00:00,4",
            "Surgical Intensive Care Unit (SICU),2150-01-10 10:00:00,2150-01-15 10:00:00,5",
        ),
        "hosp__admissions": FILES["hosp/admissions"].replace(",2150-01-20 12:00:00,URGENT", ",,URGENT"),
    }
    for name, content in planted.items():
        tables = {"hosp__labevents": labs} | {name: content}
        after, seen_after = ward_inputs(write_mimic(tmp_path / name, **tables))
        assert after.equals(before), name
        assert seen_after.equals(seen_before), name
