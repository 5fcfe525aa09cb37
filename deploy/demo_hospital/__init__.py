"""A synthetic hospital for demo and tests: FHIR NDJSON, WFDB ECGs, DICOM radiographs, planted faults."""

from deploy.demo_hospital.build import build_hospital
from deploy.demo_hospital.stays import Shares
from deploy.demo_hospital.summary import HospitalSummary

__all__ = ["HospitalSummary", "Shares", "build_hospital"]
