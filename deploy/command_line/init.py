"""``nightingale init``: a commented settings file for a new site, from what its FHIR server says."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(no_args_is_help=True, add_completion=False)
_ERRORS = Console(stderr=True)


@app.command("init")
def init_command(
    fhir: Annotated[str, typer.Option(help="Base address of the site's FHIR R4 server.")],
    out: Annotated[Path, typer.Option(help="File to write; an existing one is not overwritten.")] = Path(
        "site.toml"
    ),
    name: Annotated[
        str | None, typer.Option(help="Short name of the site, part of every score's key.")
    ] = None,
    time_zone: Annotated[str | None, typer.Option(help="IANA zone of the ward clocks.")] = None,
    ca_bundle: Annotated[Path | None, typer.Option(help="CA bundle of the hospital's own authority.")] = None,
    proxy: Annotated[str | None, typer.Option(help="HTTP proxy.")] = None,
) -> None:
    """Ask the server's /metadata what it can do and write a settings file that fits it, every field explained.

    Example: nightingale init --fhir https://fhir.hospital.example/r4 --name st-mary --time-zone Europe/Vienna
    """
    from deploy.configuration.from_metadata import probe, propose
    from deploy.configuration.site_file import render_site_file
    from deploy.doctor.examine import PATIENCE
    from deploy.errors import DeployError
    from deploy.settings import load_settings
    from fhir_adapter.errors import AdapterError
    from fhir_adapter.transport import Transport

    if out.exists():
        _stop(f"{out} exists already; name another file by --out")
    try:
        with Transport(fhir, retry=PATIENCE, ca_bundle=ca_bundle, proxy=proxy) as transport:
            proposal = propose(transport.base_url, probe(transport))
    except AdapterError as error:
        _stop(f"{error}; is this the base address of a FHIR R4 server?")
    options = {
        ("site", "name"): name,
        ("site", "time_zone"): time_zone,
        ("source", "ca_bundle"): ca_bundle,
        ("source", "proxy"): proxy,
    }
    for (section, field), value in options.items():
        if value is not None:
            proposal.put(section, field, value)
    text = render_site_file(proposal, origin=fhir.rstrip("/"), now=datetime.now(UTC))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    try:
        load_settings(out)
    except DeployError as error:
        out.unlink()
        _stop(str(error))
    console = Console()
    console.print(f"{out} written. Next:", markup=False)
    console.print(
        f"  1. read it and set what is yours: site, time zone, secrets\n  2. nightingale doctor --config {out}"
    )


def _stop(message: str) -> None:
    _ERRORS.print(f"error: {message}", style="red", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(1)
