"""A synthetic hospital for demo and tests: FHIR NDJSON, WFDB ECGs, DICOM radiographs, planted faults."""

from deploy.demo_hospital.build import HospitalSummary, build_hospital

__all__ = ["HospitalSummary", "build_hospital"]
