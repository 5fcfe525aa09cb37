"""Everything that speaks FHIR, SMART, Bulk Data, DICOMweb or WFDB, in both directions."""
