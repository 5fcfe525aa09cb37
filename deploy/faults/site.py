"""A small site to spoil: a demo hospital behind a loopback server, and nights over it.

The night is the project's own (:mod:`deploy.night.steps`); only the address of the hospital and the clock of
the transports are not a hospital's.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

from deploy.demo_hospital import build_hospital
from deploy.faults import pacs
from deploy.faults.clock import VirtualClock, virtual_time
from deploy.faults.fhir_server import FhirServer
from deploy.faults.killed_night import short_night
from deploy.faults.loopback import Answer, Request, serving
from deploy.faults.menu import Fault, Saboteur
from deploy.faults.pacs import Pacs
from deploy.faults.remote import RemoteServer
from deploy.faults.store import Resource, ResourceStore
from deploy.faults.tokens import TokenServer
from deploy.night.local import run_night
from deploy.night.run import Run, plan_run
from deploy.servers.loading import load_hospital
from deploy.settings import CONFIG_VARIABLE, load_settings

NIGHT = date(2026, 1, 15)
PATIENTS = 24
PACE = 12.0
CLIENT_ID = "nightingale-faults"
LOADED = datetime.fromisoformat("2026-01-15T03:00:00+00:00")
READ = ("Patient", "Encounter", "Observation", "DocumentReference", "ImagingStudy")
SCORE = "RiskAssessment"
Reading = Literal["search", "bulk", "folder"]


@dataclass(frozen=True)
class Hospital:
    """A demo hospital on disk and as a server holds it; built once, copied for each case.

    Attributes
    ----------
    folder
        What :func:`deploy.demo_hospital.build_hospital` wrote.
    store
        Its FHIR resources.
    images
        Its radiographs.
    """

    folder: Path
    store: ResourceStore
    images: Pacs

    @classmethod
    def build(cls, folder: Path, *, patients: int = PATIENTS) -> Hospital:
        """Build the hospital and load it."""
        if not (folder / "hospital.json").is_file():
            build_hospital(folder, patients=patients, night=NIGHT, history=False, pace=PACE)
        store = ResourceStore(lambda: LOADED)
        with serving(FhirServer(store, VirtualClock()).handle) as base:
            load_hospital(folder, fhir_base=f"{base}/fhir", attachments="binary")
        return cls(folder, store, Pacs(folder / "dicom"))


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """How a site is connected.

    Attributes
    ----------
    name
        Of the site; part of every score's key.
    reading
        Search, bulk export, or the folder itself.
    writing
        To the server, or as NDJSON files.
    signing
        Key of a SMART client, and its algorithm; None for a server that asks for nothing.
    images
        Whether radiographs are read; decoding them costs a process.
    shards
        Into how many shards subjects are split: two where a night dies between them, else one, which is faster.
    source, settings
        Further lines of the settings file's ``[source]`` and ``[night]`` sections.
    """

    name: str = "fault-ward"
    reading: Reading = "search"
    writing: Literal["fhir", "ndjson"] = "fhir"
    signing: tuple[Any, str, Path] | None = None
    images: bool = False
    shards: int = 1
    source: str = ""
    settings: str = ""


@dataclass
class Site:
    """One site in a folder of its own, with its server running.

    Attributes
    ----------
    folder
        Settings, database and runs.
    server
        The server as it would be without faults.
    saboteur
        Stands before it.
    remote, name
        The real server behind the saboteur, if any, and the site's name.
    elsewhere
        Requests that reached another origin, with their headers; there should never be one with a token.
    """

    folder: Path
    hospital: Hospital
    clock: VirtualClock
    server: FhirServer
    saboteur: Saboteur
    base: str
    other: str
    remote: RemoteServer | None = None
    name: str = ""
    elsewhere: list[Request] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def store(self) -> ResourceStore:
        """The server's resources."""
        return self.server.store

    @property
    def run(self) -> Run:
        """Tonight's run."""
        return plan_run(load_settings(), night=NIGHT.isoformat(), replay=None)

    def night(self) -> dict[str, Any]:
        """Run the whole night in this process; return its summary or raise what it raises."""
        return run_night(night=NIGHT.isoformat(), replay=None, watch=lambda stage, done, total: None)

    def short_night(self) -> dict[str, Any]:
        """Run all steps but gate and report, which cost most and never touch a network."""
        return short_night(NIGHT.isoformat())

    def refresh(self) -> None:
        """Look at what a real server holds; scores of other sites are not looked at."""
        if self.remote is None:
            return
        current, written = self.remote.snapshot((*READ, SCORE))
        mine = {
            key
            for key, item in current.items()
            if key[0] != SCORE or item["identifier"][0]["system"].startswith(f"https://{self.name}.invalid/")
        }
        self.store.current = {key: item for key, item in current.items() if key in mine}
        self.store.written = [key for key in written if key[0] == SCORE and key in mine]

    @property
    def written_folder(self) -> Path:
        """Where the NDJSON destination puts its files."""
        return self.folder / "written"


