"""Cases of reading by ``$export``."""

from __future__ import annotations

from typing import Any

from deploy.faults import menu
from deploy.faults.case import Case
from deploy.faults.cases_search import once, quarantined
from deploy.faults.loopback import Answer, Request, outcome
from deploy.faults.menu import FOREVER, Fault
from deploy.faults.site import Site, Wiring
from deploy.faults.store import Resource
from validation.reasons import Reason

BULK = Wiring(reading="bulk")
KICK_OFF = menu.get("$export")
STATUS = menu.get("/fhir/jobs/")
MANIFEST = STATUS
FILE = menu.get("/fhir/files/", "Observation-1.ndjson")
READY_AFTER = 2
"""Polls that :class:`deploy.faults.bulk_jobs.BulkJobs` answers with 202."""


def polite(site: Site, summary: dict[str, Any]) -> list[str]:
    """Demand that no poll came early and that no job was left behind."""
    jobs = site.server.jobs
    problems = [f"{jobs.early} polls before the time asked for"] if jobs.early else []
    left = sum(not job.deleted for job in jobs.jobs)
    return problems + ([f"{left} jobs left on the server"] if left else [])


def jobs_made(count: int) -> Any:
    """Demand a number of kick-offs."""

    def check(site: Site, summary: dict[str, Any]) -> list[str]:
        made = len(site.server.jobs.jobs)
        return [] if made == count else [f"{made} exports were started, expected {count}"]

    return check


def every(*checks: Any) -> Any:
    """Demand several things."""
    return lambda site, summary: [problem for check in checks for problem in check(site, summary)]


def with_errors(site: Site) -> None:
    """Let the export say that two resources could not be written."""
    issue = {"severity": "error", "code": "exception"}
    site.server.jobs.errors = [{"resourceType": "OperationOutcome", "issue": [issue]}] * 2


def with_deleted(site: Site) -> None:
    """List an Observation of the output as deleted."""
    name = sorted(name for kind, name in site.store.current if kind == "Observation")[10]
    entry = {"request": {"method": "DELETE", "url": f"Observation/{name}"}}
    site.server.jobs.deleted = [{"resourceType": "Bundle", "type": "transaction", "entry": [entry]}]
    site.extra["gone"] = f"Observation/{name}"


def never_ready(site: Site) -> None:
    """Let the export take longer than the night can wait."""
    site.server.jobs.busy_polls = 200


def ready(site: Site) -> None:
    """Let it be ready for the next run."""
    site.server.jobs.busy_polls = 0


def short_file(lines: list[bytes]) -> list[bytes]:
    """Leave the last five lines out."""
    return lines[:-5]


def no_transaction_time(manifest: Resource, request: Request) -> Resource:
    """Leave ``transactionTime`` out."""
    return {key: value for key, value in manifest.items() if key != "transactionTime"}


def without_counts(manifest: Resource, request: Request) -> Resource:
    """Leave the optional counts out."""
    output = [{key: value for key, value in item.items() if key != "count"} for item in manifest["output"]]
    return manifest | {"output": output}


def elsewhere(site: Site) -> None:
    """Keep the files on another origin and ask for a token there."""

    def move(manifest: Resource, request: Request) -> Resource:
        output = [
            item | {"url": item["url"].replace(request.base, site.other)} for item in manifest["output"]
        ]
        return manifest | {"output": output}

    site.saboteur.faults = (Fault(on=MANIFEST, spoil=menu.body(move), skip=READY_AFTER, times=FOREVER),)


def broken_lines(lines: list[bytes]) -> list[bytes]:
    """Spoil three lines: cut off, nested 600 deep, no JSON."""
    deep = b'{"resourceType":"Observation","id":"deep","x":' + b"[" * 600 + b"]" * 600 + b"}\n"
    return [lines[0][:50] + b"\n", deep, b"not json\n", *lines[3:]]


def doubled_lines(lines: list[bytes]) -> list[bytes]:
    """Send twenty lines twice, as Oracle's exports do."""
    return lines + lines[:20]


def failed(request: Request, carry_on: menu.Handle) -> Answer:
    """End the export with an error that is final."""
    return outcome(500, "exception")


def lost_by_lines(site: Site) -> frozenset[str]:
    """Return the resources whose lines were spoilt: the second file's first three."""
    names = sorted(name for kind, name in site.store.current if kind == "Observation")
    return frozenset(f"Observation/{name}" for name in names[200:203])


