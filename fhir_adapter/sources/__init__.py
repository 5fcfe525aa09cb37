"""Where FHIR resources come from: a folder, a search, a bulk export; one interface for all."""

from fhir_adapter.sources.folder import FolderSource
from fhir_adapter.sources.part import Part, Source

__all__ = ["FolderSource", "Part", "Source"]
