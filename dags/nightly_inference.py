"""Every night: extract, validate, map, gate, score, write back, report."""

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
    TriggerRule,
    dag,
    get_current_context,
    task,
    task_group,
)
from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

from deploy.alerts.callbacks import tell_of_deadline, tell_of_failure
from deploy.schedule import gpu_executor_config, read_deadline, read_schedule

SCHEDULE = read_schedule()
DEADLINE = read_deadline(SCHEDULE.cron)
SCORES = Asset(name="nightingale-scores", uri="x-nightingale://scores")
RETRY = ExceptionRetryPolicy(
    [
        RetryRule("fhir_adapter.errors.TemporaryError", RetryAction.RETRY, retry_delay=timedelta(minutes=2)),
        RetryRule("fhir_adapter.errors.FatalError", RetryAction.FAIL, reason="retrying cannot help"),
        RetryRule(
            "deploy.errors.DeployError",
            RetryAction.FAIL,
            reason="settings or equations: mend, then run again",
        ),
        RetryRule(
            "validation.errors.ValidationError", RetryAction.FAIL, reason="the gate or a contract said no"
        ),
    ]
)
ALWAYS = TriggerRule.ALL_DONE


def steps() -> Any:
    """Return the module of the night's steps."""
    from deploy.night import steps as module

    return module


@dag(
    dag_id="nightly_inference",
    description="Score every inpatient once a night and write FHIR RiskAssessments",
    schedule=CronPartitionTimetable(SCHEDULE.cron, timezone=SCHEDULE.time_zone, key_format="%Y-%m-%d"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=6),
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=DEADLINE.after_start,
        callback=AsyncCallback(tell_of_deadline, kwargs={"deadline": DEADLINE.clock}),
        name=f"scores by {DEADLINE.clock}",
    ),
    on_failure_callback=tell_of_failure,
    tags=["nightingale", "inference"],
    default_args={
        "owner": "nightingale",
        "retries": 2,
        "retry_delay": timedelta(minutes=1),
        "retry_policy": RETRY,
        "execution_timeout": timedelta(hours=2),
    },
    params={
        "night": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Night",
            description="Night to run; unset, the partition's.",
        ),
        "replay": Param(
            None,
            type=["null", "string"],
            pattern=r"^icu\+\d+[hd]$",
            title="Replay",
            description="Replay clock, such as icu+48h; wins over the night.",
        ),
        "task": Param(
            None,
            type=["null", "string"],
            title="Task",
            description="Another question than the site's, such as icu-length-of-stay.",
        ),
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description="Write into the run folder only; destination, ledger and history learn nothing.",
        ),
    },
    doc_md=__doc__,
)
def nightly_inference() -> None:
    """Wire the night: tasks hand on manifests of paths, never data."""

    @task
    def open_run() -> dict[str, Any]:
        """Name the run after its partition and make its folder."""
        context = get_current_context()
        params = context["params"]
        night = params.get("night") or context.get("partition_key") or context["dag_run"].partition_key
        return steps().open_night(
            night=night,
            replay=params.get("replay"),
            task=params.get("task"),
            dry_run=bool(params.get("dry_run")),
        )

    @task_group
    def intake(run: Any) -> Any:
        """Who is there, and what is known about them."""

        @task
        def census(run: dict[str, Any]) -> list[dict[str, Any]]:
            """Read patients and encounters, choose the samples, plan the parts to extract."""
            return steps().census(run)

        @task(
            map_index_template="{{ part['name'] }}",
            doc_md="Read one part of the source into sharded tables; refuse what cannot be used.",
        )
        def extract(run: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
            return steps().extract(run, part)

        return extract.partial(run=run).expand(part=census(run))

    @task_group
    def judge(run: Any, extracted: Any) -> Any:
        """Validate and map shard by shard, then let the gate decide."""

        @task
        def shards(run: dict[str, Any]) -> list[int]:
            """Number the shards, once every part is read."""
            return steps().shards(run)

        @task(doc_md="Judge the quality of one shard's ECGs and radiographs.")
        def validate(run: dict[str, Any], shard: int) -> int:
            return steps().validate(run, shard)

        @task(doc_md="Map one shard to catalogue features in canonical units, and judge every event.")
        def map_events(run: dict[str, Any], shard: int) -> int:
            return steps().map_events(run, shard)

        @task
        def gate(run: dict[str, Any], mapped: list[int]) -> dict[str, Any]:
            """Decide from the night's profile whether it may be scored and written."""
            return steps().gate(run)

        numbers = shards(run)
        extracted >> numbers
        mapped = map_events.partial(run=run).expand(shard=validate.partial(run=run).expand(shard=numbers))
        return gate(run, mapped), numbers

    @task(pool="gpu", executor_config=gpu_executor_config(), doc_md="Score one shard's samples.")
    def score(run: dict[str, Any], shard: int) -> int:
        return steps().score(run, shard)

    @task(outlets=[SCORES])
    def write_back(run: dict[str, Any], scored: list[int]) -> dict[str, Any]:
        """Deliver each score exactly once and reconcile."""
        return steps().write_back(run)

    @task(trigger_rule=ALWAYS)
    def report(run: dict[str, Any]) -> str:
        """Write the morning report, also of a night that stopped."""
        return steps().report(run)

    @task(trigger_rule=ALWAYS, retries=0)
    def settle(run: dict[str, Any]) -> dict[str, Any]:
        """Assert the three equations; a broken one fails the run."""
        return steps().settle(run)

    run = open_run()
    decision, numbers = judge(run, intake(run))
    scored = score.partial(run=run).expand(shard=numbers)
    decision >> scored
    written = write_back(run, scored)
    reported = report(run)
    written >> reported >> settle(run)


nightly_inference()
