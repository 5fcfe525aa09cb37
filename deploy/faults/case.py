"""A case: one thing that goes wrong, what the night must do about it, and how it is judged."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.faults.clock import VirtualClock
from deploy.faults.menu import Fault
from deploy.faults.reckoning import reckon
from deploy.faults.remote import RemoteServer
from deploy.faults.site import Hospital, Site, Wiring, open_site

Faults = Callable[[VirtualClock], tuple[Fault, ...]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row of the table.

    Attributes
    ----------
    name
        In words.
    group
        ``search``, ``bulk``, ``smart``, ``dicomweb``, ``write`` or ``night``.
    faults
        Made for each run of the case, since some need its clock.
    wiring
        How the site is connected.
    prepare
        Changes the site before the night.
    stops
        Name of the error with which the first night must end; None if it must get through. A night that
        stops is run again with the faults gone, and must then be complete.
    between
        Changes the site before the second night.
    dead_letters
        Scores that must end as dead letters.
    ignored
        ``Type/id`` that the server kept back or that no longer say who they are; their count is checked by
        the equations alone.
    check
        Returns what else is wrong, in words.
    injected
        Counts injections that are not the saboteur's.
    whole
        Whether gate and report run as well.
    nothing_scored
        Whether every encounter must be skipped.
    """

    name: str
    group: str
    faults: Faults = lambda clock: ()
    wiring: Wiring = field(default_factory=Wiring)
    prepare: Callable[[Site], None] | None = None
    stops: str | None = None
    between: Callable[[Site], object] | None = None
    dead_letters: int = 0
    ignored: Callable[[Site], frozenset[str]] = lambda site: frozenset()
    check: Callable[[Site, dict[str, Any]], list[str]] | None = None
    injected: Callable[[Site], int] | None = None
    whole: bool = False
    nothing_scored: bool = False


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a case ended.

    Attributes
    ----------
    injected
        Faults that really happened; a case without any proves nothing and fails.
    lost, duplicated
        See :class:`deploy.faults.reckoning.Reckoning`.
    outcome
        What the night did, in words.
    problems
        Why the case failed; empty if it passed.
    """

    case: str
    group: str
    injected: int
    lost: int
    duplicated: int
    outcome: str
    problems: tuple[str, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def play(case: Case, hospital: Hospital, folder: Path, *, remote: RemoteServer | None = None) -> Result:
    """Run a case's night, again if it had to stop, and judge it.

    Parameters
    ----------
    remote
        A real server in place of our own.
    """
    started = time.monotonic()
    problems: list[str] = []
    words: list[str] = []
    lost = duplicated = 0
    with open_site(
        hospital, folder, wiring=case.wiring, faults=case.faults, prepare=case.prepare, remote=remote
    ) as site:
        words += [site.extra["word"]] if "word" in site.extra else []
        summary, error = attempt(site, case)
        if error is not None:
            words.append(f"stopped: {error}")
            if error != case.stops:
                problems.append(f"the night stopped with {error}, expected {case.stops or 'none'}")
            site.saboteur.heal()
            site.clock.advance(3600.0)
            if case.between:
                case.between(site)
            summary, error = attempt(site, case)
            words.append("complete on the next run" if error is None else f"again {error}")
            if error is not None:
                problems.append(f"the second run stopped with {error}")
        elif case.stops:
            problems.append(f"the night went through, expected {case.stops}")
        if summary is None:
            problems.append("no night got through")
        else:
            found = reckon(site, summary, ignored=case.ignored(site))
            lost, duplicated = found.lost, found.duplicated
            problems += found.problems
            problems += [f"{lost} lost"] if lost else []
            problems += [f"{duplicated} duplicated"] if duplicated else []
            if (found.scored == 0) != case.nothing_scored:
                problems.append(f"{found.scored} scored")
            if found.dead_lettered != case.dead_letters:
                problems.append(f"{found.dead_lettered} dead letters, expected {case.dead_letters}")
            words.append(_written(found.confirmed, found.dead_lettered))
            if case.check:
                problems += case.check(site, summary)
        injected = site.saboteur.injected + (case.injected(site) if case.injected else 0)
        if not injected:
            problems.append("the fault never happened")
        leaked = [request for request in site.elsewhere if "authorization" in request.headers]
        problems += [f"a token reached another origin {len(leaked)} times"] if leaked else []
        waited = sum(site.clock.slept)
    if waited >= 1:
        words.insert(0, f"waited {waited:,.0f} s")
    return Result(
        case=case.name,
        group=case.group,
        injected=injected,
        lost=lost,
        duplicated=duplicated,
        outcome="; ".join(words),
        problems=tuple(problems),
        seconds=time.monotonic() - started,
    )


def attempt(site: Site, case: Case) -> tuple[dict[str, Any] | None, str | None]:
    """Run a night; return its summary and the name of the error it ended with, either of which may be None."""
    try:
        summary = site.night() if case.whole else site.short_night()
    except Exception as error:
        path = site.run.path / "summary.json"
        return json.loads(path.read_text("utf-8")) if path.is_file() else None, type(error).__name__
    dead = summary["counts"]["dead_lettered"]
    return summary, "dead letters" if dead > case.dead_letters else None


def _written(confirmed: int, dead: int) -> str:
    return f"{confirmed} scores at the destination" + (f", {dead} dead letters" if dead else "")
