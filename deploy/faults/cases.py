"""Every case, by group."""

from __future__ import annotations

from deploy.faults import (
    cases_bulk,
    cases_dicomweb,
    cases_night,
    cases_search,
    cases_smart,
    cases_writing,
)
from deploy.faults.case import Case


def all_cases() -> tuple[Case, ...]:
    """Return the cases in the order of the table."""
    return (
        *cases_search.CASES,
        *cases_bulk.CASES,
        *cases_smart.CASES,
        *cases_dicomweb.CASES,
        *cases_writing.CASES,
        *cases_night.CASES,
    )
