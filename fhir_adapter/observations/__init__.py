"""FHIR Observations to rows of the ``observations`` table: a columnar path and an exact one."""

from fhir_adapter.observations.reader import BlockReading, read_block

__all__ = ["BlockReading", "read_block"]
