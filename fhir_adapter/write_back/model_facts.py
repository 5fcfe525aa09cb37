"""What the writing side must know of a model; ``deploy`` builds it from the model's ``card.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

RISK_LEVELS = {
    "negligible": "Negligible likelihood",
    "low": "Low likelihood",
    "moderate": "Moderate likelihood",
    "high": "High likelihood",
    "certain": "Certain",
}
"""Codes of ``http://terminology.hl7.org/CodeSystem/risk-probability`` with their displays."""


@dataclass(frozen=True)
class Coding:
    """One FHIR Coding."""

    system: str
    code: str
    display: str | None = None

    def to_fhir(self) -> dict[str, str]:
        """Return the FHIR element."""
        shown = {"display": self.display} if self.display else {}
        return {"system": self.system, "code": self.code, **shown}


@dataclass(frozen=True)
class Threshold:
    """The lowest probability of a risk level."""

    lowest: float
    level: str


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Facts of one version of a model.

    Attributes
    ----------
    name, version
        As in the score table.
    digest
        SHA-256 of the weights, hex.
    task, title
        Name of the task and words for it.
    outcomes
        Codings of the predicted event.
    thresholds
        Lowest probability of each risk level, for the Device's note; levels themselves come with the scores.
    horizon_hours
        Span that a prediction speaks about; None means until discharge.
    intended_use, limits
        Texts of the model card.
    markdown
        The whole model card.
    unit
        UCUM unit of a predicted value, for tasks that predict no event.
    manufacturer
        Who made the model.
    """

    name: str
    version: str
    digest: str
    task: str
    title: str
    outcomes: tuple[Coding, ...]
    thresholds: tuple[Threshold, ...] = ()
    horizon_hours: float | None = None
    intended_use: str = ""
    limits: tuple[str, ...] = ()
    markdown: str = ""
    unit: str | None = None
    manufacturer: str = "Nightingale"

    @classmethod
    def from_card(
        cls,
        card: Mapping[str, Any],
        *,
        digest: str,
        title: str,
        outcomes: Sequence[Coding],
        markdown: str,
        unit: str | None = None,
    ) -> Self:
        """Build the facts from a ``card.json``.

        Parameters
        ----------
        card
            The parsed card.
        digest
            Digest of the weights that really scored (``ScoringModel.digest``).
        title, outcomes, unit
            From the task: the card names it only.
        markdown
            The card as a page.

        Raises
        ------
        KeyError
            If the card lacks name, version or task.
        """
        return cls(
            name=card["name"],
            version=card["version"],
            digest=digest,
            task=card["task"],
            title=title,
            outcomes=tuple(outcomes),
            thresholds=tuple(
                Threshold(float(item["from"]), str(item["level"])) for item in card.get("thresholds") or ()
            ),
            horizon_hours=card.get("horizon_hours"),
            intended_use=str(card.get("description") or ""),
            limits=tuple(str(item) for item in card.get("limits") or ()),
            markdown=markdown,
            unit=unit,
        )
