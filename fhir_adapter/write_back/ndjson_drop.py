"""A folder of NDJSON files as destination, for sites where nothing can be written over HTTP.

One file a type and partition, ``RiskAssessment.2026-01-19.ndjson``, replaced as a whole: temporary name,
fsync, rename. Who collects the files takes each resource by its id or identifier, so that a file read
twice changes nothing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fhir_adapter.write_back.canonical import canonical
from fhir_adapter.write_back.item import Key
from fhir_adapter.write_back.preparation import key_of


class NdjsonDrop:
    """A folder that scores are written into.

    Parameters
    ----------
    folder
        Made if it is missing.
    """

    kind = "ndjson"

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.requests = 0

    @property
    def key(self) -> str:
        """Name of the destination in the ledger."""
        return f"{self.kind}:{self.folder}"

    def path(self, resource_type: str, partition: str) -> Path:
        """Return the file of a type and partition."""
        return self.folder / f"{resource_type}.{re.sub(r'[^A-Za-z0-9.+-]', '-', partition)}.ndjson"

    def write(self, resource_type: str, partition: str, resources: Sequence[Mapping[str, Any]]) -> bool:
        """Write a file unless it holds exactly this already; return whether it was written."""
        path = self.path(resource_type, partition)
        content = b"".join(canonical(item) + b"\n" for item in resources)
        if path.is_file() and path.read_bytes() == content:
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        self.requests += 1
        return True

    def read(self, resource_type: str, partition: str) -> dict[Key, dict[str, Any]]:
        """Return the resources of a file by type and id; none where there is no file."""
        path = self.path(resource_type, partition)
        if not path.is_file():
            return {}
        found = (json.loads(line) for line in path.read_bytes().splitlines() if line)
        return {key_of(item): item for item in found}

    def partitions(self, resource_type: str) -> Iterator[str]:
        """Yield the partitions, as they stand in file names, that have a file of a type."""
        for path in sorted(self.folder.glob(f"{resource_type}.*.ndjson")):
            yield path.name.removeprefix(f"{resource_type}.").removesuffix(".ndjson")
