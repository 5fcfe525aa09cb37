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

__all__ = [
    "ReportFacts",
    "bin_scores",
    "count_modalities",
    "count_reasons",
    "count_risk_levels",
    "keep_presentable_codes",
    "render_page",
    "write_report",
]
