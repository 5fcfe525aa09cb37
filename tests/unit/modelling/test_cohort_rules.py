"""Rules of the benchmarks by hand: which stays are kept, organ support in SOFA, operations, whole codes."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from cohort_tables import START, at, charted, events, outcomes, stay, stays
from mimic_ward import write_mimic

from modelling.catalogue import load_catalogue
from modelling.cohorts.cardiovascular import CLASSES, cardiovascular_samples
from modelling.cohorts.diagnoses import OPERATIONS, grouped, phenotype_prefixes, prefixes
from modelling.cohorts.folder import build_cohort
from modelling.cohorts.labels import Facts
from modelling.cohorts.night import night_samples
from modelling.cohorts.rules import RULES, VALUE_RULES, baseline_creatinine, no_long_gap, values_in_four_hours
from modelling.cohorts.sepsis import sofa_by_hour
from modelling.cohorts.tasks import TASKS, get_task
from modelling.cohorts.training import training_samples
from modelling.errors import CohortError
from modelling.mimic import map_mimic
from modelling.mimic.stays import read_encounters, read_outcomes
from modelling.mimic.supports import INFUSIONS, SUPPORTS, VENTILATION, read_supports

CODED = {
    "subject_id": pl.Int64,
    "encounter_id": pl.String,
    "icd_version": pl.Int8,
    "icd_code": pl.String,
    "position": pl.Int32,
}


def test_every_rule_of_a_task_exists() -> None:
    for task in TASKS.values():
        assert set(task.benchmark_rules) <= set(RULES) | set(VALUE_RULES), task.name


def test_a_stay_needs_values_in_four_hours() -> None:
    encounters = stays(stay("three", 1), stay("four", 2), stay("none", 3))
    table = pl.concat(
        [
            events(
                ("heart_rate", 1, 80), ("heart_rate", 1.5, 80), ("heart_rate", 2, 80), ("heart_rate", 3, 80)
            ),
            events(*charted(4), subject=2),
        ]
    )
    assert values_in_four_hours(encounters, table)["encounter_id"].to_list() == ["four"]


@pytest.mark.parametrize(
    ("hours", "kept"),
    [
        ([0, 13, 26, 39], True),  # twelve empty hours between each
        ([0, 14, 26, 39], False),  # thirteen
        ([13, 26, 39], False),  # thirteen before the first
        ([12, 25, 38], True),
        ([0, 13, 26], False),  # thirteen after the last, of a stay of 40 hours
    ],
)
def test_a_gap_is_counted_in_empty_hours(hours: list[int], kept: bool) -> None:
    table = events(*[("heart_rate", hour + 0.5, 80.0) for hour in hours])
    assert (no_long_gap(stays(stay(hours=40)), table).height == 1) == kept


def test_an_hour_after_the_first_week_closes_no_gap() -> None:
    week = events(*charted(168))
    assert no_long_gap(stays(stay(hours=400)), week).height == 1
    assert no_long_gap(stays(stay(hours=400)), week.filter(pl.col("time") < at(150))).is_empty()


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([(1, 5.0), (20, 3.0)], False),  # the first one counts
        ([(-20, 3.9), (1, 5.0)], True),  # a lower one of the week before
        ([(-200, 3.9), (1, 5.0)], False),  # older than a week
        ([], True),
    ],
)
def test_a_failed_kidney_is_no_new_injury(values: list[tuple[float, float]], kept: bool) -> None:
    table = events(*[("creatinine", hour, value) for hour, value in values])
    assert (baseline_creatinine(stays(stay()), table).height == 1) == kept


def test_hourly_benchmarks_stop_after_a_week_and_nights_do_not() -> None:
    facts = Facts(events=events(*charted(400)))
    encounters, known = stays(stay(hours=400)), outcomes(("stay", 1, False, None))
    task = get_task("remaining-length-of-stay")
    benchmark = training_samples(encounters, known, task=task, facts=facts)
    assert benchmark.samples["prediction_time"].max() == at(167)
    nightly = training_samples(encounters, known, task=task, mode="landmark", facts=facts)
    assert nightly.samples["prediction_time"].max() > at(380)


def test_a_sample_needs_a_value_by_then_where_the_benchmark_asks_for_it() -> None:
    encounters, known = stays(stay(hours=60)), outcomes(("stay", 1, False, None))
    late = Facts(events=events(("heart_rate", 50, 80)))
    task = get_task("in-hospital-mortality")
    assert training_samples(encounters, known, task=task, facts=late).samples.is_empty()
    hourly = training_samples(encounters, known, task=get_task("decompensation"), facts=late)
    assert hourly.samples["prediction_time"].min() == at(50)
    without = training_samples(encounters, known, task=get_task("mortality-24h"))
    assert without.samples.height == 1
    assert "(no events, not applied) values in 4 hours or more" in without.attrition["step"].to_list()


def supports(*rows: tuple[str, float, float, float | None]) -> pl.DataFrame:
    return pl.DataFrame(
        [(1, at(start), at(end), kind, rate) for kind, start, end, rate in rows],
        schema=SUPPORTS,
        orient="row",
    )


@pytest.mark.parametrize(
    ("kind", "rate", "points"),
    [
        ("norepinephrine", 0.05, 3),
        ("norepinephrine", 0.2, 4),
        ("dopamine", 4, 2),
        ("dopamine", 10, 3),
        ("dopamine", 16, 4),
        ("dobutamine", 2, 2),
    ],
)
def test_vasoactive_drugs_score_while_they_run(kind: str, rate: float, points: int) -> None:
    sofa = sofa_by_hour(events(("platelets", 0.5, 200.0)), supports((kind, 10, 13.5, rate)))
    by_hour = {
        (row["hour"] - START).total_seconds() / 3600: row["sofa"] for row in sofa.iter_rows(named=True)
    }
    assert by_hour[1] == 0
    assert by_hour[11] == by_hour[37] == points


def test_ventilation_counts_where_oxygen_was_measured() -> None:
    table = events(("pao2", 1.5, 80.0), ("fio2", 1.0, 0.5))
    assert sofa_by_hour(table, supports(("ventilation", 0, 5, None)))["sofa"].unique().to_list() == [3]
    assert sofa_by_hour(table, supports(("ventilation", 0, 1, None)))["sofa"].unique().to_list() == [2]


def test_little_urine_scores_once_a_day_was_charted() -> None:
    dry = events(*[("urine_output", hour, 10.0) for hour in range(0, 40)])
    sofa = sofa_by_hour(dry)
    assert sofa["hour"].min() == at(25)
    assert sofa["sofa"].unique().to_list() == [3]
    assert sofa_by_hour(events(*[("urine_output", hour, 5.0) for hour in range(0, 40)]))["sofa"].max() == 4


@pytest.mark.data
def test_items_of_support_are_those_of_the_dictionary(data_dir: Path) -> None:
    items = pl.read_csv(data_dir / "mimic-iv-demo/icu/d_items.csv.gz")
    label = dict(items.select("itemid", "label").iter_rows())
    table = dict(items.select("itemid", "linksto").iter_rows())
    for item, (_, name) in INFUSIONS.items():
        assert (label[item], table[item]) == (name, "inputevents")
    for item, name in VENTILATION.items():
        assert (label[item], table[item]) == (name, "procedureevents")
    found = read_supports(data_dir / "mimic-iv-demo")
    assert set(found["kind"]) >= {"norepinephrine", "ventilation"}
    noradrenaline = found.filter(pl.col("kind") == "norepinephrine")["rate"]
    assert 0.01 < noradrenaline.median() < 0.5  # type: ignore[operator]
    assert (found["end"] >= found["start"]).all()


def test_a_whole_code_is_not_a_prefix() -> None:
    codes = ["2766", "27661", "27669", "5118", "51181"]
    diagnoses = pl.DataFrame([(1, code, 9, code, 1) for code in codes], schema=CODED, orient="row")
    found = grouped(diagnoses, phenotype_prefixes())
    fluid = found.filter(pl.col("group") == "fluid_electrolyte_disorders")["encounter_id"].to_list()
    pleura = found.filter(pl.col("group") == "pleurisy_pneumothorax_collapse")["encounter_id"].to_list()
    assert fluid == ["2766", "27669"]  # 27661 is an overload by transfusion, a complication of care
    assert pleura == ["5118"]


@pytest.mark.data
def test_every_operation_prefix_exists_in_the_dictionary(data_dir: Path) -> None:
    listed = pl.read_csv(
        data_dir / "mimic-iv-demo/hosp/d_icd_procedures.csv.gz", schema_overrides={"icd_code": pl.String}
    ).with_columns(pl.col("icd_code").str.strip_chars())
    for row in prefixes(OPERATIONS).iter_rows(named=True):
        same = pl.col("icd_version") == row["icd_version"]
        assert listed.filter(same & pl.col("icd_code").str.starts_with(row["prefix"])).height, row


def test_an_operation_makes_a_secondary_diagnosis_the_cause() -> None:
    encounters = stays(
        stay("operated", 1, kind="hospital", start=at(24), end=at(72)),
        stay("other organ", 2, kind="hospital", start=at(24), end=at(72)),
    )
    diagnoses = pl.DataFrame(
        [
            (1, "operated", 10, "A419", 1),
            (1, "operated", 10, "I2510", 2),
            (2, "other organ", 10, "A419", 1),
            (2, "other organ", 10, "I639", 2),
        ],
        schema=CODED,
        orient="row",
    )
    procedures = pl.DataFrame(
        [(1, "operated", 10, "02703ZZ", 1), (2, "other organ", 9, "3615", 1)], schema=CODED, orient="row"
    )
    recordings = pl.DataFrame(
        {"recording_id": ["r1", "r2"], "subject_id": [1, 2], "available_time": [START] * 2}
    )
    cohort = cardiovascular_samples(recordings, encounters, diagnoses, procedures)
    assert cohort.samples.select("encounter_id", "float_value").rows() == [
        ("operated", float(CLASSES.index("chd")))
    ]


def test_shards_add_up_to_the_whole_folder(tmp_path: Path) -> None:
    root = write_mimic(tmp_path / "mimic")
    cohorts = []
    for shards in (1, 3):
        out = tmp_path / str(shards)
        map_mimic(mimic=root, out=out, catalogue=load_catalogue(), n_shards=shards)
        cohorts.append(
            [
                build_cohort(out, get_task(name), mode=mode)
                for name in ("in-hospital-mortality", "phenotyping", "remaining-length-of-stay")
                for mode in (None, "landmark")
            ]
        )
    for one, three in zip(*cohorts, strict=True):
        assert three.samples.equals(one.samples)
        assert three.attrition.equals(one.attrition)
        assert (three.labels is None) == (one.labels is None)
    # Nights of 24 hours and more: three of each of the first two stays, two of the third.
    assert cohorts[0][1].samples.height == 8


def test_a_folder_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="holds no mapped tables; run map-mimic"):
        build_cohort(tmp_path, get_task("sepsis"))
    out = tmp_path / "out"
    map_mimic(mimic=write_mimic(tmp_path / "mimic"), out=out, catalogue=load_catalogue())
    with pytest.raises(CohortError, match="needs the table of suspected infections"):
        build_cohort(out, get_task("sepsis"))
    with pytest.raises(CohortError, match="map MIMIC-IV with --ecg"):
        build_cohort(out, get_task("cardiovascular-90-days"))


def test_landmarks_follow_the_site_s_clock() -> None:
    asked = training_samples(
        stays(stay(hours=60)),
        outcomes(("stay", 1, False, None)),
        task=get_task("in-hospital-mortality"),
        mode="landmark",
        zone="America/New_York",
    )
    # 06:00 in Boston is 11:00 in UTC in winter; the stay began at 08:00 UTC.
    assert asked.samples["prediction_time"].to_list() == [at(27), at(51)]
    assert at(27) == datetime.fromisoformat("2150-03-02T11:00:00+00:00")
    assert at(51) - at(27) == timedelta(days=1)


@pytest.mark.data
def test_a_landmark_asks_about_the_stays_that_the_night_asks_about(data_dir: Path) -> None:
    root = data_dir / "mimic-iv-demo"
    encounters, task = read_encounters(root), get_task("in-hospital-mortality")
    asked = training_samples(
        encounters, read_outcomes(root), task=task, mode="landmark", zone="America/New_York"
    ).samples
    assert asked.height > 200
    nights = asked.sort("prediction_time").partition_by("prediction_time", maintain_order=True)[::5]
    for night in nights:
        moment = night["prediction_time"][0]
        samples, _ = night_samples(encounters, task=task, prediction_time=moment, partition="x")
        assert samples["encounter_id"].to_list() == night["encounter_id"].to_list()
        assert samples["lookback_start"].to_list() == night["lookback_start"].to_list()
