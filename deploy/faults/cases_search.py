"""Cases of reading by FHIR search."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, timedelta
from email.utils import format_datetime
from typing import Any

from deploy.faults import menu
from deploy.faults.case import Case
from deploy.faults.clock import VirtualClock
from deploy.faults.loopback import Answer, Handle, Request, outcome
from deploy.faults.menu import FOREVER, Fault
from deploy.faults.site import Site, Wiring, change
from deploy.faults.store import Resource
from validation.reasons import Reason

FIRST_PAGE = menu.get("/fhir/Observation")
NEXT_PAGE = menu.get("/fhir", "_getpages")
Faults = Callable[[VirtualClock], tuple[Fault, ...]]


def page_of(kind: str) -> menu.Chooser:
    """Choose first pages of a type."""
    return menu.get(f"/fhir/{kind}")


def once(spoil: menu.Spoil, *, on: menu.Chooser = FIRST_PAGE, times: int = 1, skip: int = 0) -> Faults:
    """Return a script of one fault that does not need the clock."""
    return lambda clock: (Fault(on=on, spoil=spoil, times=times, skip=skip),)


def linked(url: Callable[[Request, str], str]) -> menu.Spoil:
    """Change the next link of a page."""

    def edit(bundle: Resource, request: Request) -> Resource:
        links = [
            item | {"url": url(request, item["url"])} if item["relation"] == "next" else item
            for item in bundle["link"]
        ]
        return bundle | {"link": links}

    return menu.body(edit)


def skewed(request: Request, carry_on: Handle, clock: VirtualClock) -> Answer:
    """Refuse with a date to come back, by a clock that is a day ahead."""
    ahead = clock.now().astimezone(UTC) + timedelta(days=1)
    headers = {
        "Date": format_datetime(ahead, usegmt=True),
        "Retry_After": format_datetime(ahead + timedelta(seconds=20), usegmt=True),
    }
    return outcome(503, "transient", **headers)


def with_outcome(bundle: Resource, request: Request) -> Resource:
    """Leave the page's first resource out and say so in an OperationOutcome entry (as Oracle's server does)."""
    issue = {"severity": "warning", "code": "processing", "diagnostics": "one resource was left out"}
    left_out = {
        "resource": {"resourceType": "OperationOutcome", "issue": [issue]},
        "search": {"mode": "outcome"},
    }
    return bundle | {"entry": [left_out, *bundle["entry"][1:]], "total": bundle["total"] - 1}


def doubled(bundle: Resource, request: Request) -> Resource:
    """Give the page's first five resources twice."""
    return bundle | {"entry": [*bundle["entry"][:5], *bundle["entry"]]}


def wrong_total(difference: int) -> menu.Spoil:
    """Claim another total."""
    return menu.body(lambda bundle, request: bundle | {"total": bundle["total"] + difference})


def bare_entry(bundle: Resource, request: Request) -> Resource:
    """Add an entry that has no resource."""
    return bundle | {"entry": [*bundle["entry"], {"fullUrl": "urn:uuid:0"}]}


def reasons(summary: dict[str, Any]) -> dict[str, int]:
    """Return quarantined rows by reason."""
    found: dict[str, int] = summary["quarantined_rows_by_reason"]
    return found


def quarantined(reason: str, at_least: int = 1) -> Callable[[Site, dict[str, Any]], list[str]]:
    """Demand rows of a reason in quarantine."""

    def check(site: Site, summary: dict[str, Any]) -> list[str]:
        found = reasons(summary).get(reason, 0)
        return [] if found >= at_least else [f"{found} rows of {reason}, expected {at_least}"]

    return check


def not_elsewhere(site: Site, summary: dict[str, Any]) -> list[str]:
    """Demand that nothing was asked of the other origin."""
    return ["another origin was asked"] if site.elsewhere else []


def waited_at_most(seconds: float) -> Callable[[Site, dict[str, Any]], list[str]]:
    """Demand that no long wait happened inside the night."""

    def check(site: Site, summary: dict[str, Any]) -> list[str]:
        waited = sum(site.clock.slept)
        return [] if waited <= seconds else [f"waited {waited:.0f} s"]

    return check


def edited(kind: str, number: int, edit: Callable[[Resource], Resource]) -> Callable[[Site], None]:
    """Change a resource on the server before the night."""
    return lambda site: _edit(site, kind, number, edit)


def _edit(site: Site, kind: str, number: int, edit: Callable[[Resource], Resource]) -> None:
    site.extra["edited"] = change(site.store, kind, number, edit)


def one_edited(site: Site) -> int:
    """Count the resource that was changed before the night."""
    return int("edited" in site.extra)


def off_origin(site: Site) -> None:
    """Point the next links of Observations to another origin."""
    site.saboteur.faults = (
        Fault(
            on=FIRST_PAGE,
            spoil=linked(lambda request, url: url.replace(request.base, site.other)),
            times=FOREVER,
        ),
    )


def sent_away(site: Site) -> None:
    """Redirect searches of Observations to another origin."""
    site.saboteur.faults = (
        Fault(on=FIRST_PAGE, spoil=menu.redirect(f"{site.other}/fhir/Observation"), times=FOREVER),
    )


