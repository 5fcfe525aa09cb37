"""The site's servers and archives, opened as the settings say."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Engine

from deploy.errors import SettingsError
from deploy.night.auditing import audit_log
from deploy.night.run import Run
from deploy.settings import Auth, Settings
from fhir_adapter.images.archive import FolderArchive, ImageArchive
from fhir_adapter.images.dicomweb import DicomWebArchive
from fhir_adapter.smart import BackendServices, BasicAuth, BearerToken, least_scopes, load_key
from fhir_adapter.sources import BulkSource, FolderSource, SearchSource
from fhir_adapter.sources.part import Source
from fhir_adapter.store import Watermarks, open_engine, upgrade
from fhir_adapter.transport import Auth as Credentials
from fhir_adapter.transport import RetryPolicy, Transport
from fhir_adapter.waveforms.archive import WaveformArchive

READ_TYPES = (
    "Patient",
    "Encounter",
    "Observation",
    "DocumentReference",
    "ImagingStudy",
)
WRITE_TYPES = ("RiskAssessment", "Device", "Provenance", "DocumentReference")


def secret(variable: str | None, field: str, *, connection: str | None = None) -> str:
    """Return the secret of an Airflow connection, or that an environment variable holds.

    Raises
    ------
    SettingsError
        If the setting names no variable or the variable is empty, or Airflow has no such connection.
    """
    if connection:
        return connection_password(connection, field)
    value = os.environ.get(variable) if variable else None
    if not value:
        raise SettingsError(
            f"{field}: set it to the name of an environment variable, and set that variable to the secret"
        )
    return value


def connection_password(name: str, field: str) -> str:
    """Return the password of an Airflow connection: from a secrets backend, the environment or its database.

    Raises
    ------
    SettingsError
        If there is none.
    """
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        password = Connection.get(name).password
    except AirflowNotFoundException:
        password = None
    if not password:
        raise SettingsError(f"{field}: Airflow has no connection {name!r} with a password")
    return str(password)


def credentials(
    auth: Auth, base_url: str, settings: Settings, *, section: str, scopes: str
) -> Credentials | None:
    """Return what proves who we are to a server, or None where it asks for nothing.

    Parameters
    ----------
    auth
        The server's ``auth`` section.
    section
        Its name, for messages.
    scopes
        Least scopes, where the site sets none.

    Raises
    ------
    SettingsError
        If a field that the kind needs is unset.
    """
    if auth.kind == "none":
        return None
    if auth.kind == "basic":
        if not auth.user:
            raise SettingsError(f"{section}.auth.user: needed for kind = 'basic'")
        return BasicAuth(
            auth.user, secret(auth.password_env, f"{section}.auth.password_env", connection=auth.connection)
        )
    if auth.kind == "bearer":
        return BearerToken(secret(auth.token_env, f"{section}.auth.token_env", connection=auth.connection))
    if not auth.client_id or auth.private_key_file is None:
        raise SettingsError(f"{section}.auth: kind = 'smart' needs client_id and private_key_file")
    return BackendServices(
        base_url=base_url,
        client_id=auth.client_id,
        key=load_key(auth.private_key_file),
        scopes=auth.scopes or scopes,
        open_transport=lambda url: Transport(
            url, ca_bundle=settings.source.ca_bundle, proxy=settings.source.proxy
        ),
    )


def source_transport(settings: Settings, *, retry: RetryPolicy | None = None) -> Transport:
    """Open a client of the FHIR server that is read; every interaction is audited.

    Raises
    ------
    SettingsError
        If the source is a folder.
    """
    source = settings.source
    if not source.base_url:
        raise SettingsError("source.base_url: needed to read from a FHIR server")
    return Transport(
        source.base_url,
        auth=credentials(
            source.auth, source.base_url, settings, section="source", scopes=least_scopes(read=READ_TYPES)
        ),
        extra_headers=source.extra_headers,
        allowed_origins=source.allowed_origins,
        ca_bundle=source.ca_bundle,
        proxy=source.proxy,
        audit=audit_log(settings),
        retry=retry,
    )


def destination_transport(settings: Settings, *, retry: RetryPolicy | None = None) -> Transport:
    """Open a client of the FHIR server that is written to; every interaction is audited.

    Raises
    ------
    SettingsError
        If neither destination nor source names a server.
    """
    base = settings.destination.base_url or settings.source.base_url
    if not base:
        raise SettingsError("destination.base_url: needed for destination.kind = 'fhir'")
    written = WRITE_TYPES if settings.destination.report == "none" else (*WRITE_TYPES, "MeasureReport")
    auth = settings.destination.auth
    if settings.destination.base_url is None and auth.kind == "none":
        auth = settings.source.auth  # one server for both: one way to prove who we are
    return Transport(
        base,
        auth=credentials(
            auth,
            base,
            settings,
            section="destination",
            scopes=least_scopes(read=WRITE_TYPES, write=written),
        ),
        extra_headers=settings.source.extra_headers if settings.destination.base_url is None else {},
        ca_bundle=settings.source.ca_bundle,
        proxy=settings.source.proxy,
        audit=audit_log(settings),
        retry=retry,
    )


def open_source(settings: Settings, run: Run) -> Source:
    """Return where resources come from: a folder, searches, or an export."""
    source = settings.source
    if source.kind == "folder":
        assert source.folder is not None  # noqa: S101 - the settings demand it
        return FolderSource(source.folder)
    transport = source_transport(settings)
    moment = run.moment
    since = moment - timedelta(days=source.lookback_days) if moment and source.lookback_days else None
    if source.kind == "search":
        return SearchSource(
            transport,
            queries=source.queries,
            page_size=source.page_size,
            since=since,
            until=moment,
            slice_length=timedelta(hours=source.slice_hours) if source.slice_hours else None,
        )
    return BulkSource(
        transport,
        folder=export_folder(settings, run),
        resource_types=list(READ_TYPES),
        group=source.group,
        since=since,
    )


def export_folder(settings: Settings, run: Run) -> Path:
    """Return where an export's state and files lie: outside the run folder, so that a new try takes it up."""
    return (settings.storage.runs / settings.site.name / "exports" / run.partition).resolve()


