"""When mapped data arrive: validate, map, cohort, train, compare with the champion, gate, register, notify."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import (
    Asset,
    CronPartitionTimetable,
    ExceptionRetryPolicy,
    Param,
    PartitionedAssetTimetable,
    RetryAction,
    RetryRule,
    dag,
    get_current_context,
    task,
    task_group,
)

from deploy.alerts.callbacks import tell_of_failure
from deploy.schedule import read_schedule

SCHEDULE = read_schedule(section="retraining", default="")
MAPPED_DATA = Asset(name="nightingale-mapped-data", uri="x-nightingale://mapped-data")
CANDIDATES = Asset(name="nightingale-candidates", uri="x-nightingale://candidates")
RETRY = ExceptionRetryPolicy(
    [
        RetryRule("fhir_adapter.errors.TemporaryError", RetryAction.RETRY, retry_delay=timedelta(minutes=2)),
        RetryRule("fhir_adapter.errors.FatalError", RetryAction.FAIL, reason="retrying cannot help"),
        RetryRule(
            "deploy.errors.DeployError", RetryAction.FAIL, reason="settings or data: mend, then run again"
        ),
        RetryRule("modelling.errors.ModellingError", RetryAction.FAIL, reason="the same data fail again"),
    ]
)


def steps() -> Any:
    """Return the module of the retraining's steps."""
    from deploy.retraining import steps as module

    return module


@dag(
    dag_id="retrain",
    description="Train candidates on finished stays, compare them with the champion, register them",
    schedule=CronPartitionTimetable(SCHEDULE.cron, timezone=SCHEDULE.time_zone, key_format="%Y-%m-%d")
    if SCHEDULE.cron
    else PartitionedAssetTimetable(assets=MAPPED_DATA),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(days=3),
    on_failure_callback=tell_of_failure,
    tags=["nightingale", "training"],
    default_args={
        "owner": "nightingale",
        "retries": 2,
        "retry_delay": timedelta(minutes=1),
        "retry_policy": RETRY,
        "execution_timeout": timedelta(days=2),
    },
    params={
        "version": Param(
            None, type=["null", "string"], description="Version of the data; unset, the partition's key."
        )
    },
    doc_md=__doc__,
)
def retrain() -> None:
    """Wire the retraining: tasks hand on names and digests, never data."""

    @task
    def open_job() -> dict[str, Any]:
        """Name the retraining after its data version and make its folder."""
        context = get_current_context()
        key = context.get("partition_key") or context["dag_run"].partition_key
        return steps().open_job(version=context["params"].get("version") or key)

    @task_group
    def mapped(job: Any) -> Any:
        """Finished stays through the night's own steps; nothing to do where tables are given."""

        @task(doc_md="Choose finished stays and plan the parts to extract.")
        def census(job: dict[str, Any]) -> list[dict[str, Any]]:
            return steps().census(job)

        @task(
            map_index_template="{{ part['name'] }}", doc_md="Read one part of the source into sharded tables."
        )
        def extract(job: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
            return steps().extract(job, part)

        @task(trigger_rule="none_failed", doc_md="Number the shards, once every part is read.")
        def shards(job: dict[str, Any]) -> list[int]:
            return steps().shards(job)

        @task(doc_md="Map one shard by the night's own mapper.")
        def map_shard(job: dict[str, Any], shard: int) -> int:
            return steps().map_shard(job, shard)

        numbers = shards(job)
        extract.partial(job=job).expand(part=census(job)) >> numbers
        return map_shard.partial(job=job).expand(shard=numbers)

    @task(trigger_rule="none_failed")
    def cohorts(job: dict[str, Any]) -> list[dict[str, str]]:
        """Label, split, search for leaks; one job a model."""
        return steps().cohorts(job)

    @task(
        pool="gpu",
        map_index_template="{{ item['task'] }} {{ item['model'] }}",
        doc_md="Train one model, or take it up again where it was killed.",
    )
    def train(job: dict[str, Any], item: dict[str, str]) -> dict[str, Any]:
        return steps().train(job, item)

    @task(pool="gpu")
    def evaluate(job: dict[str, Any], trained: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Compare with champion and baselines, and ask the promotion rules."""
        return steps().evaluate(job, list(trained))

    @task(outlets=[CANDIDATES])
    def register(job: dict[str, Any], compared: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Register every candidate with its evidence."""
        return steps().register(job, compared)

    @task
    def notify(job: dict[str, Any], registered: list[dict[str, Any]]) -> dict[str, Any]:
        """Tell whoever is to approve."""
        return steps().notify(job, registered)

    job = open_job()
    items = cohorts(job)
    mapped(job) >> items
    compared = evaluate(job, train.partial(job=job).expand(item=items))
    notify(job, register(job, compared))


retrain()
