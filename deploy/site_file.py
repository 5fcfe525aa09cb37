"""A settings file for a site whose data lie in one folder: the demo's, and those of paired open data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_site(
    path: Path, *, root: Path, hospital: Path, name: str, note: str, **sections: dict[str, Any]
) -> Path:
    """Write a commented TOML settings file and return it.

    Parameters
    ----------
    path
        The file.
    root
        Folder of what the site writes: runs, models, database and written files go below it.
    hospital
        Folder with ``fhir/``, ``wfdb/`` and ``dicom/``.
    name, note
        Short name of the site, and the sentence on its reports.
    sections
        Fields that replace or add to those of a section, such as ``night={"model": ...}``.
    """
    root, hospital = root.resolve(), hospital.resolve()
    fields: dict[str, dict[str, Any]] = {
        "site": {"name": name, "uri": f"https://{name}.invalid", "data_note": note},
        "source": {"kind": "folder", "folder": hospital / "fhir"},
        "waveforms": {"folder": hospital / "wfdb"},
        "images": {"kind": "folder", "folder": hospital / "dicom"},
        "destination": {"kind": "ndjson", "folder": root / "written"},
        "storage": {
            "runs": root / "runs",
            "models": root / "models",
            "audit": root / "audit",
            "metrics": root / "metrics",
            "database": f"sqlite:///{root / 'nightingale.sqlite'}",
        },
    }
    for section, values in sections.items():
        fields[section] = fields.get(section, {}) | values
        fields[section] = {key: value for key, value in fields[section].items() if value is not None}
    lines = ["# Written by Nightingale; every field is described in docs/configuration.md."]
    for section, values in fields.items():
        lines += ["", f"[{section}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(str(value))  # a JSON string is a TOML basic string
