"""Names of what Nightingale writes: identifier and code systems, ids, labels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

from fhir_adapter.references import ID_PATTERN

NAMESPACE = UUID("0d1b3c70-3f0e-5a52-9c39-6c7f1f6d2a11")
AI_LABEL = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "AIAST",
    "display": "Artificial Intelligence asserted",
}
TRANSPARENCY = "http://hl7.org/fhir/uv/aitransparency"
"""AI Transparency on FHIR, 1.0.0-ballot (2025-12): a draft, therefore switchable."""

AI_DEVICE_TYPE = {
    "system": f"{TRANSPARENCY}/CodeSystem/AIdeviceTypeCS",
    "code": "Artificial-Intelligence",
    "display": "All kinds of Artificial Intelligence",
}

_LITERAL = re.compile(rf"[A-Z][A-Za-z]{{1,40}}/{ID_PATTERN}")


@dataclass(frozen=True, kw_only=True)
class Names:
    """Systems below a site's base URI.

    Attributes
    ----------
    uri
        Base URI of the site's identifiers and codes, without a closing slash.
    site
        Short name of the site.
    """

    uri: str
    site: str

    def code_system(self, name: str) -> str:
        """Return the URI of one of our code systems."""
        return f"{self.uri.rstrip('/')}/fhir/CodeSystem/{name}"

    def identifiers(self, name: str) -> str:
        """Return the URI of one of our identifier systems."""
        return f"{self.uri.rstrip('/')}/fhir/identifier/{name}"

    @property
    def score_system(self) -> str:
        """Identifier system of scores."""
        return self.identifiers("score")

    @property
    def run_system(self) -> str:
        """Code system of ``meta.tag``, whose code is the partition."""
        return self.code_system(f"{self.site}-run")

    def run_tag(self, partition: str) -> dict[str, str]:
        """Return the tag that marks a run's resources."""
        return {"system": self.run_system, "code": partition}

    def meta(self, *, profile: str | None, partition: str | None) -> dict[str, Any]:
        """Return ``meta`` with the AI label, and a profile and the run where they apply."""
        meta: dict[str, Any] = {"security": [AI_LABEL], "source": f"{self.uri.rstrip('/')}/nightingale"}
        if profile:
            meta["profile"] = [f"{TRANSPARENCY}/StructureDefinition/{profile}"]
        if partition:
            meta["tag"] = [self.run_tag(partition)]
        return meta


def stable_id(*words: str) -> str:
    """Return the UUIDv5 of words: equal words give an equal id, on any machine."""
    return str(uuid5(NAMESPACE, "|".join(words)))


def device_id(names: Names, digest: str) -> str:
    """Return the id of the Device of a weights digest."""
    return stable_id(names.site, "device", digest)


def model_card_id(names: Names, digest: str) -> str:
    """Return the id of the DocumentReference with the model card of a weights digest."""
    return stable_id(names.site, "model-card", digest)


def reference(value: str, names: Names, base: str | None = None) -> dict[str, Any]:
    """Return a Reference element.

    A literal reference stays literal (absolute below ``base`` where the destination is not the source).
    Rows of tables that are no FHIR resources become logical references: a literal one could not resolve.

    Examples
    --------
    >>> names = Names(uri="https://h.example", site="ward")
    >>> reference("Observation/1", names)
    {'reference': 'Observation/1'}
    >>> reference("labevents:7", names)["identifier"]["value"]
    'labevents:7'
    """
    if _LITERAL.fullmatch(value):
        return {"reference": f"{base.rstrip('/')}/{value}" if base else value}
    if re.match(r"https?://", value):
        return {"reference": value}
    return {"identifier": {"system": names.identifiers("source-row"), "value": value}}
