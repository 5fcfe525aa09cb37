"""A retraining: its name, its folder, and what its steps leave there."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from deploy.errors import SettingsError
from deploy.night.run import Run
from deploy.settings import Settings

REPLAY = "icu+48h"
"""Names the run that maps the history; training chooses its own prediction times."""


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """One retraining; small and JSON-ready, so that it can travel through XCom.

    Attributes
    ----------
    version
        Version of the data: the asset partition key, or a digest of the source's files.
    folder
        Where everything of it lies. The same version goes on there after a kill.
    mapped
        Folder of tables that are mapped already, or None for FHIR, which is mapped first.
    source
        Folder of NDJSON to map instead of the site's own source, or None.
    """

    version: str
    folder: str
    mapped: str | None
    source: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Build from :meth:`to_dict`'s result."""
        return cls(**fields)

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self.folder)

    @property
    def run(self) -> Run:
        """The run that maps the history with the night's own steps."""
        return Run(
            partition=self.version, prediction_time=None, replay=REPLAY, folder=str(self.path / "history")
        )

    def model_folder(self, task: str, model: str) -> Path:
        """Return where a candidate is trained."""
        return self.path / "models" / task / model

    def note(self, stage: str, done: int, total: int | None = None) -> None:
        """Append one line for whoever watches; it carries counts, never data."""
        line = json.dumps({"stage": stage, "done": done, "total": total, "note": ""})
        with (self.path / "progress.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def plan_retraining(settings: Settings, *, version: str | None) -> Retraining:
    """Name a retraining without touching the disk.

    Parameters
    ----------
    version
        Version of the data; None derives it from names, sizes and times of the source's files.

    Raises
    ------
    SettingsError
        If the data folder does not exist, or a version is needed because the source is a server.
    """
    data = settings.retraining.data
    if data is not None and not data.is_dir():
        raise SettingsError(f"retraining.data: no folder {data}")
    mapped = data if data is not None and (data / "encounters.parquet").is_file() else None
    source = data if mapped is None else None
    if version is None:
        root = data or settings.source.folder
        if root is None:
            raise SettingsError(
                "retraining from a server needs a name for the data: --version, or the asset's partition"
            )
        version = f"data-{_listing_digest(root)[:12]}"
    if not version.replace("-", "").replace("_", "").replace(".", "").isalnum() or version.startswith("."):
        raise SettingsError("a data version may hold letters, digits, '-', '_' and '.' only")
    folder = settings.storage.models / "training" / settings.site.name / version
    return Retraining(
        version=version,
        folder=str(folder.resolve()),
        mapped=None if mapped is None else str(mapped.resolve()),
        source=None if source is None else str(source.resolve()),
    )


def _listing_digest(root: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file():
            stat = path.stat()
            digest.update(f"{path.relative_to(root)}|{stat.st_size}|{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def history_settings(settings: Settings, job: Retraining) -> Settings:
    """Return the settings under which the history is read: the site's, or those of the data folder."""
    if job.source is None:
        return settings
    folder = Path(job.source)
    inner = folder / "fhir"
    given: dict[str, Any] = {
        "source": settings.source.model_copy(
            update={"kind": "folder", "folder": inner if inner.is_dir() else folder, "base_url": None}
        )
    }
    if (folder / "wfdb").is_dir():
        given["waveforms"] = settings.waveforms.model_copy(update={"folder": folder / "wfdb"})
    if (folder / "dicom").is_dir():
        given["images"] = settings.images.model_copy(
            update={"kind": "folder", "folder": folder / "dicom", "base_url": None}
        )
    return settings.model_copy(update=given)
