"""A folder tree of NDJSON files, as Bulk Data exports and MIMIC-IV on FHIR come."""

from __future__ import annotations

import json
import re
from pathlib import Path

from fhir_adapter.errors import SourceError
from fhir_adapter.ndjson import read_blocks
from fhir_adapter.sources.part import Part, slug

SUFFIXES = (".ndjson", ".ndjson.gz")
PROBE_BYTES = 1_000_000


class FolderSource:
    """Reads ``*.ndjson`` and ``*.ndjson.gz`` below a root; links that lead out of it are not followed.

    The type of a file is that of its first readable line; a file whose lines are all unreadable counts by
    the type in its name, so that it is read and quarantined rather than passed over.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def plan(self, resource_types: list[str]) -> list[Part]:
        """Return one part a file of the given types, sorted by type and path.

        Raises
        ------
        SourceError
            If the folder does not exist, or two paths give one name.
        """
        if not self._root.is_dir():
            raise SourceError(f"the source folder {self._root} does not exist")
        parts = []
        for path in sorted(self._root.rglob("*")):
            if not path.name.endswith(SUFFIXES) or not path.is_file():
                continue
            if not path.resolve().is_relative_to(self._root):
                continue
            kind = _file_type(path, resource_types)
            if kind in resource_types:
                relative = path.relative_to(self._root).as_posix()
                parts.append(Part(slug(relative), kind, {"file": relative}))
        names = [part.name for part in parts]
        if len(set(names)) != len(names):
            raise SourceError("two files of the source folder have names that cannot be told apart")
        order = {kind: number for number, kind in enumerate(resource_types)}
        return sorted(parts, key=lambda part: (order[part.resource_type], part.name))

    def materialise(self, part: Part, folder: Path) -> Path:
        """Return the file itself: it is local already.

        Raises
        ------
        SourceError
            If the part's path leaves the root or the file is gone.
        """
        del folder
        path = (self._root / part.locator["file"]).resolve()
        if not path.is_relative_to(self._root) or not path.is_file():
            raise SourceError(f"part {part.name} is not in the source folder")
        return path


def _file_type(path: Path, resource_types: list[str]) -> str | None:
    """Return the resource type of a file, from its lines or else from its name."""
    for block in read_blocks(path, block_bytes=PROBE_BYTES):
        for line in block.lines:
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue
            kind = value.get("resourceType") if isinstance(value, dict) else None
            if isinstance(kind, str) and kind != "OperationOutcome":
                return kind
        break
    words = re.findall(r"[A-Z][a-z]+", path.name)
    named = [kind for kind in resource_types if kind in path.name or kind in "".join(words)]
    return max(named, key=len) if named else None