def repeated_page(request: Request, carry_on: Handle) -> Answer:
    """Answer a next page with the page before it, whose own next link leads on."""
    offset = int(request.query["_offset"][0])
    size = int(request.query["_count"][0])
    target = request.target.replace(f"_offset={offset}", f"_offset={offset - size}")
    answer = carry_on(replace(request, target=target))
    bundle = json.loads(answer.body)
    for item in bundle["link"]:
        if item["relation"] == "next":
            item["url"] += "&again=1"
    return replace(answer, body=json.dumps(bundle).encode())


CASES = (
    Case(name="429, Retry-After 7 s", group="search", faults=once(menu.status(429, retry_after="7"))),
    Case(
        name="429, Retry-After as HTTP date",
        group="search",
        faults=lambda clock: (Fault(on=FIRST_PAGE, spoil=menu.too_many(clock, 40)),),
    ),
    Case(
        name="503, Retry-After five hours",
        group="search",
        faults=once(menu.status(503, retry_after="18000"), times=FOREVER),
        stops="TemporaryError",
        check=waited_at_most(60),
    ),
    Case(name="500, then in order", group="search", faults=once(menu.status(500))),
    Case(name="504 twice while paging", group="search", faults=once(menu.status(504), on=NEXT_PAGE, times=2)),
    Case(
        name="503 storm to the limit",
        group="search",
        faults=once(menu.status(503), on=NEXT_PAGE, times=FOREVER, skip=2),
        stops="TemporaryError",
    ),
    Case(name="connection reset in the body", group="search", faults=once(menu.cut(), times=2)),
    Case(name="connection reset before the answer", group="search", faults=once(menu.reset(), on=NEXT_PAGE)),
    Case(
        name="slow-loris: half a page, then ten minutes nothing",
        group="search",
        faults=lambda clock: (Fault(on=FIRST_PAGE, spoil=menu.drip(clock, 700)),),
    ),
    Case(name="Content-Length too large", group="search", faults=once(menu.wrong_length(50))),
    Case(name="Content-Length too small", group="search", faults=once(menu.wrong_length(-50))),
    Case(name="gzip stream cut off", group="search", faults=once(menu.cut_gzip())),
    Case(
        name="login page with status 200",
        group="search",
        faults=once(menu.login_page, times=FOREVER),
        stops="ContentError",
    ),
    Case(
        name="next links go round in a circle",
        group="search",
        faults=once(
            linked(lambda request, url: f"{request.base}{request.target}"), on=NEXT_PAGE, times=FOREVER
        ),
        stops="PagingError",
    ),
    Case(
        name="next link to another origin",
        group="search",
        prepare=off_origin,
        stops="OriginError",
        check=not_elsewhere,
    ),
    Case(
        name="redirect to another origin",
        group="search",
        prepare=sent_away,
        stops="OriginError",
        check=not_elsewhere,
    ),
    Case(
        name="next link expired (410)",
        group="search",
        faults=once(menu.status(410, issue="not-found"), on=NEXT_PAGE, skip=1),
    ),
    Case(name="a page comes twice", group="search", faults=once(repeated_page, on=NEXT_PAGE, skip=1)),
    Case(
        name="resources twice over pages",
        group="search",
        faults=once(menu.body(doubled), on=NEXT_PAGE, times=3),
    ),
    Case(
        name="OperationOutcome inside the searchset",
        group="search",
        faults=once(menu.body(with_outcome)),
        prepare=lambda site: site.extra.update(left_out=_first(site, "Observation")),
        ignored=lambda site: frozenset({site.extra["left_out"]}),
        check=quarantined(str(Reason.OPERATION_OUTCOME)),
    ),
    Case(
        name="total greater than the entries",
        group="search",
        faults=once(wrong_total(3), times=FOREVER),
        stops="PagingError",
    ),
    Case(name="total smaller than the entries", group="search", faults=once(wrong_total(-3))),
    Case(
        name="an entry without a resource",
        group="search",
        faults=once(menu.body(bare_entry), times=FOREVER),
        stops="ContentError",
    ),
    Case(
        name="server's clock a day ahead, Retry-After as its date",
        group="search",
        faults=lambda clock: (
            Fault(on=FIRST_PAGE, spoil=lambda request, carry_on: skewed(request, carry_on, clock)),
        ),
    ),
    Case(
        name="a time without a zone",
        group="search",
        prepare=edited(
            "Observation", 3, lambda item: item | {"effectiveDateTime": item["effectiveDateTime"][:19]}
        ),
        injected=one_edited,
        check=quarantined("time.zone_missing", 2),
    ),
    Case(
        name="a resource longer than the limit",
        group="search",
        wiring=Wiring(source="max_line_bytes = 500000"),
        prepare=edited("Observation", 5, lambda item: item | {"note": [{"text": "x" * 600_000}]}),
        injected=one_edited,
        ignored=lambda site: frozenset({f"Observation/{site.extra['edited']}"}),
        check=quarantined("json.too_long"),
    ),
)


def _first(site: Site, kind: str) -> str:
    return f"{kind}/{min(name for each, name in site.store.current if each == kind)}"
