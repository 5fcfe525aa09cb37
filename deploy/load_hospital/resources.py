"""The load hospital's FHIR resources: the demo hospital's own, with marks where a patient's text goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from deploy.demo_hospital.coding import (
    CATEGORY,
    COMA_HOURS,
    COMA_PARTS,
    HOSPITAL,
    LOINC,
    MEASUREMENTS,
    PRESSURE_COMPONENTS,
    PRESSURE_HOURS,
    PRESSURE_PANEL,
    UCUM,
)
from deploy.demo_hospital.dicom import SOP_CLASS
from deploy.demo_hospital.resources import ENDPOINT_ID, META, NARRATIVE, ORGANISATION_ID, Resource
from deploy.load_hospital.charts import BATCH, Patients, rounds, values
from deploy.load_hospital.pool import Pool, fixed_uids
from deploy.load_hospital.templates import lines, mark, raw

ZONE = "Europe/Berlin"
_ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
_LOCAL, _UTC = "%Y-%m-%dT%H:%M:%S%:z", "%Y-%m-%dT%H:%M:%SZ"


def _local(column: str) -> pl.Expr:
    return pl.col(column).dt.convert_time_zone(ZONE).dt.to_string(_LOCAL)


def _code(local: str, loinc: tuple[str, ...], display: str) -> Resource:
    codings: list[Resource] = [{"system": f"{HOSPITAL}/codes", "code": local}]
    return {"coding": codings + [{"system": LOINC, "code": code} for code in loinc], "text": display}


def _quantity(column: str, unit: str) -> Resource:
    return {"value": raw(column), "unit": unit, "system": UCUM, "code": unit}


def patients(drawn: Patients) -> Iterator[pl.Series]:
    """Yield the Patients."""
    resource: Resource = {
        "resourceType": "Patient",
        "id": mark("who"),
        "meta": META,
        "text": NARRATIVE,
        "identifier": [{"use": "usual", "system": f"{HOSPITAL}/patients", "value": mark("who")}],
        "active": True,
        "name": [{"use": "official", "text": "Synthetic", "family": mark("who"), "given": ["Synthetic"]}],
        "gender": mark("gender"),
        "birthDate": mark("born"),
        "managingOrganization": {"reference": f"Organization/{ORGANISATION_ID}"},
    }
    yield lines(drawn.written(drawn.frame).with_columns(pl.col("born").cast(pl.String)), resource)


def encounters(drawn: Patients) -> Iterator[pl.Series]:
    """Yield the hospital Encounters and the intensive care Encounters that are part of them."""
    frame = drawn.written(drawn.frame).with_columns(
        _local("admitted"),
        pl.when("icu").then(pl.lit("icu-medical")).otherwise(pl.lit("ward-5-west")).alias("ward"),
    )
    period = {"start": mark("admitted")}
    stationary: Resource = {
        "resourceType": "Encounter",
        "id": f"{mark('who')}-hosp",
        "meta": META,
        "text": NARRATIVE,
        "status": "in-progress",
        "class": {"system": _ACT_CODE, "code": "IMP", "display": "inpatient encounter"},
        "subject": {"reference": f"Patient/{mark('who')}"},
        "period": period,
        "location": [
            {"location": {"reference": f"Location/{mark('ward')}"}, "status": "active", "period": period}
        ],
        "serviceProvider": {"reference": f"Organization/{ORGANISATION_ID}"},
    }
    yield lines(frame, stationary)
    intensive = stationary | {
        "id": f"{mark('who')}-icu",
        "class": {"system": _ACT_CODE, "code": "ACUTE", "display": "inpatient acute"},
        "type": [
            {"coding": [{"system": f"{HOSPITAL}/encounter-types", "code": "ICU"}], "text": "Intensive care"}
        ],
        "partOf": {"reference": f"Encounter/{mark('who')}-hosp"},
    }
    yield lines(frame.filter("icu"), intensive)


def _observation(key: str, code: Resource, *, laboratory: bool) -> Resource:
    return {
        "resourceType": "Observation",
        "id": f"{mark('who')}-{key}-{mark('number')}",
        "meta": META,
        "status": "final",
        "category": [
            {"coding": [{"system": CATEGORY, "code": "laboratory" if laboratory else "vital-signs"}]}
        ],
        "code": code,
        "subject": {"reference": f"Patient/{mark('who')}"},
        "encounter": {"reference": f"Encounter/{mark('place')}"},
        "effectiveDateTime": mark("effective"),
        "issued": mark("issued"),
    }


def _timed(frame: pl.DataFrame, rng: np.random.Generator, *, laboratory: bool) -> pl.DataFrame:
    """Add the two times as text: laboratories send UTC and are late, the bedside sends the ward's clock."""
    low, high = (1800, 7200) if laboratory else (60, 900)
    delay = pl.Series(rng.integers(low, high, frame.height) * 1_000_000).cast(pl.Duration("us"))
    written = frame.with_columns(known=pl.col("time") + delay)
    if laboratory:
        return written.with_columns(
            effective=pl.col("time").dt.to_string(_UTC), issued=pl.col("known").dt.to_string(_UTC)
        )
    return written.with_columns(effective=_local("time"), issued=_local("known"))