CASES = (
    Case(
        name="file cut off in the body, twice",
        group="bulk",
        wiring=BULK,
        faults=once(menu.cut(), on=FILE, times=2),
        check=polite,
    ),
    Case(
        name="kick-off refused with 429",
        group="bulk",
        wiring=BULK,
        faults=once(menu.status(429, retry_after="30"), on=KICK_OFF),
        check=polite,
    ),
    Case(
        name="status poll refused with 429",
        group="bulk",
        wiring=BULK,
        faults=once(menu.status(429, retry_after="60"), on=STATUS, skip=1),
        check=jobs_made(1),
    ),
    Case(
        name="status poll meets a proxy's 503",
        group="bulk",
        wiring=BULK,
        faults=once(lambda request, carry_on: Answer(status=503, body=b"busy"), on=STATUS, times=2),
    ),
    Case(
        name="export ends with an error",
        group="bulk",
        wiring=BULK,
        faults=once(failed, on=STATUS, skip=1, times=FOREVER),
        stops="ExportError",
        check=polite,
    ),
    Case(
        name="job forgotten by the server (404)",
        group="bulk",
        wiring=BULK,
        faults=once(menu.status(404, issue="not-found"), on=STATUS, skip=1),
        check=jobs_made(2),
    ),
    Case(
        name="export not ready in four hours",
        group="bulk",
        wiring=BULK,
        prepare=never_ready,
        injected=lambda site: int(site.server.jobs.jobs[0].polls > 50),
        between=ready,
        stops="TemporaryError",
        check=jobs_made(1),
    ),
    Case(
        name="502 on a file, twice",
        group="bulk",
        wiring=BULK,
        faults=once(menu.status(502), on=FILE, times=2),
    ),
    Case(
        name="file expired (410)",
        group="bulk",
        wiring=BULK,
        faults=once(menu.status(410, issue="expired"), on=FILE),
        check=jobs_made(2),
    ),
    Case(
        name="file with fewer lines than counted, once",
        group="bulk",
        wiring=BULK,
        faults=once(menu.lines(short_file), on=FILE),
    ),
    Case(
        name="file with fewer lines than counted, always",
        group="bulk",
        wiring=BULK,
        faults=once(menu.lines(short_file), on=FILE, times=FOREVER),
        stops="ExportError",
    ),
    Case(
        name="login page in place of a file",
        group="bulk",
        wiring=BULK,
        faults=once(menu.login_page, on=FILE, times=FOREVER),
        stops="ContentError",
    ),
    Case(
        name="manifest without transactionTime",
        group="bulk",
        wiring=BULK,
        faults=once(menu.body(no_transaction_time), on=MANIFEST, skip=READY_AFTER),
        stops="ExportError",
    ),
    Case(
        name="error file with two outcomes",
        group="bulk",
        wiring=BULK,
        prepare=with_errors,
        injected=lambda site: len(site.server.jobs.errors),
        check=quarantined(str(Reason.OPERATION_OUTCOME), 2),
    ),
    Case(
        name="deleted file names an exported resource",
        group="bulk",
        wiring=BULK,
        prepare=with_deleted,
        injected=lambda site: len(site.server.jobs.deleted),
        ignored=lambda site: frozenset({site.extra["gone"]}),
    ),
    Case(
        name="files on another origin",
        group="bulk",
        wiring=BULK,
        prepare=elsewhere,
        stops="OriginError",
    ),
    Case(
        name="lines cut off, nested 600 deep, no JSON",
        group="bulk",
        wiring=BULK,
        faults=once(menu.lines(broken_lines), on=FILE),
        ignored=lost_by_lines,
        check=every(quarantined("json.unreadable", 2), quarantined("json.too_deep")),
    ),
    Case(
        name="twenty lines twice in a file",
        group="bulk",
        wiring=BULK,
        faults=lambda clock: (
            Fault(on=FILE, spoil=menu.lines(doubled_lines)),
            Fault(on=MANIFEST, spoil=menu.body(without_counts), skip=READY_AFTER),
        ),
        check=quarantined("resource.duplicate", 15),
    ),
    Case(
        name="job cannot be deleted",
        group="bulk",
        wiring=BULK,
        faults=once(menu.status(500), on=menu.send("DELETE", "/fhir/jobs/"), times=FOREVER),
    ),
)
