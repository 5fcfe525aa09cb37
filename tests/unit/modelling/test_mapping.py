"""One mapper: codes, units, texts, levels, repeats, corrections, and an account that adds up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelling.catalogue import UCUM, Catalogue, load_catalogue
from modelling.mapping import map_observations
from validation.contracts import empty
from validation.contracts.store import check_table

LOINC = "http://loinc.org"
MIMIC_UNITS = "http://mimic.mit.edu/fhir/mimic/CodeSystem/mimic-units"
CHART = "http://mimic.mit.edu/fhir/mimic/CodeSystem/mimic-chartevents-d-items"
ITEMS = "http://mimic.mit.edu/fhir/mimic/CodeSystem/mimic-d-items"
NOON = datetime(2150, 1, 1, 12, tzinfo=UTC)

CATALOGUE = load_catalogue()


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return CATALOGUE


def said(*codings: str, **fields: Any) -> dict[str, Any]:
    """One observation row; a bare code is a LOINC code."""
    unit = fields.pop("unit", None)
    row = {
        "subject_id": 1,
        "encounter_id": "stay",
        "time": NOON,
        "available_time": None,
        "codings": [coding if "|" in coding else f"{LOINC}|{coding}" for coding in codings],
        "value": None,
        "text_value": None,
        "comparator": None,
        "unit_system": UCUM if unit is not None else None,
        "unit_code": unit,
        "unit_text": None,
        "status": "final",
        "source_ref": "Observation/1",
        "source_file": "file.ndjson",
        "source_line": 1,
        "component": 0,
    }
    return row | fields


def observations(*rows: dict[str, Any]) -> pl.DataFrame:
    numbered = [row | {"source_line": n} for n, row in enumerate(rows, start=1)]
    return pl.DataFrame(numbered, schema=dict(empty("observations").schema))


def event(catalogue: Catalogue, row: dict[str, Any]) -> dict[str, Any]:
    mapping = map_observations(observations(row), catalogue)
    assert mapping.events.height == 1, mapping.quarantine["reason"].to_list()
    return mapping.events.row(0, named=True)


def reason(catalogue: Catalogue, row: dict[str, Any]) -> str:
    mapping = map_observations(observations(row), catalogue)
    assert mapping.quarantine.height == 1
    return mapping.quarantine["reason"].item()


@pytest.mark.parametrize(
    ("code", "value", "unit", "feature", "expected"),
    [
        ("8310-5", 98.6, "[degF]", "temperature", 37.0),
        ("8310-5", 310.15, "K", "temperature", 37.0),
        ("3150-0", 40, "%", "fio2", 0.4),
        ("3150-0", 0.5, "1", "fio2", 0.5),
        ("8480-6", 16, "kPa", "systolic_bp", 120.01),
        ("2345-7", 10, "mmol/L", "glucose", 180.16),
        ("14682-9", 88.4, "umol/L", "creatinine", 1.0),
        ("8302-2", 70, "[in_i]", "height", 177.8),
        ("29463-7", 176.37, "[lb_av]", "weight", 80.0),
        ("59408-5", 0.97, "1", "spo2", 97.0),
        ("8867-4", 80, "{beats}/min", "heart_rate", 80.0),
        ("6301-6", 1.2, "{INR}", "inr", 1.2),
        ("2744-1", 7.31, "[pH]", "ph", 7.31),
        ("67151-1", 14, "ng/L", "troponin_t", 0.014),
        ("2160-0", 1.1, "mg/dL", "creatinine", 1.1),
        ("30313-1", 1.1, "mg/dL", None, None),
    ],
)
def test_units_lead_to_the_canonical_one(
    catalogue: Catalogue, code: str, value: float, unit: str, feature: str | None, expected: float | None
) -> None:
    if feature is None:
        assert (
            map_observations(observations(said(code, value=value, unit=unit)), catalogue).counts["unmapped"]
            == 1
        )
        return
    mapped = event(catalogue, said(code, value=value, unit=unit))
    assert mapped["code"] == feature
    assert mapped["numeric_value"] == pytest.approx(expected, rel=1e-4)


def test_units_of_other_systems_are_read_as_text(catalogue: Catalogue) -> None:
    row = said(f"{CHART}|223761", value=98.6, unit_system=MIMIC_UNITS, unit_code="°F")
    assert event(catalogue, row)["numeric_value"] == pytest.approx(37.0)
    row = said("8480-6", value=120, unit_text=" mm HG ")
    assert event(catalogue, row)["numeric_value"] == 120


@pytest.mark.parametrize("code", ["8310-5", "29463-7", "8302-2", "2345-7", "3150-0", "44963-7"])
def test_a_missing_unit_is_never_guessed(catalogue: Catalogue, code: str) -> None:
    assert reason(catalogue, said(code, value=1.0)) == "unit.missing"


def test_an_item_without_declared_unit_has_the_catalogue_s(catalogue: Catalogue) -> None:
    assert event(catalogue, said(f"{CHART}|223835", value=50))["numeric_value"] == 0.5
    assert event(catalogue, said(f"{CHART}|226531", value=176.37))["numeric_value"] == pytest.approx(
        80, rel=1e-4
    )


def test_scores_need_no_unit(catalogue: Catalogue) -> None:
    assert event(catalogue, said("9267-6", value=4.0))["text_value"] == "spontaneously"
    assert event(catalogue, said("2744-1", value=7.4))["numeric_value"] == pytest.approx(7.4)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"value": 5.0, "unit": "furlong"}, "unit.unknown"),
        ({}, "value.missing"),
        ({"text_value": "see note"}, "value.type_not_supported"),
        ({"value": float("inf"), "unit": "/min"}, "value.invalid"),
        ({"value": 300.0, "unit": "/min", "comparator": ">"}, "value.comparator"),
    ],
)
def test_refusals_have_reasons(catalogue: Catalogue, fields: dict[str, Any], expected: str) -> None:
    assert reason(catalogue, said("8867-4", **fields)) == expected


def test_a_bound_stands_for_the_value_where_the_catalogue_allows(catalogue: Catalogue) -> None:
    below = event(catalogue, said("6598-7", value=0.01, unit="ng/mL", comparator="<"))
    assert below["numeric_value"] == pytest.approx(0.01)


def test_a_number_may_begin_a_text(catalogue: Catalogue) -> None:
    lab = "http://mimic.mit.edu/fhir/mimic/CodeSystem/mimic-d-labitems"
    row = said(f"{lab}|51003", text_value="<0.01.  remark of the laboratory")
    assert event(catalogue, row)["numeric_value"] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("fields", "level"),
    [
        ({"value": 2.0, "unit": "s"}, 0),
        ({"value": 3.0, "unit": "s"}, 0),
        ({"value": 3.0, "unit": "s", "comparator": "<"}, 0),
        ({"value": 3.0, "unit": "s", "comparator": ">"}, 1),
        ({"value": 4.5, "unit": "s"}, 1),
        ({"text_value": "Normal <3 Seconds"}, 0),
        ({"text_value": "Abnormal >3 Seconds"}, 1),
    ],
)
def test_capillary_refill_is_brisk_or_delayed(
    catalogue: Catalogue, fields: dict[str, Any], level: int
) -> None:
    assert event(catalogue, said("44963-7", **fields))["numeric_value"] == level


@pytest.mark.parametrize(
    ("item", "text", "level"),
    [
        ("220739", "None", 1),
        ("220739", "Spontaneously", 4),
        ("223900", "No Response-ETT", 1),
        ("223900", "Inappropriate Words", 3),
        ("223901", "Flex-withdraws", 4),
        ("223901", "4 Flex-withdraws", 4),
    ],
)
def test_coma_texts_are_levels(catalogue: Catalogue, item: str, text: str, level: int) -> None:
    assert event(catalogue, said(f"{CHART}|{item}", text_value=text))["numeric_value"] == level


def test_a_level_that_does_not_exist_is_refused(catalogue: Catalogue) -> None:
    assert reason(catalogue, said("9267-6", value=7.0)) == "value.unknown_level"
    assert reason(catalogue, said("9267-6", text_value="winks")) == "value.unknown_level"


def test_every_coding_is_looked_at(catalogue: Catalogue) -> None:
    row = said("https://site|SPO2", "59408-5", "2708-6", value=97.0, unit="%")
    assert event(catalogue, row)["code"] == "spo2"


def test_the_catalogue_s_priority_decides_between_codings(catalogue: Catalogue) -> None:
    assert event(catalogue, said("2708-6", "20564-1", value=97.0, unit="%"))["code"] == "sao2"
    assert event(catalogue, said("20564-1", "2708-6", value=97.0, unit="%"))["code"] == "sao2"


def test_repeats_are_merged_and_the_earliest_knowledge_kept(catalogue: Catalogue) -> None:
    late = said(
        "8867-4",
        value=80.0,
        unit="/min",
        available_time=NOON + timedelta(hours=2),
        source_ref="Observation/2",
    )
    early = said("8867-4", value=80.0, unit="/min", available_time=NOON + timedelta(hours=1))
    mapping = map_observations(observations(late, early), catalogue)
    assert mapping.counts["merged"] == 1
    assert mapping.events["available_time"].item() == NOON + timedelta(hours=1)


def test_equal_volumes_of_two_outlets_are_two_volumes(catalogue: Catalogue) -> None:
    left = said(f"{ITEMS}|226565", value=100.0, unit_text="ml", source_ref="Observation/2")
    right = said(f"{ITEMS}|226564", value=100.0, unit_text="ml")
    mapping = map_observations(observations(left, right, right), catalogue)
    assert mapping.events["numeric_value"].to_list() == [200.0]
    assert mapping.counts["merged"] == 2


def test_the_coma_total_is_derived_when_none_is_charted(catalogue: Catalogue) -> None:
    parts = [
        said("9267-6", value=3.0),
        said("9268-4", value=5.0, available_time=NOON + timedelta(minutes=9), source_ref="Observation/motor"),
        said("9270-0", value=4.0),
    ]
    events = map_observations(observations(*parts), catalogue).events
    total = events.filter(pl.col("code") == "gcs_total").row(0, named=True)
    assert total["numeric_value"] == 12
    assert total["derived"]
    assert total["available_time"] == NOON + timedelta(minutes=9)
    charted = map_observations(observations(*parts, said("9269-2", value=12.0)), catalogue)
    assert charted.counts["derived"] == 0
    assert map_observations(observations(*parts[:2]), catalogue).counts["derived"] == 0


def test_a_correction_replaces_what_was_not_known_before_it(catalogue: Catalogue) -> None:
    first = said("2345-7", value=500.0, unit="mg/dL", available_time=NOON + timedelta(hours=1))
    right = said(
        "2345-7",
        value=50.0,
        unit="mg/dL",
        status="corrected",
        available_time=NOON + timedelta(hours=3),
        source_ref="Observation/2",
    )
    both = observations(first, right)
    assert map_observations(both, catalogue).events["numeric_value"].sort().to_list() == [50.0, 500.0]
    before = map_observations(both, catalogue, as_of=NOON + timedelta(hours=2))
    assert before.counts["quarantined"] == 0
    after = map_observations(both, catalogue, as_of=NOON + timedelta(hours=4))
    assert after.events["numeric_value"].to_list() == [50.0]
    assert after.quarantine["reason"].to_list() == ["resource.superseded"]


def test_unknown_codes_are_counted_by_frequency(catalogue: Catalogue) -> None:
    rows = [said("https://site|X", value=1.0)] * 3 + [said("99999-9", value=1.0)]
    unmapped = map_observations(observations(*rows), catalogue).unmapped
    assert unmapped.rows() == [("https://site|X", 3), (f"{LOINC}|99999-9", 1)]


KNOWN = CATALOGUE.codes["coding"].to_list()
UNITS = [
    "%",
    "1",
    "mm[Hg]",
    "mmHg",
    "Cel",
    "[degF]",
    "mg/dL",
    "mmol/L",
    "s",
    "{score}",
    "[pH]",
    "kg",
    "",
    None,
    "??",
]
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "subject_id": st.integers(1, 2),
            "time": st.sampled_from([NOON, NOON + timedelta(minutes=1)]),
            "available_time": st.sampled_from([None, NOON, NOON + timedelta(hours=1)]),
            "codings": st.lists(
                st.sampled_from([*KNOWN[::9], "https://site|X", f"{LOINC}|9267-6"]), min_size=1, max_size=3
            ),
            "value": st.one_of(st.none(), st.floats(), st.sampled_from([1.0, 2.0, 4.0, 40.0])),
            "text_value": st.one_of(
                st.none(), st.text(max_size=8), st.sampled_from(["<3", "4 spontaneously", "> 7.5."])
            ),
            "comparator": st.sampled_from([None, "<", ">="]),
            "unit_code": st.sampled_from(UNITS),
            "unit_system": st.sampled_from([None, UCUM, MIMIC_UNITS]),
            "status": st.sampled_from(["final", "corrected"]),
        }
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_nothing_is_lost_and_order_does_not_matter(rows: list[dict[str, Any]]) -> None:
    table = observations(
        *[said("x|x") | row | {"source_ref": f"Observation/{n}"} for n, row in enumerate(rows)]
    )
    mapping = map_observations(table, CATALOGUE)
    counts = mapping.counts
    assert counts["observations"] == len(rows)
    assert len(rows) == counts["events"] + counts["unmapped"] + counts["merged"] + counts["quarantined"]
    assert counts["events"] == mapping.events.filter(~pl.col("derived")).height
    assert counts["quarantined"] == mapping.quarantine.height
    assert counts["unmapped"] == mapping.unmapped["n"].sum()
    check_table(mapping.events, "events")
    check_table(mapping.quarantine, "quarantine")
    assert mapping.events["numeric_value"].is_finite().all()
    backwards = map_observations(table.reverse(), CATALOGUE)
    assert backwards.counts == counts
    keys = ["subject_id", "time", "code", "numeric_value", "text_value", "available_time"]
    assert backwards.events.select(keys).sort(keys).equals(mapping.events.select(keys).sort(keys))


@settings(max_examples=20, deadline=None)
@given(st.floats(20, 45), st.sampled_from([("Cel", 1.0, 0.0), ("[degF]", 1.8, 32.0), ("K", 1.0, 273.15)]))
def test_temperature_survives_any_unit(celsius: float, unit: tuple[str, float, float]) -> None:
    code, factor, offset = unit
    row = said("8310-5", value=celsius * factor + offset, unit=code)
    mapped = map_observations(observations(row), CATALOGUE).events["numeric_value"].item()
    assert mapped == pytest.approx(celsius, abs=1e-4)
