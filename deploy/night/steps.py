"""The night as plain functions of JSON values: what a DAG task or the command line calls.

Each function loads the site's settings itself, so that a task needs nothing but its run and its number.
Heavy rooms (torch, great_expectations) are imported inside the functions that need them.
"""

from __future__ import annotations

from typing import Any

from deploy.night.run import Run, open_run, plan_run
from deploy.settings import Settings, load_settings

RunFields = dict[str, Any]


def _open(fields: RunFields) -> tuple[Settings, Run]:
    """Return the settings by which a run lives, and the run."""
    run = Run.from_dict(fields)
    overrides: dict[str, Any] = dict(run.overrides)
    return load_settings(**overrides), run


def open_night(
    *, night: str | None, replay: str | None, dry_run: bool = False, task: str | None = None
) -> RunFields:
    """Name the run and make its empty folder."""
    settings = load_settings()
    run = plan_run(settings, night=night, replay=replay, dry_run=dry_run, task=task)
    if dry_run:  # its own database knows no champion: the run names the model that the site would take
        from deploy.champion import champion_folder

        model = champion_folder(settings, task or settings.night.task)
        run.overrides.setdefault("night", {})["model"] = str(model)
    return open_run(run).to_dict()


def census(run: RunFields) -> list[dict[str, Any]]:
    """Read patients and encounters; return the parts to extract."""
    from deploy.night.intake import take_census

    return take_census(*_open(run))


def extract(run: RunFields, part: dict[str, Any]) -> dict[str, Any]:
    """Extract one part; return its counts."""
    from deploy.night.intake import extract as extract_one

    summary = extract_one(*_open(run), part)
    return {key: summary[key] for key in ("pulled", "accepted", "quarantined")}


def shards(run: RunFields) -> list[int]:
    """Return the shard numbers of the run."""
    settings, _ = _open(run)
    return list(range(settings.night.shards))


def validate(run: RunFields, shard: int) -> int:
    """Judge waveforms and images of one shard; return the shard number."""
    from deploy.night.judging import validate as validate_shard

    validate_shard(*_open(run), shard)
    return shard


def map_events(run: RunFields, shard: int) -> int:
    """Map one shard to events; return the shard number."""
    from deploy.night.judging import map_shard

    map_shard(*_open(run), shard)
    return shard


def gate(run: RunFields) -> dict[str, Any]:
    """Decide whether the night goes on; raises GateStopped where it must not."""
    from deploy.night.gatekeeping import decide_gate

    return decide_gate(*_open(run))


def score(run: RunFields, shard: int) -> int:
    """Score one shard; return the number of scores."""
    from deploy.night.scoring import score_shard

    return score_shard(*_open(run), shard)


def write_back(run: RunFields) -> dict[str, Any]:
    """Deliver every score; return counts."""
    from deploy.night.writing import write_scores

    return write_scores(*_open(run))


def report(run: RunFields) -> str:
    """Write the morning report; return its path."""
    from deploy.night.reporting import write_morning_report

    return str(write_morning_report(*_open(run)))


def settle(run: RunFields) -> dict[str, Any]:
    """Assert the three equations; raises NightFailed where one is broken."""
    from deploy.night.closing import settle_accounts

    return settle_accounts(*_open(run))
