"""What was lost and what was doubled, counted from outside: the server's resources against the night's tables.

The three equations are the night's own word. This module does not take it: it asks the server what there was
to read and what it holds now, and looks for each in tables, quarantine and dead letters.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import polars as pl

from deploy.faults.site import READ, SCORE, Site
from deploy.faults.store import Resource
from deploy.night.run import Run
from validation.equations import Counts, check_equations

AI_LABEL = "AIAST"


@dataclass(frozen=True, kw_only=True)
class Reckoning:
    """Counts over one finished night.

    Attributes
    ----------
    lost
        Resources on the server that are in no table and no quarantine, and scores that are neither at the
        destination nor dead-lettered.
    duplicated
        Rows that stand twice, and scores that the destination holds or was made to write more than once.
    problems
        Broken equations, in words.
    """

    lost: int
    duplicated: int
    scored: int
    confirmed: int
    dead_lettered: int
    problems: tuple[str, ...]


def reckon(site: Site, summary: dict[str, Any], *, ignored: frozenset[str] = frozenset()) -> Reckoning:
    """Compare a finished night with what the server had and has.

    Parameters
    ----------
    summary
        The night's ``summary.json``.
    ignored
        ``Type/id`` that the server itself kept back, so that nobody could read them.
    """
    site.refresh()
    run = site.run
    counts = Counts.from_dict(summary["counts"])
    problems = [item.text for item in check_equations(counts) if not item.holds]
    problems += [
        f"equation {item['name']} is missing" for item in summary["equations"] if "holds" not in item
    ]
    there = {
        f"{kind}/{name}" for kind, name in site.store.current if kind in READ and not _ours(site, kind, name)
    }
    seen = seen_references(run)
    lost = there - seen - ignored
    doubled = doubled_rows(run)
    keys = set(run.load_all("scores", "scores/*")["score_key"])
    held = Counter(held_scores(site))
    lost_scores = len(keys - set(held)) - counts.dead_lettered
    if lost_scores < 0:
        problems.append(f"{-lost_scores} score(s) are dead letters and at the destination")
    strangers = set(held) - keys
    if strangers:
        problems.append(f"{len(strangers)} score(s) at the destination that this night did not make")
    rewritten = Counter(name for kind, name in site.store.written if kind == SCORE)
    return Reckoning(
        lost=len(lost) + max(lost_scores, 0),
        duplicated=doubled
        + sum(count - 1 for count in held.values())
        + sum(count - 1 for count in rewritten.values()),
        scored=counts.scored,
        confirmed=counts.confirmed,
        dead_lettered=counts.dead_lettered,
        problems=tuple(problems),
    )


def _ours(site: Site, kind: str, name: str) -> bool:
    """Tell whether a resource of a type that is read too was written by a night: a model card, a score."""
    labels = site.store.current[kind, name]["meta"].get("security") or []
    return any(label.get("code") == AI_LABEL for label in labels)


def seen_references(run: Run) -> set[str]:
    """Return ``Type/id`` of all that a run put into a table or into quarantine."""
    frames = [
        run.load_all(table, f"{table}/*").select("source_ref")
        for table in ("observations", "recordings", "images")
    ]
    found = set(pl.concat(frames)["source_ref"])
    found |= set(run.load_all("quarantine", "quarantine/*")["source_ref"].drop_nulls())
    for path in run.path.glob("extract/*/quarantine.parquet"):
        found |= set(pl.read_parquet(path)["source_ref"].drop_nulls())
    found |= set(pl.read_parquet(run.path / "subjects.parquet")["patient_ref"])
    found |= set(run.load("encounters")["encounter_ref"])
    return found


def doubled_rows(run: Run) -> int:
    """Return how many rows of the run's tables stand twice."""
    keys = {
        "observations": ["source_ref", "component"],
        "recordings": ["recording_id"],
        "images": ["image_id"],
        "scores": ["score_key"],
        "skipped": ["encounter_id"],
    }
    total = 0
    for table, columns in keys.items():
        frame = run.load_all(table, f"{table}/*").select(columns)
        total += frame.height - frame.unique().height
    return total


def held_scores(site: Site) -> list[str]:
    """Return the identifier value of every score at the destination, once for each time it is held."""
    return [item["identifier"][0]["value"] for item in score_resources(site)]


def score_resources(site: Site) -> list[Resource]:
    """Return every score that the destination holds, in whatever type it was written."""
    resources = [
        item for (kind, _), item in sorted(site.store.current.items()) if kind == SCORE or _is_score(item)
    ]
    for path in sorted(site.written_folder.rglob(f"{SCORE}*.ndjson")):
        resources += [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return resources


def _is_score(resource: Resource) -> bool:
    """Tell whether an Observation is one of ours."""
    return resource["resourceType"] == "Observation" and any(
        str(item.get("system", "")).endswith("/fhir/identifier/score")
        for item in resource.get("identifier") or []
    )
