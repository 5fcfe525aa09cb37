"""The questions that models answer: horizon, look-back, who is asked about, and the outcome's coding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from modelling.errors import CohortError

Kind = Literal["binary", "regression", "multilabel"]
SNOMED = "http://snomed.info/sct"
LOCAL = "https://nightingale.invalid/fhir/CodeSystem/outcome"
"""Outcomes for which no single standard concept exists; ``.invalid`` never resolves (RFC 2606)."""


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One question to a model.

    Attributes
    ----------
    name, title
        Key in :data:`TASKS`, and words for a report.
    kind
        ``binary``, ``regression`` or ``multilabel``.
    horizon_hours
        Span after the prediction time that the answer speaks about; None means until discharge.
    lookback_hours
        Span before the prediction time that inputs may come from.
    minimum_hours
        Length of stay (in the unit of the stay) at the prediction time below which a stay is skipped.
    minimum_age
        Years at prediction time.
    outcome_system, outcome_code, outcome_display
        Coding of the predicted event for RiskAssessment.prediction.outcome.
    unit
        UCUM unit of a regression's value.
    source
        Where the definition comes from.
    """

    name: str
    title: str
    kind: Kind
    horizon_hours: float | None
    lookback_hours: float = 48.0
    minimum_hours: float = 24.0
    minimum_age: float = 18.0
    outcome_system: str = LOCAL
    outcome_code: str = ""
    outcome_display: str = ""
    unit: str | None = None
    source: str = ""

    def with_minimum_hours(self, hours: float) -> TaskSpec:
        """Return the task for stays of at least this many hours."""
        return replace(self, minimum_hours=hours)


_MORTALITY = TaskSpec(
    name="in-hospital-mortality",
    title="Death before hospital discharge",
    kind="binary",
    horizon_hours=None,
    outcome_system=SNOMED,
    outcome_code="419099009",
    outcome_display="Dead",
    source="Harutyunyan et al. 2019, in-hospital mortality; asked every night instead of once at 48 h",
)

TASKS: dict[str, TaskSpec] = {task.name: task for task in (_MORTALITY,)}
"""Every task by name."""


def get_task(name: str) -> TaskSpec:
    """Return a task by name.

    Raises
    ------
    CohortError
        Naming the tasks that exist.
    """
    try:
        return TASKS[name]
    except KeyError:
        raise CohortError(f"no task {name!r}; there are {', '.join(sorted(TASKS))}") from None
