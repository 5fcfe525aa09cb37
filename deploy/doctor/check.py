"""One finding of the doctor, and how a test that breaks becomes one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from deploy.errors import DeployError
from fhir_adapter.errors import AdapterError


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Check:
    """One line of the doctor.

    Attributes
    ----------
    subject
        What was looked at, such as ``source.rights``.
    state
        ``ok``; ``warning`` (the night runs, something is missing or odd); ``failed`` (the night would not run).
    found
        What was seen; counts, versions, codes, never a value of a patient.
    remedy
        What to do; empty where nothing is.
    """

    subject: str
    state: State
    found: str
    remedy: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return a JSON-ready dict."""
        return {"subject": self.subject, "state": str(self.state), "found": self.found, "remedy": self.remedy}


def ok(subject: str, found: str) -> Check:
    """Return a check that passed."""
    return Check(subject, State.OK, found)


def warning(subject: str, found: str, remedy: str) -> Check:
    """Return a check that the night survives."""
    return Check(subject, State.WARNING, found, remedy)


def failed(subject: str, found: str, remedy: str) -> Check:
    """Return a check that the night does not survive."""
    return Check(subject, State.FAILED, found, remedy)


def guarded(subject: str, remedy: str, look: Callable[[], Iterable[Check]]) -> list[Check]:
    """Run a group of checks; an error becomes a failed check, so that the others still run.

    Messages of our own errors hold no patient data by their contract; of any other error only its class is
    shown, because a parser's message may quote what it parsed.
    """
    try:
        return list(look())
    except (AdapterError, DeployError) as error:
        return [failed(subject, str(error), remedy)]
    except Exception as error:
        return [failed(subject, f"an unexpected {type(error).__name__}", remedy)]
