"""ECG waveforms of three carriers as recordings in millivolts: SampledData, WFDB, DICOM."""
