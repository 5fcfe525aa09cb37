"""Cases of write-back: what the server did is not what the client saw."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from deploy.faults import menu
from deploy.faults.case import Case
from deploy.faults.cases_search import once, waited_at_most
from deploy.faults.loopback import Answer, Handle, Request, json_answer
from deploy.faults.menu import FOREVER, Fault
from deploy.faults.reckoning import held_scores, score_resources
from deploy.faults.site import Site
from deploy.faults.store import Resource

SCORES = menu.batch_of("RiskAssessment")
ALONE = menu.send("PUT", "/fhir/RiskAssessment/")
METADATA = menu.get("/fhir/metadata")
TAGGED = menu.get("/fhir/RiskAssessment", "_tag=")
DEAD = "dead letters"
"""How :func:`deploy.faults.case.attempt` calls a night that delivered less than it scored."""


def larger_than(count: int) -> menu.Chooser:
    """Choose batches of scores with more than so many entries."""
    return lambda request: SCORES(request) and len(request.json()["entry"]) > count


def capabilities(edit: Callable[[Resource], Resource | None]) -> menu.Spoil:
    """Change what the server says of each type; None takes the type away."""

    def change(statement: Resource, request: Request) -> Resource:
        (rest,) = statement["rest"]
        kept = [edit(dict(item)) for item in rest["resource"]]
        return statement | {"rest": [rest | {"resource": [item for item in kept if item]}]}

    return menu.body(change)


def says(spoil: menu.Spoil, *others: Fault) -> Callable[[Any], tuple[Fault, ...]]:
    """Return a script with a changed CapabilityStatement and further faults."""
    return lambda clock: (Fault(on=METADATA, spoil=spoil, times=FOREVER), *others)


no_client_ids = capabilities(lambda item: item | {"updateCreate": False})
no_risk_assessment = capabilities(lambda item: None if item["type"] == "RiskAssessment" else item)


def no_batches(statement: Resource, request: Request) -> Resource:
    """Leave the system's interactions out."""
    (rest,) = statement["rest"]
    return statement | {"rest": [{key: value for key, value in rest.items() if key != "interaction"}]}


def without_last_entry(bundle: Resource, request: Request) -> Resource:
    """Answer one entry less than were sent."""
    return bundle | {"entry": bundle["entry"][:-1]}


def pretended(request: Request, carry_on: Handle) -> Answer:
    """Say 201 to the first entry and drop it."""
    bundle = request.json()
    first, *rest = bundle["entry"]
    answer = carry_on(
        Request(
            method=request.method,
            target=request.target,
            headers=request.headers,
            body=json.dumps(bundle | {"entry": rest}).encode(),
        )
    )
    value = json.loads(answer.body)
    place = f"{first['request']['url']}/_history/1"
    claimed = {"response": {"status": "201 Created", "location": place, "etag": 'W/"1"'}}
    return json_answer(value | {"entry": [claimed, *value["entry"]]})


def night_before(site: Site) -> None:
    """Run the night once, undisturbed."""
    site.short_night()
    site.extra["first"] = sorted(held_scores(site))
    site.extra["writes"] = len(site.store.written)


def again(site: Site, summary: dict[str, Any]) -> list[str]:
    """Demand that the second night wrote nothing."""
    more = len(site.store.written) - site.extra["writes"]
    problems = [f"{more} resources were written again"] if more else []
    return problems + ([] if sorted(held_scores(site)) == site.extra["first"] else ["other scores are held"])


def ledger_lost(site: Site) -> None:
    """Run the night, then lose the database."""
    night_before(site)
    for path in site.folder.glob("nightingale.sqlite*"):
        path.unlink()


def server_emptied(site: Site) -> None:
    """Run the night, then restore the server from a backup of the day before."""
    night_before(site)
    for key in list(site.store.current):
        if key[0] in {"RiskAssessment", "Device", "Provenance"}:
            del site.store.current[key]
    site.store.written.clear()


def amended(site: Site) -> None:
    """Run the night, then let a clinician correct one score."""
    night_before(site)
    _amend(site)


def amended_and_ledger_lost(site: Site) -> None:
    """Run the night, let a clinician correct one score, then lose the database."""
    ledger_lost(site)
    _amend(site)


def _amend(site: Site) -> None:
    key = min(key for key in site.store.current if key[0] == "RiskAssessment")
    resource = site.store.current[key]
    prediction = [resource["prediction"][0] | {"probabilityDecimal": 0.5}]
    meta = resource["meta"] | {"versionId": "2"}
    site.store.current[key] = resource | {"status": "amended", "prediction": prediction, "meta": meta}
    site.extra["amended"] = key


def still_amended(site: Site, summary: dict[str, Any]) -> list[str]:
    """Demand that the clinician's word stands, and that it is counted."""
    resource = site.store.current[site.extra["amended"]]
    problems = [] if resource["status"] == "amended" else ["the clinician's correction was overwritten"]
    counted = summary["write_back"]["amended_by_others"]
    return problems + ([] if counted == 1 else [f"{counted} counted as amended"])


