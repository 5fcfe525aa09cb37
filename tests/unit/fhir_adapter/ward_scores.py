"""A ward's scores and the card of the model that made them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import polars as pl

from fhir_adapter.write_back import Coding, ModelFacts, Threshold, build_resources
from validation.contracts import empty

DIGEST = "3fa9c1d2" + "0" * 56
NIGHT = "2026-01-19"
RUN_SYSTEM = "https://ward.example/fhir/CodeSystem/ward-run"
CARD = ModelFacts(
    name="nightingale-mortality",
    version="1.2",
    digest=DIGEST,
    task="in-hospital-mortality",
    title="Death in hospital",
    outcomes=(Coding("http://snomed.info/sct", "419099009", "Dead"),),
    thresholds=(Threshold(0.0, "low"), Threshold(0.2, "moderate"), Threshold(0.5, "high")),
    horizon_hours=48.0,
    intended_use="Decision support research.",
    limits=("Not a medical device.",),
    markdown="# nightingale-mortality 1.2\n",
)


def score(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "score_key": str(uuid5(NAMESPACE_URL, f"score {number}")),
        "subject_id": number,
        "encounter_id": f"e{number}",
        "patient_ref": f"Patient/p{number}",
        "encounter_ref": f"Encounter/e{number}",
        "prediction_time": datetime(2026, 1, 19, 4, tzinfo=UTC),
        "task": CARD.task,
        "model_name": CARD.name,
        "model_version": CARD.version,
        "model_digest": DIGEST,
        "probability": 0.1 + 0.2,
        "value": None,
        "lower": 0.1,
        "upper": 0.4,
        "risk_level": "moderate",
        "horizon_hours": 48.0,
        "modalities_present": ["ehr", "ecg"],
        "modalities_missing": ["cxr"],
        "contributions": [{"modality": "ehr", "change": 0.12}, {"modality": "ecg", "change": -0.01}],
        "top_events": [{"code": "heart_rate", "source_ref": f"Observation/o{number}", "weight": 0.05}],
        "basis": [f"Observation/o{number}", f"Observation/o{number}"],
        "computed_on": "cpu",
    }
    return row | changes


def scores(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=empty("scores").schema)


def resources(
    n: int = 3, *, card: ModelFacts = CARD, partition: str = NIGHT, **changes: Any
) -> list[dict[str, Any]]:
    return build_resources(
        scores(*(score(number, **changes) for number in range(n))),
        card=card,
        site="ward",
        site_uri="https://ward.example",
        partition=partition,
    )
