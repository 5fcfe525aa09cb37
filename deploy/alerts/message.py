"""What a message says: site, run, what happened, where to look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal
from urllib.parse import quote

Event = Literal["run_failed", "deadline_missed", "model_alarm", "candidates", "test"]
TITLES = {
    "run_failed": "failed",
    "deadline_missed": "is late",
    "model_alarm": "raised an alarm",
    "candidates": "has candidates to judge",
    "test": "sends a test message",
}


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes
    ----------
    event, site, dag_id, run_id
        What happened, and to which run.
    reason
        Airflow's word for it, such as ``task_failure``, or the deadline.
    findings
        Why the night is not in order, which alarms there are, or what the rules say of a candidate; aggregates
        only.
    link
        Page of the run, where the site's address is known.
    """

    event: Event
    site: str
    dag_id: str
    run_id: str
    reason: str = ""
    findings: tuple[str, ...] = ()
    link: str | None = None

    @property
    def subject(self) -> str:
        """One line for an e-mail."""
        return f"Nightingale at {self.site}: {self.dag_id} {TITLES[self.event]}"

    @property
    def text(self) -> str:
        """The body of an e-mail."""
        lines = [f"{self.subject}.", "", f"Run: {self.run_id}"]
        if self.reason:
            lines.append(f"Reason: {self.reason}")
        lines += [f"- {finding}" for finding in self.findings]
        if self.link:
            lines += ["", self.link]
        return "\n".join([*lines, "", "What to do: docs/runbook.md", ""])

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of a webhook; ``text`` is what chat services show."""
        return {**asdict(self), "text": f"{self.subject} ({self.reason or self.run_id})"}


def run_link(ui_url: str | None, dag_id: str, run_id: str) -> str | None:
    """Return the address of a run's page."""
    return f"{ui_url.rstrip('/')}/dags/{dag_id}/runs/{quote(run_id, safe='')}" if ui_url else None


def from_context(event: Event, context: Mapping[str, Any], *, site: str, ui_url: str | None) -> Message:
    """Read a message from Airflow's context; of a run only its names are taken, never its configuration."""
    run = context.get("dag_run")
    fields = run if isinstance(run, Mapping) else {}
    dag_id = str(
        getattr(run, "dag_id", None) or fields.get("dag_id") or getattr(context.get("dag"), "dag_id", "dag")
    )
    run_id = str(
        getattr(run, "run_id", None) or fields.get("dag_run_id") or fields.get("run_id") or "unknown"
    )
    reason = str(context.get("reason") or "")
    return Message(event, site, dag_id, run_id, reason, link=run_link(ui_url, dag_id, run_id))
