"""Cases of SMART Backend Services: tokens that end, servers that refuse, endpoints elsewhere."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from deploy.faults import menu
from deploy.faults.case import Case
from deploy.faults.cases_bulk import MANIFEST, READY_AFTER
from deploy.faults.cases_search import FIRST_PAGE, NEXT_PAGE, once
from deploy.faults.loopback import Answer, Handle, Request
from deploy.faults.menu import FOREVER, Fault
from deploy.faults.site import Site, Wiring
from deploy.faults.store import Resource

TOKEN = menu.send("POST", "/fhir/token")
DISCOVERY = menu.get("/.well-known/smart-configuration")


@cache
def signing(algorithm: str) -> tuple[Any, str, Path]:
    """Return a new key, its algorithm and its PEM file."""
    key: Any
    if algorithm == "ES384":
        key = ec.generate_private_key(ec.SECP384R1())
    else:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    folder = Path(tempfile.mkdtemp(prefix="nightingale-faults-key-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "key.pem").write_bytes(text)
    return key, algorithm, folder / "key.pem"


def smart(reading: Any = "search", algorithm: str = "ES384") -> Wiring:
    """Return the wiring of a server that asks for SMART tokens."""
    return Wiring(reading=reading, signing=signing(algorithm))


def tokens_forgotten(site: Site) -> None:
    """Let the server forget its tokens when a later page is asked for."""

    def spoil(request: Request, carry_on: Handle) -> Answer:
        assert site.server.tokens is not None  # noqa: S101 - the wiring gave it tokens
        site.server.tokens.revoke_all()
        return carry_on(request)

    site.saboteur.faults = (Fault(on=NEXT_PAGE, spoil=spoil, skip=2),)


def slow_pages(site: Site) -> None:
    """Let every page take two minutes, so that a token of five does not last."""

    def spoil(request: Request, carry_on: Handle) -> Answer:
        answer = carry_on(request)
        site.clock.advance(120.0)
        return answer

    site.saboteur.faults = (Fault(on=NEXT_PAGE, spoil=spoil, times=FOREVER),)


def no_refusals(site: Site, summary: dict[str, Any]) -> list[str]:
    """Demand that every assertion was accepted, and only least scopes were asked for."""
    tokens = site.server.tokens
    assert tokens is not None  # noqa: S101 - the wiring gave it tokens
    problems = [f"assertions refused: {', '.join(tokens.refusals)}"] if tokens.refusals else []
    wide = [scope for scope in tokens.scopes if "*" in scope]
    return problems + ([f"wide scopes: {', '.join(wide)}"] if wide else [])


def renewed(site: Site, summary: dict[str, Any]) -> list[str]:
    """Demand several tokens and no refused assertion."""
    assert site.server.tokens is not None  # noqa: S101 - the wiring gave it tokens
    few = site.server.tokens.issued < 3
    return no_refusals(site, summary) + (["the token was not renewed"] if few else [])


def file_elsewhere(site: Site) -> None:
    """Keep one file on another origin, for which the manifest asks no token."""
    site.server.jobs.requires_token = False

    def move(manifest: Resource, request: Request) -> Resource:
        first, *rest = manifest["output"]
        return manifest | {"output": [first | {"url": f"{site.other}/fhir/files/x"}, *rest]}

    site.saboteur.faults = (Fault(on=MANIFEST, spoil=menu.body(move), skip=READY_AFTER, times=FOREVER),)


def files_allowed_elsewhere(site: Site) -> None:
    """Keep all files on another origin, without a token, and let the site allow that origin."""
    site.server.jobs.requires_token = False

    def move(manifest: Resource, request: Request) -> Resource:
        output = [
            item | {"url": item["url"].replace(request.base, site.other)} for item in manifest["output"]
        ]
        return manifest | {"output": output}

    site.saboteur.faults = (Fault(on=MANIFEST, spoil=menu.body(move), skip=READY_AFTER, times=FOREVER),)
    config = site.folder / "nightingale.toml"
    allowed = f'page_size = 100\nallowed_origins = ["{site.other}"]'
    config.write_text(config.read_text("utf-8").replace("page_size = 100", allowed), "utf-8")


def fetched_elsewhere(site: Site, summary: dict[str, Any]) -> list[str]:
    """Demand that the files came from the other origin."""
    return no_refusals(site, summary) + ([] if len(site.elsewhere) >= 5 else ["no file came from there"])


def foreign_endpoint(request: Request, carry_on: Handle) -> Answer:
    """Name a token endpoint on another host, over plain http."""
    found = json.loads(carry_on(request).body) | {"token_endpoint": "http://tokens.invalid/token"}
    return Answer(body=json.dumps(found).encode(), headers={"Content-Type": "application/json"})


def once_unauthorised(request: Request, carry_on: Handle) -> Answer:
    """Say 401 whatever the token."""
    return Answer(status=401)


CASES = (
    Case(
        name="tokens forgotten while paging (ES384)",
        group="smart",
        wiring=smart(),
        prepare=tokens_forgotten,
        check=no_refusals,
    ),
    Case(
        name="token ends before the pages do (RS384)",
        group="smart",
        wiring=smart(algorithm="RS384"),
        prepare=slow_pages,
        check=renewed,
    ),
    Case(
        name="401 whatever the token",
        group="smart",
        wiring=smart(),
        faults=once(once_unauthorised, on=FIRST_PAGE, times=FOREVER),
        stops="AuthorizationError",
        check=no_refusals,
    ),
    Case(
        name="token endpoint 503, then in order",
        group="smart",
        wiring=smart(),
        faults=once(menu.status(503), on=TOKEN, times=2),
        check=no_refusals,
    ),
    Case(
        name="token endpoint answer lost",
        group="smart",
        wiring=smart(),
        faults=once(menu.lost_answer(), on=TOKEN),
        check=no_refusals,
    ),
    Case(
        name="token endpoint refuses (invalid_client)",
        group="smart",
        wiring=smart(),
        faults=once(menu.status(400, issue="invalid"), on=TOKEN, times=FOREVER),
        stops="AuthorizationError",
    ),
    Case(
        name="discovery names a token endpoint elsewhere",
        group="smart",
        wiring=smart(),
        faults=once(foreign_endpoint, on=DISCOVERY, times=FOREVER),
        stops="OriginError",
    ),
    Case(
        name="export file elsewhere, no token asked for",
        group="smart",
        wiring=smart("bulk"),
        prepare=file_elsewhere,
        stops="OriginError",
        check=no_refusals,
    ),
    Case(
        name="export files elsewhere, origin allowed, no token asked for",
        group="smart",
        wiring=smart("bulk"),
        prepare=files_allowed_elsewhere,
        check=fetched_elsewhere,
    ),
)
