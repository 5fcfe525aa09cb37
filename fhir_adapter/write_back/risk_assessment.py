"""A score as RiskAssessment (https://hl7.org/fhir/R4/riskassessment.html)."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from fhir_adapter.write_back.model_facts import RISK_LEVELS, ModelFacts
from fhir_adapter.write_back.naming import Names, device_id, reference

RISK_SYSTEM = "http://terminology.hl7.org/CodeSystem/risk-probability"
DIGITS = 4
MAX_BASIS = 50
MODALITY_WORDS = {"ehr": "clinical measurements", "ecg": "ECG", "cxr": "chest radiograph"}


def instant(moment: datetime, zone: tzinfo = UTC) -> str:
    """Return a FHIR dateTime with offset, to the second or, where there are any, milliseconds.

    Examples
    --------
    >>> instant(datetime(2026, 1, 19, 4, tzinfo=UTC))
    '2026-01-19T04:00:00+00:00'
    """
    return moment.astimezone(zone).isoformat(timespec="milliseconds" if moment.microsecond else "seconds")


def rounded(value: float, digits: int = DIGITS) -> float:
    """Return a value rounded in decimal, so that 0.1 + 0.2 is written as 0.3.

    Examples
    --------
    >>> rounded(0.1 + 0.2), rounded(0.00005)
    (0.3, 0.0)
    """
    if not math.isfinite(value):  # left as it is: the checks refuse it with its place
        return value
    return float(Decimal(repr(value)).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_EVEN))


def risk_assessment(
    score: dict[str, Any],
    *,
    card: ModelFacts,
    names: Names,
    partition: str,
    zone: tzinfo = UTC,
    reference_base: str | None = None,
) -> dict[str, Any]:
    """Return the RiskAssessment of one row of the score table.

    Parameters
    ----------
    score
        Row of :class:`validation.contracts.Scores`.
    card
        Facts of the model that scored.
    names
        Systems of the site.
    partition
        Run that the resource belongs to (``meta.tag``).
    zone
        Zone in which times are shown.
    reference_base
        Base address of the source, where the destination is another server.

    Notes
    -----
    ``probabilityDecimal`` is a share between 0 and 1 with four digits: R4 itself only asks for at most 100.
    ``occurrenceDateTime`` is the prediction time, not the time of computing, so that the same night gives
    the same resource. No text of the patient's record enters.
    """
    moment: datetime = score["prediction_time"]
    coding = {
        "system": names.code_system("model"),
        "version": score["model_version"],
        "code": score["model_name"],
    }
    resource: dict[str, Any] = {
        "resourceType": "RiskAssessment",
        "id": score["score_key"],
        "meta": names.meta(profile=None, partition=partition),
        "identifier": [{"system": names.score_system, "value": score["score_key"]}],
        "status": "final",
        "method": {"coding": [coding], "text": f"{score['model_name']} {score['model_version']}"},
        "code": {
            "coding": [{"system": names.code_system("assessment"), "code": score["task"]}],
            "text": card.title,
        },
        "subject": reference(score["patient_ref"], names, reference_base),
        "encounter": reference(score["encounter_ref"], names, reference_base),
        "occurrenceDateTime": instant(moment, zone),
        "performer": {"reference": f"Device/{device_id(names, score['model_digest'])}"},
        "prediction": [_prediction(score, card=card, moment=moment, zone=zone)],
    }
    basis = list(dict.fromkeys(score["basis"]))
    if basis:
        resource["basis"] = [reference(item, names, reference_base) for item in basis[:MAX_BASIS]]
    note = _note(score)
    if note:
        resource["note"] = [{"text": note}]
    return resource


def _prediction(score: dict[str, Any], *, card: ModelFacts, moment: datetime, zone: tzinfo) -> dict[str, Any]:
    prediction: dict[str, Any] = {
        "outcome": {"coding": [item.to_fhir() for item in card.outcomes], "text": card.title},
        "rationale": rationale(score, unit=card.unit),
    }
    if score["probability"] is not None:
        prediction["probabilityDecimal"] = rounded(score["probability"])
    level = score["risk_level"]
    if level in RISK_LEVELS:
        coding = {"system": RISK_SYSTEM, "code": level, "display": RISK_LEVELS[level]}
        prediction["qualitativeRisk"] = {"coding": [coding]}
    elif level:
        prediction["qualitativeRisk"] = {"text": level}
    period = {"start": instant(moment, zone)}
    if score["horizon_hours"]:
        period["end"] = instant(moment + timedelta(hours=score["horizon_hours"]), zone)
    prediction["whenPeriod"] = period
    return prediction


def rationale(score: dict[str, Any], *, unit: str | None = None) -> str:
    """Return which modalities were used and missing, how much each moved the score, and the top features.

    Machine-made words and numbers only.
    """
    changes = {item["modality"]: item["change"] for item in score["contributions"] or ()}
    used = [
        _word(modality) + (f" ({changes[modality]:+.3f})" if modality in changes else "")
        for modality in score["modalities_present"]
    ]
    parts = [f"Used: {', '.join(used) or 'nothing'}."]
    missing = [_word(modality) for modality in score["modalities_missing"]]
    if missing:
        parts.append(f"Missing: {', '.join(missing)}.")
    top = [f"{item['code']} ({item['weight']:+.3f})" for item in score["top_events"] or ()]
    if top:
        parts.append(f"Most influential: {', '.join(top)}.")
    if score["probability"] is None and score["value"] is not None:
        parts.append(f"Predicted value: {rounded(score['value'])} {unit or ''}".rstrip() + ".")
    if score["lower"] is not None and score["upper"] is not None:
        parts.append(f"Interval: {rounded(score['lower'])} to {rounded(score['upper'])}.")
    return " ".join(parts)


def _note(score: dict[str, Any]) -> str | None:
    missing = [_word(modality) for modality in score["modalities_missing"]]
    if not missing:
        return None
    used = ", ".join(_word(modality) for modality in score["modalities_present"]) or "nothing"
    return f"Computed without: {', '.join(missing)}. Score from: {used}."


def _word(modality: str) -> str:
    return MODALITY_WORDS.get(modality, modality)
