"""Finding the folder of a run by its name, for the commands that look at one."""

from __future__ import annotations

from pathlib import Path

from deploy.errors import DeployError
from deploy.settings import load_settings


class RunNotFound(DeployError):  # noqa: N818 - a state of the disk, not of the program
    """There is no such run."""


def find_run(name: str | None, *, holding: str = "run.json", config: Path | None = None) -> Path:
    """Return the folder of a run: a path, a name below the site's runs, or the latest.

    Parameters
    ----------
    name
        A folder, a name such as ``2026-01-19`` or ``replay-icu+48h``, or None for the latest.
    holding
        File that the run must have; the latest is the one whose file was written last.
    config
        Settings file of the site; unset, the one that the environment names.

    Raises
    ------
    RunNotFound
        If there is none.
    """
    if name and (Path(name) / holding).is_file():
        return Path(name)
    settings = load_settings(config)
    runs = settings.storage.runs / settings.site.name
    if name:
        if not (runs / name / holding).is_file():
            raise RunNotFound(f"no run {name!r} with {holding} below {runs}")
        return runs / name
    found = sorted(runs.glob(f"*/{holding}"), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise RunNotFound(f"no run with {holding} below {runs}; `nightingale night` makes one")
    return found[-1].parents[len(Path(holding).parts) - 1]
