"""The morning report: one self-contained page, and the same facts as JSON."""

from validation.report.facts import (
    ReportFacts,
    bin_scores,
    count_modalities,
    count_reasons,
    count_risk_levels,
    keep_presentable_codes,
)
from validation.report.page import render_page, write_report
from validation.report.patients import render_patients, write_patients

__all__ = [
    "ReportFacts",
    "bin_scores",
    "count_modalities",
    "count_reasons",
    "count_risk_levels",
    "keep_presentable_codes",
    "render_page",
    "render_patients",
    "write_patients",
    "write_report",
]
