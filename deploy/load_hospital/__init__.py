"""A very large synthetic hospital for load tests: streamed, vectorised, the same bytes for the same seed."""

from deploy.load_hospital.build import LoadSummary, build_load_hospital

__all__ = ["LoadSummary", "build_load_hospital"]
