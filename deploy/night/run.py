"""A run: one night of one site, its folder, and what its tasks hand to one another."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import polars as pl

from deploy.errors import SettingsError
from deploy.settings import Settings, parse_replay
from modelling.cohorts.tasks import TASKS
from validation.contracts import Manifest, empty, read_table, write_json, write_table

REPLAY_PREFIX = "replay-"
EMBEDDINGS = "embeddings"
"""Folder of a run's ECG and image embeddings, from the first scored shard to the end of the night."""
DRY_PREFIX = "dry-"


@dataclass(frozen=True, kw_only=True)
class Run:
    """Names a run; small and JSON-ready, so that it can travel through XCom.

    Attributes
    ----------
    partition
        The asset partition key: an ISO date, or ``replay-icu+48h``.
    prediction_time
        ISO 8601 instant at which every open stay is scored; None for a replay.
    replay
        Replay clock such as ``icu+48h``; None for a night.
    folder
        The run folder.
    overrides
        Settings by which this run alone lives, by section: those of a dry run, or another task.
    """

    partition: str
    prediction_time: str | None
    replay: str | None
    folder: str
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Build a run from :meth:`to_dict`'s result."""
        return cls(**fields)

    @property
    def path(self) -> Path:
        """The run folder."""
        return Path(self.folder)

    @property
    def moment(self) -> datetime | None:
        """The prediction time, or None for a replay."""
        return datetime.fromisoformat(self.prediction_time) if self.prediction_time else None

    @property
    def offset(self) -> timedelta | None:
        """The replay's offset after ICU admission, or None for a night."""
        return parse_replay(self.replay) if self.replay else None

    def report_progress(self, stage: str, done: int, total: int | None = None, note: str = "") -> None:
        """Append one line for whoever watches the run; it carries counts, never data."""
        fields = {"stage": stage, "done": done, "total": total, "note": note, "at": round(time.time(), 3)}
        line = json.dumps(fields)
        with (self.path / "progress.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def save(self, frame: pl.DataFrame, table: str, name: str, *, shard: int | None = None) -> Manifest:
        """Write a contract table of this run and its manifest beside it."""
        path = self.path / f"{name}.parquet"
        manifest = write_table(frame, table, path, shard=shard, relative_to=self.path)
        write_json(manifest.to_dict(), path.with_suffix(".manifest.json"))
        return manifest

    def load(self, name: str) -> pl.DataFrame:
        """Read a table that :meth:`save` wrote, verified by digest."""
        manifest = Manifest.from_dict(json.loads((self.path / f"{name}.manifest.json").read_text("utf-8")))
        return read_table(manifest, folder=self.path)

    def load_all(self, table: str, pattern: str) -> pl.DataFrame:
        """Read and concatenate every saved table whose name matches a glob, in name order."""
        names = sorted(
            str(path.relative_to(self.path)).removesuffix(".manifest.json")
            for path in self.path.glob(f"{pattern}.manifest.json")
        )
        return pl.concat([empty(table), *(self.load(name) for name in names)])


def plan_run(
    settings: Settings,
    *,
    night: str | None,
    replay: str | None,
    dry_run: bool = False,
    task: str | None = None,
) -> Run:
    """Name a run without touching the disk.

    Parameters
    ----------
    night
        ISO date whose ``prediction_at`` is the prediction time.
    replay
        Replay clock; wins over ``night``.
    dry_run
        Write into the run folder only: no destination, ledger or history of the site learns of it.
    task
        Another question than the site's; such a run has its own partition.

    Raises
    ------
    SettingsError
        If neither is given, the date is not one, or there is no such task.
    """
    if replay:
        parse_replay(replay)
        partition, moment = f"{REPLAY_PREFIX}{replay}", None
    elif night:
        try:
            moment = settings.prediction_time(date.fromisoformat(night)).astimezone(UTC).isoformat()
        except ValueError:
            raise SettingsError(f"night {night!r} is not a date such as 2026-01-19") from None
        partition = night
    else:
        raise SettingsError("a run needs --night DATE or --replay icu+48h")
    overrides: dict[str, dict[str, Any]] = {}
    if task and task != settings.night.task:
        if task not in TASKS:
            raise SettingsError(f"there is no task {task!r}; there are {', '.join(sorted(TASKS))}")
        partition = f"{task}-{partition}"
        overrides["night"] = {"task": task}
    if dry_run:
        partition = f"{DRY_PREFIX}{partition}"
    folder = (settings.storage.runs / settings.site.name / partition).resolve()
    if dry_run:
        overrides["destination"] = {"kind": "ndjson", "folder": str(folder / "written"), "report": "none"}
        overrides["storage"] = {
            "database": f"sqlite:///{folder / 'dry_run.sqlite'}",
            "metrics": str(folder / "metrics"),
        }
    return Run(
        partition=partition, prediction_time=moment, replay=replay, folder=str(folder), overrides=overrides
    )


def open_run(run: Run) -> Run:
    """Make an empty run folder; what a former try of the same night left is removed.

    The ledger of what was written lives in the database, not here, so that nothing is written twice.
    """
    shutil.rmtree(run.path, ignore_errors=True)
    run.path.mkdir(parents=True)
    write_json(run.to_dict(), run.path / "run.json")
    return run