def as_observations(site: Site, summary: dict[str, Any]) -> list[str]:
    """Demand that scores are held as Observations."""
    kinds = Counter(item["resourceType"] for item in score_resources(site))
    return [] if set(kinds) == {"Observation"} else [f"scores are held as {', '.join(kinds)}"]


def second_run(site: Site) -> int:
    """Count the night that was run before."""
    return int("first" in site.extra)


CASES = (
    Case(
        name="batch-response of mixed statuses (200, 422, 503)",
        group="write",
        faults=once(menu.entry_statuses({0: (422, "invalid"), 2: (503, "transient")}), on=SCORES),
        dead_letters=1,
    ),
    Case(
        name="entry refused by a business rule (403)",
        group="write",
        faults=once(menu.entry_statuses({1: (403, "forbidden")}), on=SCORES),
        dead_letters=1,
    ),
    Case(
        name="answer lost after the commit",
        group="write",
        faults=once(menu.lost_answer(), on=SCORES, times=2),
    ),
    Case(
        name="half committed, then reset",
        group="write",
        faults=once(menu.first_entries_only(2), on=SCORES),
    ),
    Case(
        name="answer cut off after the commit",
        group="write",
        faults=once(menu.cut(), on=SCORES),
    ),
    Case(
        name="answer too slow after the commit",
        group="write",
        faults=lambda clock: (Fault(on=SCORES, spoil=menu.drip(clock, 700)),),
    ),
    Case(
        name="login page in answer to a batch",
        group="write",
        faults=once(menu.login_page, on=SCORES),
    ),
    Case(
        name="batch-response with an entry missing",
        group="write",
        faults=once(menu.body(without_last_entry), on=SCORES),
    ),
    Case(
        name="413 for more than one score a bundle",
        group="write",
        faults=once(menu.status(413, issue="too-long"), on=larger_than(1), times=FOREVER),
    ),
    Case(
        name="429, Retry-After 20 s",
        group="write",
        faults=once(menu.status(429, retry_after="20"), on=SCORES),
    ),
    Case(
        name="429, Retry-After as HTTP date",
        group="write",
        faults=lambda clock: (Fault(on=SCORES, spoil=menu.too_many(clock, 45)),),
    ),
    Case(
        name="429, Retry-After five hours",
        group="write",
        faults=once(menu.status(429, retry_after="18000"), on=SCORES, times=FOREVER),
        stops=DEAD,
        check=waited_at_most(60),
    ),
    Case(
        name="503 storm to the limit",
        group="write",
        faults=once(menu.status(503), on=SCORES, times=FOREVER),
        stops=DEAD,
    ),
    Case(
        name="503 for one entry, then in order",
        group="write",
        faults=once(menu.entry_statuses({0: (503, "transient")}), on=SCORES, times=2),
    ),
    Case(
        name="server gone for the whole write-back",
        group="write",
        faults=once(menu.reset(), on=lambda request: request.method == "POST", times=FOREVER),
        stops=DEAD,
    ),
    Case(
        name="/metadata cannot be had",
        group="write",
        faults=once(menu.status(503), on=METADATA, times=FOREVER),
        stops=DEAD,
    ),
    Case(
        name="412, several matches for our identifier",
        group="write",
        faults=says(
            no_client_ids,
            Fault(on=SCORES, spoil=menu.entry_statuses({0: (412, "multiple-matches")})),
        ),
        dead_letters=1,
    ),
    Case(
        name="server gives ids itself; answer lost after the commit",
        group="write",
        faults=says(no_client_ids, Fault(on=SCORES, spoil=menu.lost_answer(), times=2)),
    ),
    Case(
        name="no RiskAssessment on the server: Observation; answer lost",
        group="write",
        faults=says(
            no_risk_assessment,
            Fault(on=menu.batch_of("Observation"), spoil=menu.lost_answer()),
        ),
        check=as_observations,
    ),
    Case(
        name="no batches on the server: one by one; answer lost",
        group="write",
        faults=says(menu.body(no_batches), Fault(on=ALONE, spoil=menu.lost_answer())),
    ),
    Case(
        name="says 201 and keeps nothing",
        group="write",
        faults=once(pretended, on=SCORES),
        stops=DEAD,
    ),
    Case(
        name="search after the run refused",
        group="write",
        faults=once(menu.status(400, issue="not-supported"), on=TAGGED, times=FOREVER),
    ),
    Case(
        name="the same night twice",
        group="write",
        prepare=night_before,
        injected=second_run,
        check=again,
    ),
    Case(
        name="ledger lost, night run again",
        group="write",
        prepare=ledger_lost,
        injected=second_run,
        check=again,
    ),
    Case(
        name="server restored from yesterday's backup",
        group="write",
        prepare=server_emptied,
        injected=second_run,
    ),
    Case(
        name="score amended by a clinician, night run again",
        group="write",
        prepare=amended,
        injected=second_run,
        check=still_amended,
    ),
    Case(
        name="amended by a clinician, and the ledger lost",
        group="write",
        prepare=amended_and_ledger_lost,
        injected=second_run,
        check=still_amended,
    ),
)
