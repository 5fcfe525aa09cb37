"""No identifier and no value of a patient in a log, a step's result, a report, or an exception.

Every id, name and file number of a demo hospital is marked, and so are some measured values; then whole nights are
run, good ones and broken ones, with every logger at DEBUG, and all that a person or a monitoring system could
read is searched for the marks.
"""

from __future__ import annotations

import functools
import json
import logging
import re
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.faults import menu
from deploy.faults.cases_night import poisoned
from deploy.faults.cases_search import FIRST_PAGE, NEXT_PAGE, once, with_outcome, wrong_total
from deploy.faults.cases_writing import SCORES
from deploy.faults.site import NIGHT, Hospital, Site, Wiring, open_site
from deploy.faults.store import Resource
from deploy.night import steps
from deploy.night.local import run_night

MARK = "zqw"
NAME = "Zqname"
VALUES = (61.739172, 88.417263)
"""Heart rates that no computation gives by chance."""

READABLE = ("*.json", "*.jsonl", "*.html", "*.txt", "*.log", "*.csv", "*.md")
STEPS = (
    "open_night",
    "census",
    "extract",
    "validate",
    "map_events",
    "gate",
    "score",
    "write_back",
    "report",
    "settle",
)


def marked(site: Site) -> None:
    """Put a mark into every id and name, and two marked values into the record."""
    renamed: dict[tuple[str, str], Resource] = {}
    for resource in site.store.current.values():
        text = re.sub(r"\bn(\d{5})", rf"{MARK}\1", json.dumps(resource, ensure_ascii=False))
        value = json.loads(text.replace("Synthetic-", f"{NAME}-"))
        renamed[value["resourceType"], value["id"]] = value
    rates = sorted(key for key in renamed if key[0] == "Observation" and "-hr-" in key[1])
    for key, number in zip((rates[0], rates[-1]), VALUES, strict=True):
        renamed[key] |= {"valueQuantity": renamed[key]["valueQuantity"] | {"value": number}}
    site.store.current = renamed
    site.extra["uids"] = sorted({path.stem for path in (site.hospital.folder / "dicom").rglob("*.dcm")})


def marks(site: Site) -> list[str]:
    return [MARK, NAME, *map(str, VALUES), *site.extra["uids"]]


def found(text: str, site: Site) -> list[str]:
    """Return the marks in a text with what stands around them."""
    return [
        text[max(0, at.start() - 60) : at.end() + 40]
        for mark in marks(site)
        for at in re.finditer(re.escape(mark), text)
    ][:5]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    return Hospital.build(tmp_path_factory.mktemp("marked") / "hospital")


@pytest.fixture
def said() -> Iterator[list[str]]:
    """All records of all loggers, formatted with their tracebacks."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(formatter.format(record))

    formatter = logging.Formatter("%(name)s %(levelname)s %(message)s %(pathname)s")
    handler = Collector(level=logging.DEBUG)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield lines
    root.removeHandler(handler)
    root.setLevel(before)


@pytest.fixture
def handed_on(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What every step of the night returns, as Airflow would keep it in XCom."""
    results: list[str] = []

    def kept(step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)
        def wrapped(*arguments: Any, **fields: Any) -> Any:
            result = step(*arguments, **fields)
            results.append(f"{step.__name__}: {json.dumps(result)}")
            return result

        return wrapped

    for name in STEPS:
        monkeypatch.setattr(steps, name, kept(getattr(steps, name)))
    return results


@pytest.mark.slow
def test_a_whole_night_says_nothing_of_a_patient(
    hospital: Hospital,
    tmp_path: Path,
    said: list[str],
    handed_on: list[str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    progress: list[str] = []
    faults = once(menu.status(503), on=NEXT_PAGE, times=2)
    with open_site(
        hospital, tmp_path / "site", wiring=Wiring(images=True), faults=faults, prepare=marked
    ) as site:
        summary = run_night(
            night=NIGHT.isoformat(), replay=None, watch=lambda *step: progress.append(str(step))
        )
        assert summary["counts"]["scored"] == summary["counts"]["confirmed"] > 5
        files = [path for pattern in READABLE for path in site.run.path.rglob(pattern)]
        shown = {
            str(path.relative_to(site.run.path)): path.read_text("utf-8", "replace")
            for path in files
            if not {"downloads", "arrays"} & set(path.parts)
        }
        assert {"report/index.html", "report/report.json", "summary.json", "progress.jsonl"} <= set(shown)
        assert any(name.startswith("gate/data_docs/") for name in shown)
        printed = capfd.readouterr()
        words = {
            "log": "\n".join(said),
            "XCom": "\n".join(handed_on),
            "progress": "\n".join(progress),
            "output": printed.out + printed.err,
        }
        assert "try 1 of" in words["log"] and "census" in words["XCom"]
        leaks = {name: found(text, site) for name, text in (words | shown).items() if found(text, site)}
        assert leaks == {}
        held = json.dumps([item for key, item in site.store.current.items() if key[0] == "RiskAssessment"])
        assert found(held, site), "the marks do not even reach the scores: the search would prove nothing"


def off_origin(site: Site) -> None:
    site.saboteur.faults = (
        menu.Fault(on=FIRST_PAGE, spoil=menu.redirect(f"{site.other}/{MARK}/{NAME}"), times=menu.FOREVER),
    )


def poisoned_too(site: Site) -> None:
    poisoned(site)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "faults", "prepare"),
    [
        ("refused", once(menu.status(422), times=menu.FOREVER), None),
        ("storm", once(menu.status(503), on=NEXT_PAGE, times=menu.FOREVER), None),
        ("reset", once(menu.cut(), times=menu.FOREVER), None),
        ("cut json", once(menu.wrong_length(-50), times=menu.FOREVER), None),
        ("total", once(wrong_total(9), times=menu.FOREVER), None),
        ("redirect", once(menu.reset(), times=0), off_origin),
        ("outcome", once(menu.body(with_outcome)), None),
        ("poisoned", once(menu.reset(), times=0), poisoned_too),
        ("dead letters", once(menu.entry_statuses({0: (422, "invalid")}), on=SCORES, times=9), None),
    ],
)
def test_a_broken_night_says_nothing_of_a_patient(
    name: str,
    faults: Any,
    prepare: Callable[[Site], None] | None,
    hospital: Hospital,
    tmp_path: Path,
    said: list[str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    def both(site: Site) -> None:
        marked(site)
        if prepare:
            prepare(site)

    with open_site(hospital, tmp_path / "site", wiring=Wiring(), faults=faults, prepare=both) as site:
        try:
            words = json.dumps(site.short_night())
        except Exception:
            words = traceback.format_exc()  # the whole chain, as a task's log shows it
        printed = capfd.readouterr()
        assert found("\n".join([words, *said, printed.out, printed.err]), site) == []
