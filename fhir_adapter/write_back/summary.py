"""What a delivery came to: counts only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fhir_adapter.write_back.item import Key, Outcome

SCORE = "RiskAssessment"


@dataclass(frozen=True, kw_only=True)
class Reconciliation:
    """What the destination was seen to hold after the run.

    Attributes
    ----------
    complete
        Whether the destination could be asked at all.
    expected, held
        RiskAssessments that must be there, and those seen.
    missing
        Resources of any type that the ledger calls confirmed and the destination does not hold.
    duplicated
        Scores that the destination holds more than once.
    unexpected
        Resources with the run's tag that the ledger does not know.
    amended
        Scores whose version is no longer the one that was written.
    """

    complete: bool = False
    expected: int = 0
    held: int = 0
    missing: int = 0
    duplicated: int = 0
    unexpected: int = 0
    amended: int = 0

    @property
    def gap(self) -> bool:
        """Whether a person must look."""
        return not self.complete or bool(self.missing or self.duplicated or self.unexpected)


@dataclass(frozen=True, kw_only=True)
class WriteSummary:
    """Counts of one delivery; those without a type's name are of RiskAssessments.

    Attributes
    ----------
    scores
        RiskAssessments asked for; ``scores = confirmed + dead_lettered``.
    confirmed
        Held by the destination: written + unchanged + found + amended_by_others + withdrawn.
    written
        Sent now and confirmed.
    unchanged
        Confirmed by an earlier run with the same content; not sent.
    found
        Already there with the same content though the ledger did not know: an answer had been lost.
    amended_by_others
        Changed at the destination by someone else; left alone.
    withdrawn
        Marked entered-in-error earlier; left alone.
    dead_lettered
        Not delivered; the ledger holds the reason.
    errors
        Dead letters of every type by class.
    others
        Outcomes of Device, DocumentReference and Provenance by type.
    requests
        HTTP requests, the transport's own repeats not counted, or files written.
    strategies
        How each type is written.
    """

    destination: str
    scores: int
    confirmed: int
    written: int
    unchanged: int
    found: int
    amended_by_others: int
    withdrawn: int
    dead_lettered: int
    errors: dict[str, int] = field(default_factory=dict)
    others: dict[str, dict[str, int]] = field(default_factory=dict)
    requests: int = 0
    strategies: dict[str, str] = field(default_factory=dict)
    reconciliation: Reconciliation = field(default_factory=Reconciliation)

    @property
    def complete(self) -> bool:
        """Whether everything is where it must be."""
        return not self.errors and not self.reconciliation.gap

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {**asdict(self), "complete": self.complete}


@dataclass
class Tally:
    """Outcomes while a delivery runs; each resource ends once."""

    outcomes: dict[Key, Outcome] = field(default_factory=dict)
    classes: dict[Key, str] = field(default_factory=dict)

    def note(self, key: Key, outcome: Outcome, error_class: str | None = None) -> None:
        """Record how a resource ended; a later word replaces an earlier one.

        What was sent in this delivery stays so, however often it is looked at again.
        """
        if outcome is Outcome.UNCHANGED and self.outcomes.get(key) in (Outcome.WRITTEN, Outcome.FOUND):
            return
        self.outcomes[key] = outcome
        self.classes.pop(key, None)
        if outcome is Outcome.DEAD_LETTERED:
            self.classes[key] = error_class or "unknown"

    def summary(
        self,
        *,
        destination: str,
        requests: int,
        strategies: Mapping[str, str],
        reconciliation: Reconciliation,
    ) -> WriteSummary:
        """Return the counts."""
        by_type: dict[str, Counter[str]] = {SCORE: Counter()}
        for (kind, _), outcome in self.outcomes.items():
            by_type.setdefault(kind, Counter())[str(outcome)] += 1
        scores = by_type.pop(SCORE)
        dead = scores[Outcome.DEAD_LETTERED]
        return WriteSummary(
            destination=destination,
            scores=scores.total(),
            confirmed=scores.total() - dead,
            written=scores[Outcome.WRITTEN],
            unchanged=scores[Outcome.UNCHANGED],
            found=scores[Outcome.FOUND],
            amended_by_others=scores[Outcome.AMENDED_BY_OTHERS],
            withdrawn=scores[Outcome.WITHDRAWN],
            dead_lettered=dead,
            errors=dict(sorted(Counter(self.classes.values()).items())),
            others={kind: dict(sorted(counts.items())) for kind, counts in sorted(by_type.items())},
            requests=requests,
            strategies=dict(strategies),
            reconciliation=reconciliation,
        )