def observations(drawn: Patients, *, seed: int, batch: int) -> Iterator[pl.Series]:
    """Yield the Observations, one kind of measurement after another."""
    kinds = np.random.SeedSequence([seed, 5, batch]).spawn(len(MEASUREMENTS) + 2)
    for measurement, child in zip(MEASUREMENTS, kinds, strict=False):
        rng = np.random.default_rng(child)
        frame, owner = rounds(rng, drawn, hours_icu=measurement.hours_icu, hours_ward=measurement.hours_ward)
        frame = _timed(frame, rng, laboratory=measurement.laboratory).with_columns(
            value=values(rng, drawn, owner, measurement.quantity, measurement.decimals)
        )
        resource = _observation(
            measurement.local.lower(),
            _code(measurement.local, measurement.loinc, measurement.display),
            laboratory=measurement.laboratory,
        )
        yield lines(drawn.written(frame), resource | {"valueQuantity": _quantity("value", measurement.unit)})
    rng = np.random.default_rng(kinds[-2])
    frame, owner = rounds(rng, drawn, hours_icu=PRESSURE_HOURS[0], hours_ward=PRESSURE_HOURS[1])
    frame = _timed(frame, rng, laboratory=False).with_columns(
        **{name: values(rng, drawn, owner, name, 0) for name in ("systolic", "diastolic")}
    )
    panel = _observation("bp", _code("NIBP", (PRESSURE_PANEL,), "Blood pressure panel"), laboratory=False)
    components = [
        {
            "code": {"coding": [{"system": LOINC, "code": loinc}], "text": display},
            "valueQuantity": _quantity(name, "mm[Hg]"),
        }
        for name, loinc, display in PRESSURE_COMPONENTS[:2]
    ]
    yield lines(drawn.written(frame), panel | {"component": components})
    rng = np.random.default_rng(kinds[-1])
    frame, owner = rounds(rng, drawn, hours_icu=COMA_HOURS[0], hours_ward=COMA_HOURS[1])
    frame = _timed(frame, rng, laboratory=False)
    for name, local, loinc, display in COMA_PARTS:
        resource = _observation(local.lower(), _code(local, (loinc,), display), laboratory=False)
        scored = frame.with_columns(value=values(rng, drawn, owner, name, 0))
        yield lines(drawn.written(scored), resource | {"valueQuantity": _quantity("value", "{score}")})


