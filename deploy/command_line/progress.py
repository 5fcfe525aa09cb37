"""Progress on the terminal: one bar a stage, on standard error."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class StageBars:
    """Shows one bar a stage; call it with stage, steps done, and steps in all.

    Where the total is not known (None), ``done`` is added to what was done before.
    """

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<16}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Move the bar of a stage."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total or None)
        task = self._tasks[stage]
        if total is None:
            self._progress.advance(task, done)
        else:
            self._progress.update(task, completed=done, total=total or None)
        self._finish_others(task)

    def _finish_others(self, current: TaskID) -> None:
        """Stop the clocks of stages whose total was never known, once another has begun."""
        for task in self._progress.tasks:
            if task.id != current and task.total is None and not task.finished:
                self._progress.update(task.id, total=task.completed, completed=task.completed)
