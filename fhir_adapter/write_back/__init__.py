"""Scores as FHIR resources, and their way to a server or a folder exactly once."""

from fhir_adapter.store.ledger import Ledger
from fhir_adapter.write_back.build import build_resources
from fhir_adapter.write_back.delivery import Destination, deliver
from fhir_adapter.write_back.model_facts import Coding, ModelFacts, Threshold
from fhir_adapter.write_back.ndjson_drop import NdjsonDrop
from fhir_adapter.write_back.server import FhirServer
from fhir_adapter.write_back.strategy import Strategy
from fhir_adapter.write_back.summary import Reconciliation, WriteSummary
from fhir_adapter.write_back.withdrawal import WithdrawalSummary, withdraw

__all__ = [
    "Coding",
    "Destination",
    "FhirServer",
    "Ledger",
    "ModelFacts",
    "NdjsonDrop",
    "Reconciliation",
    "Strategy",
    "Threshold",
    "WithdrawalSummary",
    "WriteSummary",
    "build_resources",
    "deliver",
    "withdraw",
]
