"""All checks of a site, in the order in which a person would mend what they find."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from deploy.doctor import codes, machine, servers, storage
from deploy.doctor.check import Check, failed, guarded, ok, warning
from deploy.errors import SettingsError
from deploy.night.connections import destination_transport, pacs_transport, source_transport
from deploy.servers.prerequisites import prerequisites
from deploy.settings import CONFIG_VARIABLE, Settings, load_settings
from fhir_adapter.sources import FolderSource
from fhir_adapter.transport import RetryPolicy

Tell = Callable[[Check], None]
PATIENCE = RetryPolicy(attempts=2, longest_wait=5.0)
"""A doctor who waits for ten minutes helps nobody."""


def examine(
    *,
    config: Path | None = None,
    hapi: bool = False,
    environment: Mapping[str, str] | None = None,
    tell: Tell | None = None,
) -> list[Check]:
    """Look at everything a night needs.

    Parameters
    ----------
    config
        Settings file; unset, ``NIGHTINGALE_CONFIG``.
    hapi
        Whether what ``make demo FHIR=hapi`` needs must be there.
    tell
        Told of every check as soon as it is done.

    Returns
    -------
    list of Check
        Never raises for what it finds.
    """
    variables = dict(os.environ if environment is None else environment)
    found: list[Check] = []

    def look(subject: str, remedy: str, group: Callable[[], Iterable[Check]]) -> None:
        for check in guarded(subject, remedy, group):
            found.append(check)
            if tell:
                tell(check)

    look("python", "run `make setup`", machine.check_python)
    look("programs", "", lambda: machine.check_programs(prerequisites(), needed=hapi))
    look("gpu", "reinstall torch: `make setup`", machine.check_accelerator)
    settings = _settings(config, variables, look)
    if settings is not None:
        look(
            "secrets",
            "see docs/configuration.md, 'Secrets'",
            lambda: storage.check_secrets(settings, variables),
        )
        look("disk", "check storage.runs", lambda: machine.check_disk(settings.storage.runs))
        look("database", "check storage.database", lambda: storage.check_database(settings))
        look("model", "check night.model", lambda: storage.check_model(settings))
        look("source", "see docs/connect_your_server.md", lambda: _source(settings))
        look("destination", "see docs/connect_your_server.md", lambda: _destination(settings))
        look("waveforms", "check waveforms.folder", lambda: _waveforms(settings))
        look("images", "check images.*", lambda: _images(settings))
    look("airflow.pools", "run `nightingale airflow prepare`", lambda: storage.check_pools(variables))
    return found


def _settings(
    config: Path | None,
    variables: Mapping[str, str],
    look: Callable[[str, str, Callable[[], Iterable[Check]]], None],
) -> Settings | None:
    """Load the settings and say how that went; a machine without a site is no failure."""
    try:
        settings = load_settings(config)
    except SettingsError as error:
        text = str(error)
        named = config is not None or any(name.startswith("NIGHTINGALE_") for name in _site_fields(variables))
        remedy = (
            "`nightingale init --fhir URL` writes a commented file; docs/configuration.md explains each field"
        )
        check = (
            failed("settings", text, remedy)
            if named
            else warning("settings", "no site is configured (the demo needs none)", remedy)
        )
        look("settings", remedy, lambda: [check])
        return None
    place = config or variables.get(CONFIG_VARIABLE) or "environment"
    look("settings", "", lambda: [ok("settings", f"valid ({place}); site {settings.site.name}")])
    return settings


def _site_fields(variables: Mapping[str, str]) -> list[str]:
    """Return the variables that configure a site, which the cache and the open data do not."""
    return [name for name in variables if name not in {"NIGHTINGALE_CACHE", "NIGHTINGALE_DATA"}]


def _source(settings: Settings) -> Iterable[Check]:
    from deploy.site_catalogue import site_catalogue

    known = set(site_catalogue(settings).codes["coding"])
    source = settings.source
    if source.kind == "folder":
        assert source.folder is not None  # noqa: S101 - the settings demand it
        parts = FolderSource(source.folder).plan(list(servers.READ))
        types = sorted({part.resource_type for part in parts})
        absent = [name for name in ("Patient", "Encounter", "Observation") if name not in types]
        if absent:
            yield failed("source.folder", f"no file of {', '.join(absent)}", "check source.folder")
        else:
            yield ok("source.folder", f"{len(parts)} files: {', '.join(types)}")
        files = [
            source.folder / part.locator["file"] for part in parts if part.resource_type == "Observation"
        ]
        sample = [resource for path in files[:3] for resource in codes.sample_file(path)]
        yield from codes.judge_codings(codes.count_codings(sample, known))
        return
    with source_transport(settings, retry=PATIENCE) as client:
        reply = client.request("GET", "metadata")
        yield from servers.check_clock(reply, now=datetime.now(UTC), subject="clock")
        yield from servers.check_reading(client, kind=source.kind, statement=reply.json())
        yield from codes.judge_codings(codes.count_codings(codes.sample_server(client), known))


def _destination(settings: Settings) -> Iterable[Check]:
    destination = settings.destination
    if destination.kind == "ndjson":
        yield ok("destination", "NDJSON files in the run folder")
        return
    with destination_transport(settings, retry=PATIENCE) as client:
        yield from servers.check_writing(client.get_json("metadata"))


def _waveforms(settings: Settings) -> Iterable[Check]:
    folder = settings.waveforms.folder
    if folder is None:
        yield ok("waveforms", "no archive; ECGs come inline or through the FHIR server")
    elif folder.is_dir():
        yield ok("waveforms", f"archive at {folder}")
    else:
        yield failed("waveforms", f"{folder} is not a folder", "mount the archive or unset waveforms.folder")


def _images(settings: Settings) -> Iterable[Check]:
    images = settings.images
    if images.kind == "none":
        yield ok("images", "none; scores will say that the X-ray is missing")
    elif images.kind == "folder":
        if images.folder is not None and images.folder.is_dir():
            yield ok("images", f"DICOM folder at {images.folder}")
        else:
            yield failed("images", "images.folder is not a folder", "mount it or set images.kind = 'none'")
    else:
        with pacs_transport(settings, retry=PATIENCE) as client:
            yield from servers.check_pacs(client)
