"""Where FHIR resources come from: a folder, a search, a bulk export; one interface for all."""

from fhir_adapter.sources.bulk import BulkSource, PollPolicy
from fhir_adapter.sources.folder import FolderSource
from fhir_adapter.sources.part import Part, Source
from fhir_adapter.sources.search import SearchSource

__all__ = ["BulkSource", "FolderSource", "Part", "PollPolicy", "SearchSource", "Source"]
