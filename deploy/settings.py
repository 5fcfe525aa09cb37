"""One typed settings object for a site: TOML file, then environment, then command line.

The file is named by ``NIGHTINGALE_CONFIG``; any field can be set by the environment as
``NIGHTINGALE_<SECTION>__<FIELD>`` (for example ``NIGHTINGALE_SOURCE__BASE_URL``). Secrets are never
fields: a field ending in ``_env`` names the environment variable that holds the secret, and
``private_key_file`` names a file, so that no secret stands in a file of settings or in a log.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from deploy.alerts.settings import Alerts
from deploy.errors import SettingsError
from deploy.model_settings import Monitoring, Promotion, Retraining

CONFIG_VARIABLE = "NIGHTINGALE_CONFIG"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Site(_Section):
    """Who we are, and the clock we live by."""

    name: str = Field(
        "demo-hospital",
        pattern=r"^[a-z0-9][a-z0-9-]{0,40}$",
        description="Short name; part of every score's key.",
    )
    uri: str = Field(
        "https://nightingale.invalid", description="Base URI of the site's identifiers and codes."
    )
    time_zone: str = Field("Europe/Berlin", description="IANA zone of the ward clocks and of the schedule.")
    assume_zone: str | None = Field(
        None, description="Zone for times that carry none; unset, such times go to quarantine."
    )
    subject_identifier_system: str | None = Field(
        None,
        description="Identifier system whose integer value becomes subject_id; unset, the FHIR id is hashed.",
    )
    codes: Path | None = Field(
        None,
        description="CSV file of the site's own codings of catalogue features (feature, system, code, label, unit, "
        "priority); see docs/add_a_feature.md.",
    )
    data_note: str | None = Field(
        None, description="A sentence shown on every report, such as 'synthetic data'."
    )
    patients_in_report: bool = Field(
        False,
        description="Also write report/patients.html: every encounter's score. It stays in the run folder, "
        "readable by its owner alone, and is never posted; the report itself never names a patient.",
    )

    @field_validator("time_zone", "assume_zone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        if value is not None:
            ZoneInfo(value)
        return value

    @property
    def zone(self) -> ZoneInfo:
        """The site's zone."""
        return ZoneInfo(self.time_zone)


class Auth(_Section):
    """How to prove who we are to a server."""

    kind: Literal["none", "basic", "bearer", "smart"] = Field("none", description="Way of authentication.")
    user: str | None = Field(None, description="User name for basic.")
    password_env: str | None = Field(None, description="Environment variable with the password for basic.")
    token_env: str | None = Field(None, description="Environment variable with a static bearer token.")
    connection: str | None = Field(
        None,
        description="Airflow connection whose password is the secret, in place of password_env or token_env; "
        "Airflow looks in its secrets backends first.",
    )
    client_id: str | None = Field(None, description="SMART Backend Services client id.")
    private_key_file: Path | None = Field(None, description="PEM or JWKS file for SMART Backend Services.")
    scopes: str | None = Field(None, description="Scopes to ask for; unset, the least that the source needs.")


class Source(_Section):
    """Where FHIR resources come from."""

    kind: Literal["folder", "search", "bulk"] = Field(
        "folder", description="NDJSON folder, FHIR search or $export."
    )
    folder: Path | None = Field(None, description="Folder of .ndjson or .ndjson.gz files.")
    base_url: str | None = Field(None, description="Base address of the FHIR R4 server.")
    auth: Auth = Field(default_factory=Auth, description="Authentication at the FHIR server.")
    group: str | None = Field(None, description="Group id for $export.")
    page_size: int = Field(500, ge=1, le=10_000, description="_count asked for in searches.")
    lookback_days: int | None = Field(
        None, ge=1, description="Ask only for resources changed in this many days before the prediction time."
    )
    slice_hours: int | None = Field(
        None,
        ge=1,
        description="With lookback_days: search so many hours of _lastUpdated at a time, side by side.",
    )
    queries: dict[str, dict[str, str | list[str]]] = Field(
        default_factory=dict,
        description="Search parameters by resource type, such as Encounter.class = 'IMP'.",
    )
    max_line_bytes: int = Field(
        8_000_000, ge=10_000, description="Longest NDJSON line or attachment JSON accepted."
    )
    extra_headers: dict[str, str] = Field(
        default_factory=dict, description="Headers that the vendor asks for."
    )
    allowed_origins: list[str] = Field(
        default_factory=list,
        description="Further origins that export files and attachments may come from, such as "
        "'https://files.hospital.example'; they never get a token.",
    )
    ca_bundle: Path | None = Field(None, description="CA bundle of the hospital's own authority.")
    proxy: str | None = Field(None, description="HTTP proxy.")

    @model_validator(mode="after")
    def _complete(self) -> Source:
        if self.kind == "folder" and self.folder is None:
            raise ValueError("source.kind = 'folder' needs source.folder")
        if self.kind != "folder" and not self.base_url:
            raise ValueError(f"source.kind = '{self.kind}' needs source.base_url")
        if self.slice_hours and not self.lookback_days:
            raise ValueError("source.slice_hours needs source.lookback_days")
        return self


