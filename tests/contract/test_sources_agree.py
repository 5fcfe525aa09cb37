"""The proof: the same patients by two routes, MIMIC-IV tables and MIMIC-IV on FHIR, give the same events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from deploy.compare_sources import CAUSES, PATIENT_SYSTEM, compare_sources, fhir_observations
from modelling.catalogue import UCUM, load_catalogue
from modelling.mapping import map_observations
from modelling.mapping.comparison import Comparison, compare_events
from validation.contracts import empty


@pytest.fixture(scope="module")
def comparison(data_dir: Path) -> Comparison:
    return compare_sources(
        mimic=data_dir / "mimic-iv-demo", fhir=data_dir / "mimic-iv-demo-fhir", catalogue=load_catalogue()
    )


@pytest.mark.data
@pytest.mark.slow
def test_every_feature_value_and_time_is_equal(comparison: Comparison) -> None:
    assert comparison.unexplained == 0, comparison.differences
    assert comparison.equal > 130_000
    assert comparison.subjects == 73
    assert comparison.by_feature["only_left"].sum() == 0
    assert comparison.by_feature["other_availability"].sum() == 0
    assert comparison.by_feature.filter(pl.col("equal") > 0).height >= 60


@pytest.mark.data
@pytest.mark.slow
def test_every_difference_has_a_cause_that_the_data_hold(comparison: Comparison) -> None:
    assert set(comparison.differences["cause"]) == set(CAUSES.values())
    assert set(comparison.differences["side"]) == {"right"}


def test_a_difference_is_found_and_counted_by_origin() -> None:
    rows = pl.DataFrame(
        {
            "subject_id": [1, 1],
            "time": ["2150-01-01 00:00", "2150-01-01 01:00"],
            "code": ["lactate", "lactate"],
            "numeric_value": [1.0, 2.0],
            "origin": ["labevents", "labevents"],
        }
    ).with_columns(
        pl.col("time").str.to_datetime("%Y-%m-%d %H:%M", time_unit="us", time_zone="UTC"),
        pl.col("numeric_value").cast(pl.Float32),
    )
    rows = rows.with_columns(available_time=pl.col("time"))
    assert set(rows.columns) - {"origin"} <= set(empty("events").columns)
    changed = rows.with_columns(
        pl.when(pl.col("numeric_value") == 2)
        .then(2.5)
        .otherwise("numeric_value")
        .cast(pl.Float32)
        .alias("numeric_value")
    )
    compared = compare_events(rows, changed)
    assert compared.equal == 1
    assert compared.unexplained == 2
    assert compared.differences.select("side", "code", "origin", "n").rows() == [
        ("left", "lactate", "labevents", 1),
        ("right", "lactate", "labevents", 1),
    ]
    excused = compare_events(rows, changed, causes={("left", "labevents"): "a known gap"})
    assert excused.unexplained == 1


def resource(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"resourceType": kind, "id": name, **fields}


def write_ward(folder: Path, observations: list[dict[str, Any]]) -> Path:
    """Write one patient's stay and observations as NDJSON."""
    folder.mkdir()
    identifier = {"system": PATIENT_SYSTEM, "value": "7"}
    encounter = resource(
        "Encounter",
        "e",
        status="in-progress",
        subject={"reference": "Patient/p"},
        period={"start": "2150-01-01T00:00:00Z"},
        **{"class": {"code": "ACUTE"}},
    )
    for kind, rows in {
        "Patient": [resource("Patient", "p", identifier=[identifier])],
        "Encounter": [encounter],
        "Observation": observations,
    }.items():
        (folder / f"{kind}.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_loinc_and_ucum_give_the_events_that_item_ids_and_local_units_give(tmp_path: Path) -> None:
    catalogue = load_catalogue()
    facts = {row["feature"]: row for row in catalogue.features.iter_rows(named=True)}
    loinc = dict(
        catalogue.codes_of("loinc").sort("priority", descending=True).select("feature", "code").iter_rows()
    )
    written: dict[str, list[dict[str, Any]]] = {"items": [], "loinc": []}
    local = catalogue.codes.filter(pl.col("system").is_in(["chart", "lab", "items"]))
    for number, row in enumerate(local.iter_rows(named=True)):
        feature, unit = facts[row["feature"]], row["unit"]
        value = feature["normal"]
        charted = value if row["factor"] is None else (value - row["offset"]) / row["factor"]
        if feature["feature"] == "capillary_refill":
            charted = value = 2.0
        shared = {
            "status": "final",
            "subject": {"reference": "Patient/p"},
            "effectiveDateTime": f"2150-01-01T{number // 60:02d}:{number % 60:02d}:00-05:00",
        }
        units = "http://mimic.mit.edu/fhir/mimic/CodeSystem/mimic-units"
        declared = {"system": units, "code": unit} if unit else {}
        if feature["feature"] == "capillary_refill":
            declared = {"system": units, "code": "sec"}
        written["items"].append(
            resource(
                "Observation",
                f"o{number}",
                code={"coding": [{"system": catalogue.system_url(row["system"]), "code": row["code"]}]},
                valueQuantity={"value": charted, **declared},
                **shared,
            )
        )
        ucum = "s" if feature["feature"] == "capillary_refill" else feature["unit"]
        written["loinc"].append(
            resource(
                "Observation",
                f"o{number}",
                code={"coding": [{"system": "http://loinc.org", "code": loinc[row["feature"]]}]},
                valueQuantity={"value": value, "system": UCUM, "code": ucum},
                **shared,
            )
        )
    events = []
    for name, observations in written.items():
        folder = write_ward(tmp_path / name, observations)
        mapping = map_observations(fhir_observations(folder, tmp_path / f"{name}-work"), catalogue)
        assert mapping.counts["quarantined"] == mapping.counts["unmapped"] == 0, mapping.quarantine
        assert mapping.counts["events"] == local.height
        events.append(mapping.events.sort("time", "code").with_columns(pl.col("numeric_value").round(3)))
    assert events[0].drop("source_ref").equals(events[1].drop("source_ref"))
    assert set(events[0]["code"]) == set(local["feature"])