@contextmanager
def open_site(
    hospital: Hospital,
    folder: Path,
    *,
    wiring: Wiring,
    faults: Callable[[VirtualClock], tuple[Fault, ...]],
    prepare: Callable[[Site], None] | None = None,
    remote: RemoteServer | None = None,
) -> Iterator[Site]:
    """Start a site's server with its faults armed, and point the settings at it.

    Parameters
    ----------
    remote
        A real server, loaded with the hospital, in place of our own.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    clock = VirtualClock()
    tokens = None
    if wiring.signing:
        key, algorithm, _ = wiring.signing
        tokens = TokenServer(clock, client_id=CLIENT_ID, key=key.public_key(), algorithm=algorithm)
    server = FhirServer(hospital.store.copy(clock.now), clock, tokens=tokens)

    def handle(request: Request) -> Answer:
        if request.path.startswith(pacs.PREFIX):
            return hospital.images.handle(request)
        return (remote or server).handle(request)

    saboteur = Saboteur(handle, faults(clock))
    elsewhere: list[Request] = []

    def stranger(request: Request) -> Answer:
        elsewhere.append(request)
        return saboteur.handle(request)

    before = os.environ.get(CONFIG_VARIABLE)
    with serving(saboteur) as base, serving(stranger) as other, virtual_time(clock):
        site = Site(folder, hospital, clock, server, saboteur, base, other, remote, wiring.name, elsewhere)
        os.environ[CONFIG_VARIABLE] = str(write_settings(site, wiring))
        try:
            if prepare:
                prepare(site)
            yield site
        finally:
            site.extra.get("restore", lambda: None)()
            if before is None:
                os.environ.pop(CONFIG_VARIABLE, None)
            else:
                os.environ[CONFIG_VARIABLE] = before


def write_settings(site: Site, wiring: Wiring) -> Path:
    """Write the site's settings file."""
    auth = ""
    if wiring.signing:
        fields = f'kind = "smart", client_id = "{CLIENT_ID}", private_key_file = "{wiring.signing[2]}"'
        auth = f"auth = {{ {fields} }}"
    if wiring.reading == "folder":
        source = f'folder = "{site.hospital.folder / "fhir"}"'
        images = f'kind = "folder"\nfolder = "{site.hospital.folder / "dicom"}"'
    else:
        source = f'base_url = "{site.base}/fhir"\npage_size = 100\n{auth}'
        images = f'kind = "dicomweb"\nbase_url = "{site.base}{pacs.PREFIX}"'
    if not wiring.images:
        images = 'kind = "none"'
    destination = f'base_url = "{site.base}/fhir"\nbundle_size = 4\n{auth}'
    if wiring.writing == "ndjson":
        destination = f'folder = "{site.written_folder}"'
    text = f"""[site]
name = "{wiring.name}"
uri = "https://{wiring.name}.invalid"
data_note = "synthetic data"

[source]
kind = "{wiring.reading}"
{source}
{wiring.source}

[waveforms]
folder = "{site.hospital.folder / "wfdb"}"

[images]
{images}

[destination]
kind = "{wiring.writing}"
{destination}

[storage]
runs = "{site.folder / "runs"}"
models = "{site.folder / "models"}"
audit = "{site.folder / "audit"}"
database = "sqlite:///{site.folder / "nightingale.sqlite"}"

[night]
shards = {wiring.shards}
{wiring.settings}
"""
    path = site.folder / "nightingale.toml"
    path.write_text(text, encoding="utf-8")
    return path


def change(store: ResourceStore, kind: str, number: int, edit: Callable[[Resource], Resource]) -> str:
    """Change the n-th resource of a type before the night; return its id."""
    keys = sorted(name for each, name in store.current if each == kind)
    resource = store.current[kind, keys[number]]
    store.current[kind, keys[number]] = edit(resource)
    return keys[number]
