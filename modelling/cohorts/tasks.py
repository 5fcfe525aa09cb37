"""The questions that models answer: horizon, look-back, who is asked about, and the outcome's coding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from modelling.errors import CohortError

Kind = Literal["binary", "regression", "multiclass", "multilabel"]
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
        ``binary``, ``regression``, ``multiclass`` or ``multilabel``.
    label
        Rule in :data:`modelling.cohorts.labels.LABELS`.
    horizon_hours
        Span after the prediction time that the answer speaks about; None means until discharge.
    lookback_hours
        Span before the prediction time that inputs may come from; None means from the stay's start.
    minimum_hours
        Length of stay at the prediction time below which a stay is skipped.
    minimum_age
        Years at prediction time.
    fixed_hours
        Prediction time of the benchmark, in hours from the stay's start; None means the stay's end.
    hourly
        Whether the benchmark asks every hour instead of once.
    before_hour
        Hour of the stay from which the hourly benchmark asks no more.
    needs_value
        Whether the benchmark leaves out samples of stays without any value by then.
    benchmark_rules
        Rules of the benchmark beyond the above, in :mod:`modelling.cohorts.rules`.
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
    label: str
    horizon_hours: float | None
    lookback_hours: float | None = 48.0
    minimum_hours: float = 24.0
    minimum_age: float = 18.0
    fixed_hours: float | None = 24.0
    hourly: bool = False
    before_hour: float | None = None
    needs_value: bool = False
    benchmark_rules: tuple[str, ...] = ()
    outcome_system: str = LOCAL
    outcome_code: str = ""
    outcome_display: str = ""
    unit: str | None = None
    source: str = ""

    def with_minimum_hours(self, hours: float) -> TaskSpec:
        """Return the task for stays of at least this many hours."""
        return replace(self, minimum_hours=hours)


_HARUTYUNYAN = ("one_stay_an_admission", "no_unit_transfer")
_YAIB = ("stay_of_6_hours", "values_in_four_hours", "no_long_gap")
"""What YAIB asks of every stay (van de Water et al. 2024, appendix on cohorts)."""
_WEEK = 168.0

_TASKS = (
    TaskSpec(
        name="in-hospital-mortality",
        title="Death before hospital discharge",
        kind="binary",
        label="death_in_hospital",
        horizon_hours=None,
        fixed_hours=48.0,
        needs_value=True,
        benchmark_rules=_HARUTYUNYAN,
        outcome_system=SNOMED,
        outcome_code="419099009",
        outcome_display="Dead",
        source="Harutyunyan et al. 2019; MedFuse 2022: 48 h, one ICU stay an admission, no transfer",
    ),
    TaskSpec(
        name="phenotyping",
        title="25 groups of discharge diagnoses",
        kind="multilabel",
        label="phenotypes",
        horizon_hours=None,
        lookback_hours=None,
        minimum_hours=0.0,
        fixed_hours=None,
        needs_value=True,
        benchmark_rules=_HARUTYUNYAN,
        outcome_code="phenotypes",
        outcome_display="Discharge phenotypes",
        source="Harutyunyan et al. 2019; groups of AHRQ's CCS",
    ),
    TaskSpec(
        name="icu-length-of-stay",
        title="Length of the ICU stay",
        kind="regression",
        label="icu_days",
        horizon_hours=None,
        lookback_hours=24.0,
        benchmark_rules=("first_stay",),
        outcome_code="icu-length-of-stay",
        outcome_display="Length of ICU stay",
        unit="d",
        source="MedM2T 2025: first ICU stay of 24 h and more, inputs of the first 24 h",
    ),
    TaskSpec(
        name="decompensation",
        title="Death within 24 hours",
        kind="binary",
        label="death_within_horizon",
        horizon_hours=24.0,
        minimum_hours=4.0,
        hourly=True,
        needs_value=True,
        benchmark_rules=_HARUTYUNYAN,
        outcome_system=SNOMED,
        outcome_code="419099009",
        outcome_display="Dead",
        source="Harutyunyan et al. 2019: every hour from the fourth",
    ),
    TaskSpec(
        name="mortality-24h",
        title="Death in intensive care, asked at 24 hours",
        kind="binary",
        label="death_in_icu",
        horizon_hours=None,
        lookback_hours=24.0,
        benchmark_rules=(*_YAIB, "stay_of_30_hours"),
        outcome_system=SNOMED,
        outcome_code="419099009",
        outcome_display="Dead",
        source="YAIB (van de Water et al. 2024): ICU mortality at 24 h, stays of 30 h and more",
    ),
    TaskSpec(
        name="acute-kidney-injury",
        title="Acute kidney injury within 6 hours",
        kind="binary",
        label="acute_kidney_injury",
        horizon_hours=6.0,
        minimum_hours=6.0,
        hourly=True,
        before_hour=_WEEK,
        benchmark_rules=(*_YAIB, "baseline_creatinine"),
        outcome_system=SNOMED,
        outcome_code="14669001",
        outcome_display="Acute kidney injury",
        source="KDIGO 2012 stage 1 and above; asked hourly as in YAIB",
    ),
    TaskSpec(
        name="sepsis",
        title="Sepsis within 6 hours",
        kind="binary",
        label="sepsis",
        horizon_hours=6.0,
        minimum_hours=6.0,
        hourly=True,
        before_hour=_WEEK,
        benchmark_rules=_YAIB,
        outcome_system=SNOMED,
        outcome_code="91302008",
        outcome_display="Sepsis",
        source="Sepsis-3 (Singer et al. 2016): suspected infection, SOFA rise of 2; hourly as in YAIB",
    ),
    TaskSpec(
        name="kidney-function",
        title="Median creatinine of the second day",
        kind="regression",
        label="creatinine_next_day",
        horizon_hours=24.0,
        lookback_hours=24.0,
        benchmark_rules=(*_YAIB, "stay_of_48_hours"),
        outcome_code="kidney-function",
        outcome_display="Creatinine of the following day",
        unit="mg/dL",
        source="YAIB: median creatinine of hours 24 to 48 from the first 24",
    ),
    TaskSpec(
        name="remaining-length-of-stay",
        title="Remaining hours in intensive care",
        kind="regression",
        label="remaining_hours",
        horizon_hours=None,
        minimum_hours=4.0,
        hourly=True,
        before_hour=_WEEK,
        benchmark_rules=_YAIB,
        outcome_code="remaining-length-of-stay",
        outcome_display="Remaining length of ICU stay",
        unit="h",
        source="YAIB: every hour",
    ),
    TaskSpec(
        name="cardiovascular-90-days",
        title="Hospital stay for cardiovascular disease within 90 days of an ECG",
        kind="multiclass",
        label="cardiovascular",
        horizon_hours=90 * 24.0,
        lookback_hours=365.25 * 24,
        minimum_hours=0.0,
        outcome_system=SNOMED,
        outcome_code="49601007",
        outcome_display="Disorder of cardiovascular system",
        source="MedM2T 2025: none, coronary heart disease, stroke, heart failure",
    ),
)

TASKS: dict[str, TaskSpec] = {task.name: task for task in _TASKS}
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
