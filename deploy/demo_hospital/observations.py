"""A stay's Observations: vitals, panels, coma scale, laboratory values, sampled ECGs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from deploy.demo_hospital.coding import (
    CATEGORY,
    COMA_ANSWERS,
    COMA_HOURS,
    COMA_PARTS,
    HOSPITAL,
    LOINC,
    MEASUREMENTS,
    PRESSURE_COMPONENTS,
    PRESSURE_HOURS,
    PRESSURE_PANEL,
    UCUM,
    WARD_BY_ID,
    Measurement,
    Ward,
)
from deploy.demo_hospital.electrocardiogram import GAIN, LEADS
from deploy.demo_hospital.physiology import Series, simulate
from deploy.demo_hospital.resources import META, Resource
from deploy.demo_hospital.stays import Stay

MDC = "urn:oid:2.16.840.1.113883.6.24"
MDC_LEADS = {
    "I": "131329",
    "II": "131330",
    "V1": "131331",
    "V2": "131332",
    "V3": "131333",
    "V4": "131334",
    "V5": "131335",
    "V6": "131336",
    "III": "131389",
    "aVR": "131390",
    "aVL": "131391",
    "aVF": "131392",
}
"""ISO/IEEE 11073-10101 lead codes: 131328 plus the lead's number."""

GLUCOSE_MG_PER_MMOL = 18.016
TROPONIN_LIMIT = 0.010  # ng/mL; below it the laboratory sends "<0.010"


def _category(laboratory: bool) -> list[Resource]:
    return [{"coding": [{"system": CATEGORY, "code": "laboratory" if laboratory else "vital-signs"}]}]


def _code(local: str, loinc: tuple[str, ...], display: str) -> Resource:
    codings: list[Resource] = [{"system": f"{HOSPITAL}/codes", "code": local}]
    codings += [{"system": LOINC, "code": code} for code in loinc]
    return {"coding": codings, "text": display}


def quantity(value: float, unit: str, decimals: int) -> Resource:
    """Return a Quantity with a UCUM code."""
    rounded = round(value, decimals)
    number: float | int = int(rounded) if decimals == 0 else rounded
    return {"value": number, "unit": unit, "system": UCUM, "code": unit}


