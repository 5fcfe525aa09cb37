"""The audit log of a site's FHIR interactions, opened and cut to length as the settings say."""

from __future__ import annotations

import os
from datetime import date, timedelta
from socket import gethostname
from typing import Any

from deploy.errors import SettingsError
from deploy.settings import Settings
from fhir_adapter.audit import AuditLog, Identity, prune


def audit_key(variable: str) -> bytes:
    """Return the key of the digests.

    Raises
    ------
    SettingsError
        If the environment variable holds no hexadecimal digits.
    """
    try:
        key = bytes.fromhex(os.environ[variable])
    except (KeyError, ValueError):
        key = b""
    if not key:
        raise SettingsError(f"{variable} must hold the audit log's key in hexadecimal digits")
    return key


def audit_log(settings: Settings) -> AuditLog:
    """Return the log to which every client of a server of the site writes.

    Raises
    ------
    SettingsError
        If ``storage.audit_key_env`` names a variable without a key.
    """
    site, storage = settings.site, settings.storage
    identity = Identity(
        system=f"{site.uri}/fhir/identifier/installation", value=site.name, site=site.name, host=gethostname()
    )
    fields: dict[str, Any] = {"key": audit_key(storage.audit_key_env)} if storage.audit_key_env else {}
    return AuditLog(storage.audit, identity, patients=storage.audit_patients, **fields)


def prune_audit(settings: Settings, *, today: date) -> int:
    """Remove days older than ``storage.audit_days``; return how many."""
    return prune(settings.storage.audit, keep=timedelta(days=settings.storage.audit_days), today=today)
