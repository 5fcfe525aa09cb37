"""What the registry tells of a model: its record, its states, and the changes between them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """Where a model stands."""

    CANDIDATE = "candidate"
    SHADOW = "shadow"
    CHAMPION = "champion"
    RETIRED = "retired"


class Change(StrEnum):
    """Why a state changed."""

    REGISTER = "register"
    SHADOW = "shadow"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    RETIRE = "retire"


ALLOWED: dict[Change, tuple[frozenset[State], State]] = {
    Change.SHADOW: (frozenset({State.CANDIDATE, State.RETIRED}), State.SHADOW),
    Change.PROMOTE: (frozenset({State.CANDIDATE, State.SHADOW, State.RETIRED}), State.CHAMPION),
    Change.ROLLBACK: (frozenset({State.RETIRED, State.SHADOW, State.CANDIDATE}), State.CHAMPION),
    Change.RETIRE: (frozenset({State.CANDIDATE, State.SHADOW, State.CHAMPION}), State.RETIRED),
}
"""From which states a change is possible, and where it leads."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one promotion rule found.

    Attributes
    ----------
    rule
        Name of the rule.
    passed
        Whether it holds.
    reason
        One sentence with the numbers.
    """

    rule: str
    passed: bool
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a model was trained on.

    Attributes
    ----------
    data_version
        Name of the data: the asset partition, such as a date or a MIMIC release.
    data_fingerprint
        SHA-256 of the training tables.
    """

    data_version: str
    data_fingerprint: str


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """A row of the registry, detached from the database.

    Attributes
    ----------
    digest
        SHA-256 of weights and configuration: the model's name for ever.
    files
        SHA-256 of every file of its folder.
    metrics, calibration, subgroups
        Measured on held-out patients: name to interval; the calibration's parts; one dict a group level.
    evidence
        Comparisons with champion and baselines, and leak checks, as
        :func:`modelling.registry.evidence.gather_evidence` writes them.
    """

    digest: str
    task: str
    name: str
    version: str
    kind: str
    state: State
    registered: datetime
    files: dict[str, str]
    config: dict[str, Any]
    code_version: str
    catalogue_digest: str
    data_version: str
    data_fingerprint: str
    metrics: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    subgroups: list[dict[str, Any]] = field(default_factory=list)
    evidence: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {**asdict(self), "state": str(self.state), "registered": self.registered.isoformat()}


@dataclass(frozen=True, kw_only=True)
class Transition:
    """One change of state, as recorded.

    Attributes
    ----------
    replaced
        Digest of the champion that made way; None if there was none.
    findings
        What the promotion rules found, as dicts.
    """

    digest: str
    kind: Change
    before: State | None
    after: State
    replaced: str | None
    moment: datetime
    who: str
    why: str
    findings: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {**asdict(self), "moment": self.moment.isoformat()}
