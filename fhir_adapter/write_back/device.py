"""A model version as Device (https://hl7.org/fhir/R4/device.html) and its card as DocumentReference."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from fhir_adapter.write_back.model_facts import ModelFacts
from fhir_adapter.write_back.naming import (
    AI_DEVICE_TYPE,
    TRANSPARENCY,
    Names,
    device_id,
    model_card_id,
)

CARD_TYPE = f"{TRANSPARENCY}/CodeSystem/AIinputsCS"


def device(card: ModelFacts, *, names: Names, transparency: bool) -> dict[str, Any]:
    """Return the Device of one weights digest. It carries no run, so that it is the same every night."""
    note = [card.intended_use, *card.limits]
    if card.thresholds:
        levels = ", ".join(f"{item.level} from {item.lowest:g}" for item in card.thresholds)
        note.append(f"Risk levels: {levels}.")
    resource: dict[str, Any] = {
        "resourceType": "Device",
        "id": device_id(names, card.digest),
        "meta": names.meta(profile="AI-Device" if transparency else None, partition=None),
        "identifier": [{"system": names.identifiers("model-weights"), "value": card.digest}],
        "status": "active",
        "manufacturer": card.manufacturer,
        "deviceName": [{"name": card.name, "type": "model-name"}],
        "version": [
            {"type": {"text": "model version"}, "value": card.version},
            {"type": {"text": "SHA-256 of the weights"}, "value": card.digest},
        ],
        "note": [{"text": text} for text in note if text],
    }
    if transparency:
        resource["type"] = {"coding": [AI_DEVICE_TYPE]}
        if card.markdown:
            resource["extension"] = [
                {
                    "url": f"{TRANSPARENCY}/StructureDefinition/aitransparency.modelCardDescription",
                    "valueReference": {"reference": f"DocumentReference/{model_card_id(names, card.digest)}"},
                }
            ]
    else:
        resource["type"] = {"text": "Machine learning model"}
    if not resource["note"]:
        del resource["note"]
    return resource


def model_card(card: ModelFacts, *, names: Names) -> dict[str, Any]:
    """Return the model card as a DocumentReference of the AI-ModelCard profile, with its digest."""
    content = card.markdown.encode()
    return {
        "resourceType": "DocumentReference",
        "id": model_card_id(names, card.digest),
        "meta": names.meta(profile="AI-ModelCard", partition=None),
        "identifier": [{"system": names.identifiers("model-card"), "value": card.digest}],
        "status": "current",
        "type": {"coding": [{"system": CARD_TYPE, "code": "AIModelCard", "display": "AI Model-Card"}]},
        "category": [
            {
                "coding": [
                    {
                        "system": CARD_TYPE,
                        "code": "AIModelCardMarkdownFormat",
                        "display": "Markdown Format",
                    }
                ]
            }
        ],
        "description": f"Model card of {card.name} {card.version}",
        "content": [
            {
                "attachment": {
                    "contentType": "text/markdown",
                    "data": base64.b64encode(content).decode("ascii"),
                    "size": len(content),
                    # FHIR R4 fixes the algorithm: Attachment.hash is SHA-1.
                    "hash": base64.b64encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode(
                        "ascii"
                    ),
                    "title": f"{card.name} {card.version}",
                }
            }
        ],
    }
