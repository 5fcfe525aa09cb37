"""Every day: join outcomes that arrived to the scores written before, measure, alarm."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import (
    Asset,
    CronPartitionTimetable,
    ExceptionRetryPolicy,
    Param,
    RetryAction,
    RetryRule,
    dag,
    get_current_context,
    task,
)

from deploy.alerts.callbacks import tell_of_failure
from deploy.schedule import read_schedule

SCHEDULE = read_schedule(section="monitoring", default="45 7 * * *")
PERFORMANCE = Asset(name="nightingale-performance", uri="x-nightingale://performance")
RETRY = ExceptionRetryPolicy(
    [
        RetryRule("fhir_adapter.errors.TemporaryError", RetryAction.RETRY, retry_delay=timedelta(minutes=2)),
        RetryRule("fhir_adapter.errors.FatalError", RetryAction.FAIL, reason="retrying cannot help"),
        RetryRule("deploy.errors.DeployError", RetryAction.FAIL, reason="settings: mend, then run again"),
        RetryRule("modelling.errors.ModellingError", RetryAction.FAIL, reason="the same scores fail again"),
    ]
)


def steps() -> Any:
    """Return the module of the monitoring's steps."""
    from deploy.monitoring_job import steps as module

    return module


@dag(
    dag_id="monitor",
    description="Performance, calibration, subgroups and drift of what was scored, and alarms",
    schedule=CronPartitionTimetable(SCHEDULE.cron, timezone=SCHEDULE.time_zone, key_format="%Y-%m-%d"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=3),
    on_failure_callback=tell_of_failure,
    tags=["nightingale", "monitoring"],
    default_args={
        "owner": "nightingale",
        "retries": 2,
        "retry_delay": timedelta(minutes=1),
        "retry_policy": RETRY,
        "execution_timeout": timedelta(hours=1),
    },
    params={
        "day": Param(
            None,
            type=["null", "string"],
            format="date",
            description="Name of the run; unset, the partition's.",
        )
    },
    doc_md=__doc__,
)
def monitor() -> None:
    """Wire the monitoring: tasks hand on counts, never data."""

    @task
    def open_job() -> dict[str, Any]:
        """Name the run after its partition and make its folder."""
        context = get_current_context()
        key = context.get("partition_key") or context["dag_run"].partition_key
        return steps().open_job(day=context["params"].get("day") or key)

    @task
    def join_outcomes(job: dict[str, Any]) -> dict[str, int]:
        """Census of now beside the scores of past nights."""
        return steps().join_outcomes(job)

    @task
    def measure(job: dict[str, Any], joined: dict[str, int]) -> dict[str, Any]:
        """Performance by window, model and group; alarm rules."""
        return steps().measure(job)

    @task(outlets=[PERFORMANCE])
    def report(job: dict[str, Any], measured: dict[str, Any]) -> str:
        """Write the page."""
        return steps().report(job)

    @task
    def alarm(job: dict[str, Any], page: str) -> list[dict[str, Any]]:
        """Tell whoever watches."""
        return steps().alarm(job)

    job = open_job()
    alarm(job, report(job, measure(job, join_outcomes(job))))


monitor()
