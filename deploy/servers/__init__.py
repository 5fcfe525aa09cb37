"""Launchers of real servers for tests and for ``make demo FHIR=hapi``: start, wait, stop exactly those."""

from deploy.servers.hapi import HapiServer
from deploy.servers.loading import LoadSummary, load_hospital
from deploy.servers.orthanc import Orthanc
from deploy.servers.postgresql import PostgreSQL
from deploy.servers.prerequisites import Prerequisite, prerequisites, require
from deploy.servers.validator import Issue, ValidationResult, validate, validate_resources

__all__ = [
    "HapiServer",
    "Issue",
    "LoadSummary",
    "Orthanc",
    "PostgreSQL",
    "Prerequisite",
    "ValidationResult",
    "load_hospital",
    "prerequisites",
    "require",
    "validate",
    "validate_resources",
]
