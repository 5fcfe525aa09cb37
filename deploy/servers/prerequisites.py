"""Programs that the optional servers need, what was found, and what to type where one is missing."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import PrerequisiteError

MINIMUM_JAVA = 17
ORTHANC_PLUGINS = Path("/usr/share/orthanc/plugins")
POSTGRESQL_ROOT = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class Prerequisite:
    """A program outside Python.

    Attributes
    ----------
    name
        What it is called.
    found
        Version found, or None.
    needed_for
        What does not work without it.
    remedy
        What to type on Debian or Ubuntu.
    """

    name: str
    found: str | None
    needed_for: str
    remedy: str


def _version(command: list[str], pattern: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(pattern, done.stdout + done.stderr)
    return match[1] if match else None


def java() -> Prerequisite:
    """Return the Java development kit; one older than 17 counts as missing."""
    version = _version(["javac", "-version"], r"javac (\d[\w.]*)")
    usable = version if version and int(version.split(".")[0]) >= MINIMUM_JAVA else None
    return Prerequisite(
        f"JDK {MINIMUM_JAVA} or newer",
        usable,
        "FHIR=hapi, the HL7 validator",
        "apt-get install -y openjdk-17-jdk-headless",
    )


def maven() -> Prerequisite:
    """Return Maven, which downloads HAPI's jars once."""
    return Prerequisite(
        "Maven",
        _version(["mvn", "-B", "--version"], r"Apache Maven (\d[\w.]*)"),
        "FHIR=hapi, the HL7 validator (first use)",
        "apt-get install -y maven",
    )


def orthanc() -> Prerequisite:
    """Return Orthanc with its DICOMweb plugin; one without the other counts as missing."""
    program = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/bin:/usr/local/sbin")
    plugin = any(ORTHANC_PLUGINS.glob("libOrthancDicomWeb*"))
    version = _version([program, "--version"], r"Orthanc (\d[\w.]*)") if program and plugin else None
    return Prerequisite(
        "Orthanc with DICOMweb",
        version,
        "FHIR=hapi (the PACS)",
        "apt-get install -y --no-install-recommends orthanc orthanc-dicomweb",
    )


def postgresql() -> Prerequisite:
    """Return PostgreSQL's server programs; a client alone does not do."""
    programs = sorted(POSTGRESQL_ROOT.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    version = _version([str(programs[-1]), "--version"], r"(\d+\.\d+)") if programs else None
    return Prerequisite(
        "PostgreSQL server", version, "tests of the ledger on PostgreSQL", "apt-get install -y postgresql"
    )


def prerequisites() -> list[Prerequisite]:
    """Return all of them, found or not, for ``nightingale doctor``."""
    return [java(), maven(), orthanc(), postgresql()]


def require(*needed: Prerequisite) -> None:
    """Raise where something is missing.

    Raises
    ------
    PrerequisiteError
        Naming what is missing and what to type.
    """
    missing = [item for item in needed if item.found is None]
    if missing:
        lines = [f"  {item.name}: {item.remedy}" for item in missing]
        raise PrerequisiteError("not found on this machine:\n" + "\n".join(lines))
