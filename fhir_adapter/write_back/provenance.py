"""Who made a batch of scores (https://hl7.org/fhir/R4/provenance.html)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any

from fhir_adapter.write_back.model_facts import ModelFacts
from fhir_adapter.write_back.naming import (
    AI_DEVICE_TYPE,
    AI_LABEL,
    Names,
    device_id,
    model_card_id,
    stable_id,
)
from fhir_adapter.write_back.risk_assessment import instant

PARTICIPANTS = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
OPERATIONS = "http://terminology.hl7.org/CodeSystem/v3-DataOperation"


def provenance(
    score_keys: Sequence[str],
    *,
    card: ModelFacts,
    names: Names,
    partition: str,
    number: int,
    recorded: datetime,
    zone: tzinfo = UTC,
    transparency: bool,
) -> dict[str, Any]:
    """Return the Provenance of one batch.

    Parameters
    ----------
    score_keys
        Ids of the batch's RiskAssessments.
    number
        Number of the batch in its run; with the partition and the weights it gives the id.
    recorded
        The end of the data interval that was scored. It is not the wall clock, so that the same night
        gives the same resource; when a server took it in, its ``meta.lastUpdated`` says.
    """
    agent: dict[str, Any] = {
        "type": {"coding": [{"system": PARTICIPANTS, "code": "author", "display": "Author"}]},
        "who": {"reference": f"Device/{device_id(names, card.digest)}"},
    }
    resource: dict[str, Any] = {
        "resourceType": "Provenance",
        "id": stable_id(names.site, "provenance", partition, card.task, card.digest, str(number)),
        "meta": names.meta(profile="AI-Provenance" if transparency else None, partition=partition),
        "target": [{"reference": f"RiskAssessment/{key}"} for key in score_keys],
        "occurredDateTime": instant(recorded, zone),
        "recorded": instant(recorded, zone),
        "reason": [{"coding": [AI_LABEL]}],
        "activity": {"coding": [{"system": OPERATIONS, "code": "CREATE", "display": "create"}]},
        "agent": [agent],
    }
    if transparency:
        agent["role"] = [{"coding": [AI_DEVICE_TYPE]}]
        if card.markdown:
            resource["entity"] = [
                {
                    "role": "derivation",
                    "what": {"reference": f"DocumentReference/{model_card_id(names, card.digest)}"},
                }
            ]
    return resource