class Waveforms(_Section):
    """Where ECG files lie that attachments point to."""

    folder: Path | None = Field(
        None, description="Root of the WFDB archive; attachment URLs are relative to it."
    )


class Images(_Section):
    """Where chest X-rays lie."""

    kind: Literal["none", "folder", "dicomweb"] = Field(
        "none", description="No images, a DICOM folder, or DICOMweb."
    )
    folder: Path | None = Field(None, description="Root of <study>/<series>/<instance>.dcm.")
    base_url: str | None = Field(None, description="DICOMweb base address.")
    auth: Auth = Field(default_factory=Auth, description="Authentication at the PACS.")


class Destination(_Section):
    """Where scores go."""

    kind: Literal["ndjson", "fhir"] = Field(
        "ndjson", description="NDJSON files in a folder, or a FHIR server."
    )
    folder: Path = Field(
        Path("var/written"), description="For kind = 'ndjson': files go to <folder>/<site>/<partition>/."
    )
    base_url: str | None = Field(None, description="Base address of the FHIR R4 server; unset, the source's.")
    auth: Auth = Field(default_factory=Auth, description="Authentication at the FHIR server.")
    bundle_size: int = Field(100, ge=1, le=500, description="Resources a batch Bundle.")
    transparency_profiles: bool = Field(
        True, description="Write Device, Provenance and model card after HL7's AI Transparency drafts."
    )
    report: Literal["none", "counts", "counts-and-page"] = Field(
        "none",
        description="Also write the morning report there: its counts as a MeasureReport, its page as a "
        "DocumentReference.",
    )


class Storage(_Section):
    """Where Nightingale keeps its own things."""

    runs: Path = Field(Path("var/runs"), description="One folder a night.")
    models: Path = Field(Path("var/models"), description="Trained models.")
    database: str = Field(
        "sqlite:///var/nightingale.sqlite", description="SQLAlchemy URL of ledger, watermarks, history."
    )
    audit: Path = Field(Path("var/audit"), description="Audit log of every FHIR interaction, one file a day.")
    audit_days: int = Field(
        6 * 366, ge=1, description="Days for which the audit log is kept; older files are removed each night."
    )
    audit_patients: Literal["hmac", "plain"] = Field(
        "hmac", description="Whether the audit log names patients by keyed digests, or plainly as BALP does."
    )
    audit_key_env: str | None = Field(
        None,
        description="Environment variable with the digests' key in hexadecimal digits; unset, each process "
        "draws one, and entries of two processes cannot be linked.",
    )
    metrics: Path = Field(
        Path("var/metrics"), description="Folder of the last run's Prometheus metrics (textfile collector)."
    )
    keep_downloads: bool = Field(False, description="Keep the raw NDJSON of a run (it holds patient data).")


class Night(_Section):
    """What is scored every night."""

    task: str = Field("in-hospital-mortality", description="Task of modelling.cohorts.tasks.")
    prediction_at: time = Field(
        time(5, 0), description="Ward-clock time at which the night's data interval ends."
    )
    schedule: str = Field(
        "15 5 * * *", description="Cron of the nightly DAG in the site's zone, after prediction_at."
    )
    deadline: time = Field(time(6, 0), description="When scores must be written.")
    shards: int = Field(4, ge=1, le=4096, description="Number of subject shards.")
    model: Path | None = Field(None, description="Model folder; unset, the shipped weights of the task.")