def _items(drawn: Patients, column: str, rng: np.random.Generator, size: int) -> pl.DataFrame:
    """Return one row an ECG or a radiograph: whose, when, and its place in the pool."""
    counts = drawn.frame[column].to_numpy()
    owner = np.repeat(np.arange(BATCH), counts)
    share = rng.random(4 * BATCH)[: owner.size]
    ago = (drawn.hours[owner] - 1.0) * share + 0.5  # hours since admission; at least half an hour old
    number = np.arange(owner.size) - np.repeat(np.cumsum(counts) - counts, counts) + 1
    return drawn.frame[owner].select(
        "patient",
        "who",
        pl.concat_str("who", pl.when("icu").then(pl.lit("-icu")).otherwise(pl.lit("-hosp"))).alias("place"),
        pl.Series("number", number).cast(pl.String).str.zfill(2),
        (
            pl.col("admitted") + pl.Series((ago * 3600).astype(np.int64) * 1_000_000).cast(pl.Duration("us"))
        ).alias("time"),
        pl.Series("pooled", rng.integers(0, size, 4 * BATCH)[: owner.size]),
    )


def documents(drawn: Patients, pool: Pool, *, seed: int, batch: int) -> Iterator[pl.Series]:
    """Yield the DocumentReferences of ECGs."""
    rng = np.random.default_rng([seed, 6, batch])
    frame = _items(drawn, "recordings", rng, len(pool.contents)).with_columns(
        start=_local("time"),
        end=(pl.col("time") + pl.duration(seconds=10)).dt.convert_time_zone(ZONE).dt.to_string(_LOCAL),
        documented=(pl.col("time") + pl.duration(minutes=6)).dt.convert_time_zone(ZONE).dt.to_string(_LOCAL),
        content=pl.lit(pl.Series(pool.contents)).gather(pl.col("pooled")),
    )
    resource: Resource = {
        "resourceType": "DocumentReference",
        "id": f"{mark('who')}-ecg-{mark('number')}",
        "meta": META,
        "status": "current",
        "docStatus": "final",
        "type": {"coding": [{"system": LOINC, "code": "11524-6", "display": "EKG study"}]},
        "subject": {"reference": f"Patient/{mark('who')}"},
        "date": mark("documented"),
        "content": raw("content"),
        "context": {
            "encounter": [{"reference": f"Encounter/{mark('place')}"}],
            "period": {"start": mark("start"), "end": mark("end")},
        },
    }
    yield lines(drawn.written(frame), resource)


def studies(drawn: Patients, pool: Pool, archive: Path, *, seed: int, batch: int) -> Iterator[pl.Series]:
    """Write the radiographs below ``archive`` and yield their ImagingStudies."""
    rng = np.random.default_rng([seed, 7, batch])
    frame = drawn.written(_items(drawn, "films", rng, len(pool.films)))
    chosen = [
        fixed_uids(seed, f"{who}-{number}") for who, number in frame.select("who", "number").iter_rows()
    ]
    for uids, film in zip(chosen, frame["pooled"].to_list(), strict=True):
        path = archive / uids.path
        path.parent.mkdir(parents=True)
        path.write_bytes(pool.films[film].stamped(uids))
    frame = frame.with_columns(
        start=_local("time"),
        study=pl.Series([uids.study for uids in chosen], dtype=pl.String),
        series=pl.Series([uids.series for uids in chosen], dtype=pl.String),
        instance=pl.Series([uids.instance for uids in chosen], dtype=pl.String),
    )
    modality = {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "DX"}
    resource: Resource = {
        "resourceType": "ImagingStudy",
        "id": f"{mark('who')}-cxr-{mark('number')}",
        "meta": META,
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{mark('study')}"}],
        "status": "available",
        "modality": [modality],
        "subject": {"reference": f"Patient/{mark('who')}"},
        "encounter": {"reference": f"Encounter/{mark('place')}"},
        "started": mark("start"),
        "endpoint": [{"reference": f"Endpoint/{ENDPOINT_ID}"}],
        "numberOfSeries": 1,
        "numberOfInstances": 1,
        "series": [
            {
                "uid": mark("series"),
                "number": 1,
                "modality": modality,
                "numberOfInstances": 1,
                "instance": [
                    {
                        "uid": mark("instance"),
                        "sopClass": {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{SOP_CLASS}"},
                        "number": 1,
                    }
                ],
            }
        ],
    }
    yield lines(frame, resource)
