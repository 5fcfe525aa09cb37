"""HL7's own instance validator, called on files or resources; offline."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.errors import ServerError
from deploy.servers.java_tools import QUICK_START, build_java_tools

VALIDATION_TIMEOUT = 1800.0


@dataclass(frozen=True)
class Issue:
    """One message of the validator. ``line`` counts from 1; ``location`` is a FHIRPath-like place."""

    file: str
    line: int
    severity: str
    location: str | None
    message: str


@dataclass(frozen=True)
class ValidationResult:
    """What the validator found.

    Attributes
    ----------
    resources
        Number of resources looked at.
    errors, warnings
        Issues of severity error or fatal, and warning.
    """

    resources: int
    errors: list[Issue] = field(default_factory=list)
    warnings: list[Issue] = field(default_factory=list)

    def by_file(self) -> dict[str, list[Issue]]:
        """Return errors by file, files without errors left out."""
        found: dict[str, list[Issue]] = {}
        for issue in self.errors:
            found.setdefault(issue.file, []).append(issue)
        return found


def validate(files: Sequence[Path], *, profiles: Sequence[Path] = ()) -> ValidationResult:
    """Validate FHIR R4 JSON and NDJSON files.

    The start costs about five seconds, a resource 10 to 100 ms. Codes of LOINC and SNOMED CT are not checked.

    Parameters
    ----------
    files
        ``.json`` (one resource) or ``.ndjson`` files.
    profiles
        StructureDefinitions, code systems or value sets to load; resources are held to the profiles in
        ``meta.profile`` that are loaded.

    Raises
    ------
    PrerequisiteError
        If Java or Maven is missing.
    ServerError
        If the validator itself fails.
    """
    tools = build_java_tools()
    command = ["java", "-Xmx1g", *QUICK_START, "-cp", tools.classpath, "ValidateFhir"]
    command += [part for path in profiles for part in ("--load", str(path))]
    command += [str(path) for path in files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=VALIDATION_TIMEOUT, check=False)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise ServerError(f"the HL7 validator failed with status {done.returncode}:\n{done.stderr[-2000:]}")
    issues = [Issue(**json.loads(line)) for line in lines[:-1]]
    return ValidationResult(
        resources=json.loads(lines[-1])["resources"],
        errors=[issue for issue in issues if issue.severity in ("error", "fatal")],
        warnings=[issue for issue in issues if issue.severity == "warning"],
    )


def validate_resources(
    resources: Iterable[dict[str, Any]], *, profiles: Sequence[Path] = ()
) -> ValidationResult:
    """Validate resources held in memory; an issue's ``line`` is the resource's number from 1."""
    with tempfile.TemporaryDirectory(prefix="nightingale-validate-") as folder:
        path = Path(folder) / "resources.ndjson"
        path.write_text("".join(json.dumps(item) + "\n" for item in resources), encoding="utf-8")
        return validate([path], profiles=profiles)
