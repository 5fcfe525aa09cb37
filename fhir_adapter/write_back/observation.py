"""A score as Observation (https://hl7.org/fhir/R4/observation.html), for servers without RiskAssessment."""

from __future__ import annotations

from typing import Any

CATEGORY = {
    "system": "http://terminology.hl7.org/CodeSystem/observation-category",
    "code": "survey",
    "display": "Survey",
}
DERIVED_FROM = frozenset(
    {
        "DocumentReference",
        "ImagingStudy",
        "Media",
        "QuestionnaireResponse",
        "Observation",
        "MolecularSequence",
    }
)
"""Types that ``Observation.derivedFrom`` may point to."""


def observation(risk: dict[str, Any]) -> dict[str, Any]:
    """Return the Observation that says what a RiskAssessment says, with the same id and identifier.

    The probability is the value (unit 1); the risk level is the interpretation; what was predicted and for
    which period are components; performer becomes ``device``, because a Device performs no Observation.
    """
    prediction = risk["prediction"][0]
    resource: dict[str, Any] = {
        "resourceType": "Observation",
        **{key: risk[key] for key in ("id", "meta", "identifier", "status") if key in risk},
        "category": [{"coding": [CATEGORY]}],
        "code": risk["code"],
        "subject": risk["subject"],
        "encounter": risk["encounter"],
        "effectiveDateTime": risk["occurrenceDateTime"],
        "method": risk["method"],
        "device": risk["performer"],
        "component": [
            {"code": {"text": "Predicted outcome"}, "valueCodeableConcept": prediction["outcome"]},
            {"code": {"text": "Period of the prediction"}, "valuePeriod": prediction["whenPeriod"]},
        ],
        "note": [{"text": prediction["rationale"]}, *risk.get("note", ())],
    }
    if "probabilityDecimal" in prediction:
        resource["valueQuantity"] = {
            "value": prediction["probabilityDecimal"],
            "unit": "1",
            "system": "http://unitsofmeasure.org",
            "code": "1",
        }
    else:
        resource["valueString"] = prediction["rationale"]
    if "qualitativeRisk" in prediction:
        resource["interpretation"] = [prediction["qualitativeRisk"]]
    basis = [item for item in risk.get("basis", ()) if _type(item) in DERIVED_FROM]
    if basis:
        resource["derivedFrom"] = basis
    return resource


def _type(reference: dict[str, Any]) -> str | None:
    literal = reference.get("reference")
    return str(literal).split("/")[-2] if isinstance(literal, str) and "/" in literal else None