class Gate(_Section):
    """When the night must stop."""

    quarantined_share: float = Field(
        0.10, gt=0, le=1, description="Share of resources in quarantine above which nothing is written."
    )
    quarantined_share_warning: float = Field(
        0.03, gt=0, le=1, description="Share above which the report warns."
    )
    skipped_share: float = Field(
        0.90, gt=0, le=1, description="Share of skipped encounters above which nothing is written."
    )
    override: str | None = Field(
        None, description="Name and reason of the person who lets a stopped night pass; recorded."
    )


class Settings(BaseSettings):
    """All settings of a site."""

    model_config = SettingsConfigDict(
        env_prefix="NIGHTINGALE_",
        env_nested_delimiter="__",
        extra="ignore",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    site: Site = Field(default_factory=Site)
    source: Source
    waveforms: Waveforms = Field(default_factory=Waveforms)
    images: Images = Field(default_factory=Images)
    destination: Destination = Field(default_factory=Destination)
    storage: Storage = Field(default_factory=Storage)
    night: Night = Field(default_factory=Night)
    gate: Gate = Field(default_factory=Gate)
    retraining: Retraining = Field(default_factory=Retraining)
    promotion: Promotion = Field(default_factory=Promotion)
    monitoring: Monitoring = Field(default_factory=Monitoring)
    alerts: Alerts = Field(default_factory=Alerts)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line first, then the environment, then the TOML file."""
        sources: list[PydanticBaseSettingsSource] = [init_settings, env_settings]
        path = os.environ.get(CONFIG_VARIABLE)
        if path:
            sources.append(TomlConfigSettingsSource(settings_cls, toml_file=path))
        return tuple(sources)

    def prediction_time(self, night: date) -> datetime:
        """Return the end of a night's data interval, in the site's zone."""
        return datetime.combine(night, self.night.prediction_at, tzinfo=self.site.zone)


@contextmanager
def configured(path: Path | None) -> Iterator[None]:
    """Let ``NIGHTINGALE_CONFIG`` name a file for a while; None changes nothing."""
    before = os.environ.get(CONFIG_VARIABLE)
    if path is not None:
        os.environ[CONFIG_VARIABLE] = str(path)
    try:
        yield
    finally:
        if before is not None:
            os.environ[CONFIG_VARIABLE] = before
        elif path is not None:
            os.environ.pop(CONFIG_VARIABLE, None)


def load_settings(path: Path | None = None, **overrides: Any) -> Settings:
    """Read settings from a TOML file, the environment and keyword overrides.

    Parameters
    ----------
    path
        TOML file; unset, ``NIGHTINGALE_CONFIG``.
    overrides
        Sections as dicts, which win over everything.

    Raises
    ------
    SettingsError
        With one line a wrong field: its name and what is expected, never the value.
    """
    if path is not None and not path.is_file():
        raise SettingsError(f"no settings file at {path}; `nightingale init` writes one")
    try:
        with configured(path):
            return Settings(**overrides)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(str(part) for part in e['loc'])}: {e['msg']}"
            for e in error.errors(include_input=False)
        ]
        raise SettingsError("the settings are not complete or not valid:\n" + "\n".join(lines)) from None


def parse_replay(text: str) -> timedelta:
    """Read a replay clock such as ``icu+48h``: the prediction time lies that long after ICU admission.

    Examples
    --------
    >>> parse_replay("icu+48h")
    datetime.timedelta(days=2)
    """
    anchor, _, offset = text.partition("+")
    number, unit = offset[:-1], offset[-1:]
    if anchor != "icu" or unit not in {"h", "d"} or not number.isdigit() or int(number) == 0:
        raise SettingsError(f"replay {text!r} is not of the form icu+48h or icu+2d")
    return timedelta(hours=int(number)) if unit == "h" else timedelta(days=int(number))
