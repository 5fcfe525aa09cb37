"""What Airflow calls: after a failed run (in the dag-processor), at a missed deadline (in the triggerer).

Light at import, since DAG files name these functions; a callback that fails must not fail anything else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

log = logging.getLogger(__name__)


def tell_of_failure(context: Mapping[str, Any]) -> None:
    """Tell the site's people that a run failed."""
    _tell("run_failed", context)


async def tell_of_deadline(context: Mapping[str, Any] | None = None, deadline: str = "") -> None:
    """Tell the site's people that a run is late.

    Parameters
    ----------
    deadline
        The clock time that was missed.
    """
    fields = {**(context or {}), "reason": f"not finished by {deadline}" if deadline else "deadline"}
    await asyncio.to_thread(_tell, "deadline_missed", fields)


def _tell(event: Any, context: Mapping[str, Any]) -> None:
    from dataclasses import replace

    from deploy.alerts.channels import send
    from deploy.alerts.message import from_context
    from deploy.errors import DeployError
    from deploy.settings import load_settings

    try:
        settings = load_settings()
    except DeployError as error:
        log.error("no alert was sent, because the settings cannot be read: %s", error)
        return
    message = from_context(event, context, site=settings.site.name, ui_url=settings.alerts.ui_url)
    message = replace(message, findings=_findings(settings, context))
    outcomes = send(message, settings.alerts)
    log.warning("%s: told by %s", message.subject, outcomes or "nobody: [alerts] names no way")


def _findings(settings: Any, context: Mapping[str, Any]) -> tuple[str, ...]:
    """Return why the night is not in order, where it came so far as to say so."""
    from deploy.night.accounts import read_json
    from deploy.night.closing import failures
    from deploy.night.run import plan_run

    run = context.get("dag_run")
    conf = getattr(run, "conf", None) or {}
    night = conf.get("night") or getattr(run, "partition_key", None)
    if not (night or conf.get("replay")):
        return ()
    try:
        planned = plan_run(settings, night=night, replay=conf.get("replay"))
        summary = read_json(planned.path / "summary.json")
        return tuple(failures(planned, summary)) if summary else ()
    except Exception as error:  # a message without findings is better than none
        log.warning("the run's summary was not read: %s", type(error).__name__)
        return ()