class Chart:
    """Writes one stay's Observations in the habits of the ward where the patient lies.

    Parameters
    ----------
    stay
        The stay.
    zone
        The ward clock's zone; laboratories send UTC.
    sparse_after
        Hours after which nothing is measured more often than every six hours (keeps a history small).
    pace
        Factor on the hours between two measurements.
    """

    def __init__(self, stay: Stay, zone: ZoneInfo, *, sparse_after: float = 1e9, pace: float = 1.0) -> None:
        self.stay, self.zone, self.sparse_after, self.pace = stay, zone, sparse_after, pace
        self.rng = stay.rngs[0]
        self.values = simulate(stay.course, age=stay.age(stay.admission), male=stay.male, rng=self.rng)
        self.subject = {"reference": f"Patient/{stay.patient_id}"}
        self.length = stay.hours(stay.recorded_until)

    def resources(self) -> Iterator[Resource]:
        """Yield every Observation but the sampled ECGs; those known only after the export are left out."""
        for resource in self._all():
            if datetime.fromisoformat(resource["issued"]) <= self.stay.recorded_until + timedelta(hours=2):
                yield resource

    def _all(self) -> Iterator[Resource]:
        yield from self._body()
        for measurement in MEASUREMENTS:
            yield from self._series(measurement)
        yield from self._pressures()
        yield from self._coma()

    def _times(self, hours_icu: float, hours_ward: float) -> Iterator[tuple[int, datetime, Ward]]:
        """Yield number, time and ward of each round of measuring."""
        hour, number = float(self.rng.uniform(0.05, 0.4)), 0
        while hour < self.length:
            moment = self.stay.admission + timedelta(hours=hour)
            ward = WARD_BY_ID[self.stay.ward_at(moment)]
            step = self.pace * (hours_icu if ward.intensive else hours_ward)
            if step:
                number += 1
                yield number, moment.replace(microsecond=0), ward
            step = step or 4.0
            if hour > self.sparse_after:
                step = max(step, 6.0)
            hour += step * float(self.rng.uniform(0.93, 1.07))

    def _value(self, name: str, moment: datetime) -> float:
        series: Series = self.values[name]
        return float(series[min(int(self.stay.hours(moment)), series.size - 1)])

    def _frame(
        self, key: str, moment: datetime, *, code: Resource, laboratory: bool, device: bool
    ) -> Resource:
        if laboratory:
            issued = moment + timedelta(minutes=float(self.rng.uniform(30, 120)))
            effective_text = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            issued_text = issued.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        else:
            issued = moment + timedelta(minutes=0.2 if device else float(self.rng.uniform(1, 15)))
            local = moment.astimezone(self.zone)
            effective_text = local.isoformat(timespec="milliseconds") if device else local.isoformat()
            issued_text = issued.astimezone(self.zone).isoformat(timespec="seconds")
        return {
            "resourceType": "Observation",
            "id": f"{self.stay.patient_id}-{key}",
            "meta": META,
            "status": "final",
            "category": _category(laboratory),
            "code": code,
            "subject": self.subject,
            "encounter": {"reference": f"Encounter/{self.stay.encounter_at(moment)}"},
            "effectiveDateTime": effective_text,
            "issued": issued_text,
        }

    def _body(self) -> Iterator[Resource]:
        moment = (self.stay.admission + timedelta(minutes=20)).replace(microsecond=0)
        if moment > self.stay.recorded_until:
            return
        ward = WARD_BY_ID[self.stay.ward_at(moment)]
        inches, pounds = ward.pounds, ward.pounds
        height = self._frame(
            "height", moment, code=_code("HT", ("8302-2",), "Body height"), laboratory=False, device=False
        )
        height["valueQuantity"] = (
            quantity(self.stay.height / 2.54, "[in_i]", 1) if inches else quantity(self.stay.height, "cm", 0)
        )
        yield height
        weight = self._frame(
            "weight", moment, code=_code("WT", ("29463-7",), "Body weight"), laboratory=False, device=False
        )
        weight["valueQuantity"] = (
            quantity(self.stay.weight / 0.45359237, "[lb_av]", 1)
            if pounds
            else quantity(self.stay.weight, "kg", 1)
        )
        yield weight

    def _series(self, measurement: Measurement) -> Iterator[Resource]:
        code = _code(measurement.local, measurement.loinc, measurement.display)
        molar = _code("POCGLU-M", ("15074-8",), "Glucose, molar")
        device = measurement.quantity in ("heart_rate", "saturation")
        key = measurement.local.lower()
        for number, moment, ward in self._times(measurement.hours_icu, measurement.hours_ward):
            value = self._value(measurement.quantity, moment)
            resource = self._frame(
                f"{key}-{number:03d}", moment, code=code, laboratory=measurement.laboratory, device=device
            )
            if measurement.quantity == "temperature" and ward.fahrenheit:
                resource["valueQuantity"] = quantity(value * 1.8 + 32, "[degF]", 1)
            elif measurement.quantity == "glucose" and ward.molar_glucose:
                resource["code"] = molar
                resource["valueQuantity"] = quantity(value / GLUCOSE_MG_PER_MMOL, "mmol/L", 1)
            elif measurement.quantity == "troponin" and value < TROPONIN_LIMIT:
                resource["valueQuantity"] = quantity(TROPONIN_LIMIT, measurement.unit, 2) | {
                    "comparator": "<"
                }
            else:
                resource["valueQuantity"] = quantity(value, measurement.unit, measurement.decimals)
            yield resource

    def _pressures(self) -> Iterator[Resource]:
        code = _code("NIBP", (PRESSURE_PANEL,), "Blood pressure panel")
        for number, moment, ward in self._times(*PRESSURE_HOURS):
            resource = self._frame(f"bp-{number:03d}", moment, code=code, laboratory=False, device=False)
            parts = PRESSURE_COMPONENTS if ward.intensive else PRESSURE_COMPONENTS[:2]
            resource["component"] = [
                {
                    "code": {"coding": [{"system": LOINC, "code": loinc}], "text": display},
                    "valueQuantity": quantity(self._value(name, moment), "mm[Hg]", 0),
                }
                for name, loinc, display in parts
            ]
            yield resource

    def _coma(self) -> Iterator[Resource]:
        for number, moment, ward in self._times(*COMA_HOURS):
            for name, local, loinc, display in COMA_PARTS:
                score = int(self._value(name, moment))
                resource = self._frame(
                    f"{local.lower()}-{number:03d}",
                    moment,
                    code=_code(local, (loinc,), display),
                    laboratory=False,
                    device=False,
                )
                if ward.coma == "integer":
                    resource["valueInteger"] = score
                elif ward.coma == "text":
                    answer, text = COMA_ANSWERS[name][score - 1]
                    resource["valueCodeableConcept"] = {
                        "coding": [{"system": LOINC, "code": answer}],
                        "text": text,
                    }
                else:
                    resource["valueQuantity"] = quantity(score, "{score}", 0)
                yield resource

    def sampled_ecg(
        self, number: str, moment: datetime, samples: NDArray[np.int16], *, sampling_rate: int
    ) -> Resource:
        """Return an ECG as an Observation with one SampledData component a lead.

        The integer samples are microvolts; ``factor`` brings them to millivolts.
        """
        resource = self._frame(
            f"ecg-{number}",
            moment,
            code={
                "coding": [{"system": MDC, "code": "131328", "display": "MDC_ECG_ELEC_POTL"}],
                "text": "12-lead ECG (synthetic)",
            },
            laboratory=False,
            device=False,
        )
        resource["category"] = [{"coding": [{"system": CATEGORY, "code": "procedure"}]}]
        resource["component"] = [
            {
                "code": {
                    "coding": [
                        {
                            "system": MDC,
                            "code": MDC_LEADS[lead],
                            "display": f"MDC_ECG_ELEC_POTL_{lead.upper()}",
                        }
                    ]
                },
                "valueSampledData": {
                    "origin": {"value": 0, "unit": "mV", "system": UCUM, "code": "mV"},
                    "period": 1000 / sampling_rate,
                    "factor": 1 / GAIN,
                    "dimensions": 1,
                    "data": " ".join(map(str, samples[:, column].tolist())),
                },
            }
            for column, lead in enumerate(LEADS)
        ]
        return resource


def without_unit(resource: dict[str, Any]) -> dict[str, Any]:
    """Return a copy whose value has lost its unit."""
    value = {key: part for key, part in resource["valueQuantity"].items() if key in ("value", "comparator")}
    return resource | {"valueQuantity": value}
