"""What the adapter keeps in SQL: watermarks of the reading side, the ledger of the writing side."""

from fhir_adapter.store.base import Base, open_engine, upgrade
from fhir_adapter.store.ledger import Entry, Ledger, Settled, State
from fhir_adapter.store.watermarks import Watermark, Watermarks

__all__ = [
    "Base",
    "Entry",
    "Ledger",
    "Settled",
    "State",
    "Watermark",
    "Watermarks",
    "open_engine",
    "upgrade",
]
