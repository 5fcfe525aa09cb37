"""Deadlines and pods as a DAG file reads them, without any heavy import."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from deploy.errors import SettingsError
from deploy.night.run import plan_run
from deploy.schedule import gpu_executor_config, read_deadline, read_schedule
from deploy.settings import load_settings


@pytest.mark.parametrize(
    ("cron", "deadline", "minutes", "clock"),
    [
        ("15 5 * * *", "06:00", 45, "06:00"),
        ("30 22 * * *", "06:00", 450, "06:00"),
        ("0 6 * * *", "06:00", 1440, "06:00"),
        ("*/30 * * * *", "07:00", 45, "06:00"),
        ("15 5 * * *", "soon", 45, "06:00"),
    ],
)
def test_the_deadline_is_counted_from_the_scheduled_start(
    cron: str, deadline: str, minutes: int, clock: str
) -> None:
    found = read_deadline(cron, {"NIGHTINGALE_NIGHT__DEADLINE": deadline})
    assert (found.after_start, found.clock) == (timedelta(minutes=minutes), clock)


def test_the_deadline_may_be_a_time_of_the_settings_file(tmp_path: Path) -> None:
    config = tmp_path / "site.toml"
    config.write_text("[night]\ndeadline = 06:30:00\n", encoding="utf-8")
    assert read_deadline("0 6 * * *", {"NIGHTINGALE_CONFIG": str(config)}).after_start == timedelta(
        minutes=30
    )


def test_retraining_waits_for_data_unless_the_site_sets_a_schedule(tmp_path: Path) -> None:
    config = tmp_path / "site.toml"
    config.write_text('[site]\ntime_zone = "UTC"\n[retraining]\nschedule = "0 3 1 * *"\n', encoding="utf-8")
    assert read_schedule({}, section="retraining", default="").cron == ""
    named = read_schedule({"NIGHTINGALE_CONFIG": str(config)}, section="retraining", default="")
    assert (named.cron, named.time_zone) == ("0 3 1 * *", "UTC")
    over = {"NIGHTINGALE_CONFIG": str(config), "NIGHTINGALE_RETRAINING__SCHEDULE": "0 4 * * 0"}
    assert read_schedule(over, section="retraining", default="").cron == "0 4 * * 0"
    assert read_schedule(
        {"NIGHTINGALE_CONFIG": str(config)}, section="monitoring", default="45 7 * * *"
    ).cron == ("45 7 * * *")


def test_a_pod_with_a_gpu_is_named_by_the_environment() -> None:
    assert gpu_executor_config({}) == {}
    named = {"NIGHTINGALE_GPU_POD_TEMPLATE": "/etc/nightingale/gpu-pod.yaml"}
    assert gpu_executor_config(named) == {"pod_template_file": "/etc/nightingale/gpu-pod.yaml"}


def test_a_dry_run_writes_below_its_own_folder_only(tmp_path: Path) -> None:
    settings = load_settings(
        source={"folder": tmp_path},
        storage={"runs": tmp_path / "runs"},
        destination={"kind": "fhir", "base_url": "https://fhir.example"},
    )
    run = plan_run(settings, night="2026-01-19", replay=None, dry_run=True)
    assert run.partition == "dry-2026-01-19"
    assert run.prediction_time == "2026-01-19T04:00:00+00:00"
    own = load_settings(source={"folder": tmp_path}, **run.overrides)
    assert own.destination.kind == "ndjson" and str(own.destination.folder).startswith(run.folder)
    assert own.storage.database.startswith(f"sqlite:///{run.folder}/")


def test_another_task_has_its_own_partition(tmp_path: Path) -> None:
    settings = load_settings(source={"folder": tmp_path})
    run = plan_run(settings, night="2026-01-19", replay=None, task="icu-length-of-stay")
    assert run.partition == "icu-length-of-stay-2026-01-19"
    assert run.overrides == {"night": {"task": "icu-length-of-stay"}}
    same = plan_run(settings, night="2026-01-19", replay=None, task=settings.night.task)
    assert same.partition == "2026-01-19" and same.overrides == {}
    with pytest.raises(SettingsError, match="there is no task 'x'"):
        plan_run(settings, night="2026-01-19", replay=None, task="x")
