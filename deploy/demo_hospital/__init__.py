"""A synthetic hospital for demo and tests: FHIR NDJSON, WFDB ECGs, DICOM radiographs, planted faults."""

from deploy.demo_hospital.build import build_hospital
from deploy.demo_hospital.summary import HospitalSummary

__all__ = ["HospitalSummary", "build_hospital"]
