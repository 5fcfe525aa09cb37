"""Pass, pass with warnings, or stop: the decision and its reasons.

Great Expectations sees the profile tables only (20 to 200 rows of aggregates), so no value or
identifier of a patient can stand in its results or in its Data Docs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from validation.contracts import write_json
from validation.errors import GateStopped
from validation.profiles import Profiles, describe_comparison

Outcome = Literal["pass", "pass_with_warnings", "stop"]


@dataclass(frozen=True, kw_only=True)
class GateThresholds:
    """Numbers that the committed suites leave to the site; shares are of 1.

    Attributes
    ----------
    quarantined_share, quarantined_share_warning
        Resources refused whole, of all pulled.
    skipped_share
        Eligible encounters skipped before scoring.
    samples_with_events_share
        Samples that must have at least one accepted event.
    unknown_unit_share
        Rows of the whole night refused for their unit.
    unknown_unit_rate, out_of_range_rate, contradicted_rate, repeated_rate, missing_rate, stale_hours
        Of each feature: a warning above.
    ward_events_share, source_quarantined_share
        Of each ward and source: a warning below and above.
    """

    quarantined_share: float = 0.10
    quarantined_share_warning: float = 0.03
    skipped_share: float = 0.90
    samples_with_events_share: float = 0.25
    unknown_unit_share: float = 0.20
    unknown_unit_rate: float = 0.05
    out_of_range_rate: float = 0.05
    contradicted_rate: float = 0.05
    repeated_rate: float = 0.20
    missing_rate: float = 0.75
    stale_hours: float = 48.0
    ward_events_share: float = 0.50
    source_quarantined_share: float = 0.50

    def __post_init__(self) -> None:
        for name, number in asdict(self).items():
            if not number >= 0 or (name != "stale_hours" and number > 1):
                raise ValueError(f"gate threshold {name} must lie between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One expectation that was not met.

    Attributes
    ----------
    suite, expectation, column
        Which expectation of which suite.
    severity
        ``critical`` stops the night, ``warning`` lets it pass with a warning, ``info`` is a note.
    text
        What was expected and what was found, for people.
    broken
        True when the expectation could not be evaluated at all; such a finding always stops.
    """

    suite: str
    expectation: str
    column: str | None
    severity: str
    text: str
    broken: bool = False


@dataclass(frozen=True, kw_only=True)
class GateDecision:
    """The outcome and why.

    Attributes
    ----------
    decision
        ``pass``, ``pass_with_warnings`` or ``stop``.
    reasons
        One sentence a finding, the gravest first; the override first where there was one.
    findings
        The same as data.
    override
        Name and reason of the person who let a stopped night pass; None where nobody did.
    evaluated
        Number of expectations evaluated.
    suites_digest
        SHA-256 over the committed suites, so that a decision names the rules it was made by.
    data_docs
        Path of the Data Docs' first page relative to the work folder.
    """

    decision: Outcome
    reasons: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    override: str | None = None
    evaluated: int = 0
    suites_digest: str = ""
    data_docs: str | None = None

    @property
    def stopped(self) -> bool:
        """Whether nothing may be written back."""
        return self.decision == "stop"

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {**asdict(self), "reasons": list(self.reasons), "findings": [asdict(f) for f in self.findings]}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> GateDecision:
        """Build a decision from :meth:`to_dict`'s result."""
        findings = tuple(Finding(**finding) for finding in fields["findings"])
        return cls(**{**fields, "reasons": tuple(fields["reasons"]), "findings": findings})

    def require_pass(self) -> GateDecision:
        """Return the decision itself.

        Raises
        ------
        GateStopped
            If the decision is ``stop``; the message is the reasons.
        """
        if self.stopped:
            raise GateStopped("the gate stopped the night: " + " | ".join(self.reasons))
        return self


def settle(findings: list[Finding], *, override: str | None) -> tuple[Outcome, tuple[str, ...]]:
    """Return the outcome and its reasons for a list of findings."""
    rank = {"critical": 0, "warning": 1, "info": 2}
    ordered = sorted(findings, key=lambda finding: (not finding.broken, rank[finding.severity]))
    reasons = [f"{finding.severity}, not met: {finding.text}" for finding in ordered]
    stopping = [finding for finding in findings if finding.severity == "critical" or finding.broken]
    if stopping and override:
        return "pass_with_warnings", (
            f"override of {len(stopping)} critical finding(s) by {override}",
            *reasons,
        )
    if stopping:
        return "stop", tuple(reasons)
    if any(finding.severity == "warning" for finding in findings):
        return "pass_with_warnings", tuple(reasons)
    return "pass", tuple(reasons)


def decide(
    profiles: Profiles,
    *,
    thresholds: GateThresholds | None = None,
    work_folder: Path,
    override: str | None = None,
    run_name: str = "night",
) -> GateDecision:
    """Evaluate the committed suites over a night's profile tables.

    Parameters
    ----------
    profiles
        Result of :func:`validation.profiles.profile_night`.
    thresholds
        The site's limits; the defaults when None.
    work_folder
        Gets ``decision.json`` and ``data_docs/``; both are replaced.
    override
        Who lets a stopped night pass, and why. It is recorded even when nothing had to be overridden,
        but then changes nothing.
    run_name
        Shown in the Data Docs: the partition.

    Returns
    -------
    GateDecision
        Never raises for a bad night; :meth:`GateDecision.require_pass` does.
    """
    from validation.gate.checkpoint import evaluate, read_suites  # great_expectations takes seconds to import

    thresholds = thresholds or GateThresholds()
    suites, digest = read_suites()
    tables = {name: table for name, table in profiles.tables().items() if name in suites}
    tables["drift"] = tables["drift"].with_columns(describe_comparison().alias("comparison"))
    evaluation = evaluate(
        tables,
        suites=suites,
        parameters=asdict(thresholds),
        docs_folder=work_folder / "data_docs",
        run_name=run_name,
    )
    outcome, reasons = settle(evaluation.findings, override=override)
    decision = GateDecision(
        decision=outcome,
        reasons=reasons,
        findings=tuple(evaluation.findings),
        override=override,
        evaluated=evaluation.evaluated,
        suites_digest=digest,
        data_docs="data_docs/index.html",
    )
    write_json(decision.to_dict(), work_folder / "decision.json")
    return decision
