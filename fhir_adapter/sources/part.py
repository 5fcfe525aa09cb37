"""A part: the piece of a source that one extraction task reads."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self


@dataclass(frozen=True)
class Part:
    """One file's worth of resources of one type.

    Attributes
    ----------
    name
        Unique in the plan; usable as a folder name.
    resource_type
        FHIR type of every line.
    locator
        What the source needs to find it again; JSON-ready, no secrets.
    """

    name: str
    resource_type: str
    locator: dict[str, Any]

    @property
    def file(self) -> str:
        """Name shown as ``source_file``."""
        return str(self.locator.get("file", self.name))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Build a part from :meth:`to_dict`'s result."""
        return cls(**fields)


class Source(Protocol):
    """Where resources come from."""

    def plan(self, resource_types: list[str]) -> list[Part]:
        """Return the parts of these types in a fixed order."""

    def materialise(self, part: Part, folder: Path) -> Path:
        """Return a local NDJSON file with the part's resources."""


def slug(text: str) -> str:
    """Return a name that is safe as a folder, unique for distinct relative paths.

    Examples
    --------
    >>> slug("ward/Observation.000.ndjson")
    'ward__Observation.000.ndjson'
    """
    return re.sub(r"[^A-Za-z0-9._-]", "_", text.replace("/", "__"))