def source_name(settings: Settings) -> str:
    """Return the name under which pulls of this source are remembered."""
    return str(settings.source.base_url or (settings.source.folder or Path()).resolve())


def waveform_archive(settings: Settings) -> WaveformArchive:
    """Return where attachment addresses lead."""
    transport = source_transport(settings) if settings.source.base_url else None
    return WaveformArchive(settings.waveforms.folder, transport=transport)


def pacs_transport(settings: Settings, *, retry: RetryPolicy | None = None) -> Transport:
    """Open a client of the PACS; every interaction is audited.

    Raises
    ------
    SettingsError
        If no address is set.
    """
    images = settings.images
    if not images.base_url:
        raise SettingsError("images.base_url: needed for images.kind = 'dicomweb'")
    return Transport(
        images.base_url,
        auth=credentials(images.auth, images.base_url, settings, section="images", scopes="system/*.read"),
        ca_bundle=settings.source.ca_bundle,
        proxy=settings.source.proxy,
        audit=audit_log(settings),
        retry=retry,
    )


def image_archive(settings: Settings) -> ImageArchive | None:
    """Return where DICOM objects lie, or None where the site has no images."""
    images = settings.images
    if images.kind == "folder":
        if images.folder is None:
            raise SettingsError("images.folder: needed for images.kind = 'folder'")
        return FolderArchive(images.folder)
    if images.kind == "dicomweb":
        return DicomWebArchive(pacs_transport(settings))
    return None


def database(settings: Settings) -> Engine:
    """Open the site's database, brought up to date."""
    engine = open_engine(settings.storage.database)
    upgrade(engine)
    return engine


def watermarks(settings: Settings, engine: Engine) -> Watermarks:
    """Return the marks of this source's complete pulls."""
    return Watermarks(engine, source_name(settings))
