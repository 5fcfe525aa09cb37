"""FHIR resources that carry an ECG to rows of the ``recordings`` table."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from fhir_adapter.arrays import store_array
from fhir_adapter.errors import Refusal
from fhir_adapter.limits import Limits
from fhir_adapter.observations.exact import check_identity, read_head, read_subject
from fhir_adapter.references import element_reference, is_one_of, scalar_text
from fhir_adapter.times import parse_time
from fhir_adapter.waveforms.archive import WaveformArchive
from fhir_adapter.waveforms.attachments import list_attachments, read_signals
from fhir_adapter.waveforms.dicom_ecg import read_dicom_ecg
from fhir_adapter.waveforms.sampled_data import read_sampled_data
from fhir_adapter.waveforms.signal import Signal
from validation.reasons import Reason

DOCUMENT_STATUS = frozenset({"current"})
MEDIA_STATUS = frozenset({"completed"})
DOC_STATUS = frozenset({None, "final", "amended"})


class RecordingReader:
    """Turns one resource after another into recordings.

    Parameters
    ----------
    archive
        Where attachment addresses lead.
    run_folder
        Arrays are stored below it.
    subjects
        FHIR id of a patient to subject_id.
    read_dicom
        Decoder of DICOM ECGs; the default works in this process.
    """

    def __init__(
        self,
        *,
        archive: WaveformArchive | None,
        run_folder: Path,
        subjects: dict[str, int],
        default_zone: ZoneInfo | None,
        limits: Limits,
        read_dicom: Callable[[bytes, Limits], Signal] = read_dicom_ecg,
    ) -> None:
        self._read_dicom = read_dicom
        self._archive = archive
        self._run_folder = run_folder
        self._subjects = subjects
        self._zone = default_zone
        self._limits = limits

    def read_observation(self, resource: dict[str, Any]) -> tuple[list[dict[str, Any]], list[Refusal]]:
        """Return the recording of an Observation with SampledData.

        Numeric components beside the waveform are refused one by one: they are the recorder's own
        measurements, and one resource must not count in two tables.
        """
        head = read_head(
            resource, subjects=self._subjects, default_zone=self._zone, resource_type="Observation"
        )
        signal, others = read_sampled_data(resource, self._limits)
        row = self._row(
            signal,
            key=head.source_ref,
            subject_id=head.subject_id,
            encounter_id=head.encounter_id,
            time=head.time,
            available=head.available_time,
        )
        return [row], [
            Refusal(Reason.VALUE_TYPE_NOT_SUPPORTED, "component beside SampledData") for _ in others
        ]

    def read_document(self, resource: dict[str, Any]) -> tuple[list[dict[str, Any]], list[Refusal]]:
        """Return the recordings of a DocumentReference or Media."""
        kind = str(resource.get("resourceType"))
        check_identity(resource, kind if kind in {"DocumentReference", "Media"} else "DocumentReference")
        allowed = MEDIA_STATUS if kind == "Media" else DOCUMENT_STATUS
        if not is_one_of(resource.get("status"), allowed) or (
            kind == "DocumentReference" and not is_one_of(resource.get("docStatus"), DOC_STATUS)
        ):
            raise Refusal(Reason.STATUS_NOT_ACCEPTED, "status")
        subject_id = read_subject(resource, self._subjects)
        time, available = self._media_times(resource) if kind == "Media" else self._document_times(resource)
        encounter_id = _document_encounter(resource)
        key = f"{kind}/{scalar_text(resource['id'])}"
        signals = read_signals(resource, self._archive, self._limits, read_dicom=self._read_dicom)
        rows = []
        for number, signal in enumerate(signals):
            row = self._row(
                signal,
                key=key,
                subject_id=subject_id,
                encounter_id=encounter_id,
                time=time,
                available=available,
            )
            if number:
                row["recording_id"] = f"{key}#{number + 1}"
            rows.append(row)
        return rows, []

    def _row(
        self,
        signal: Signal,
        *,
        key: str,
        subject_id: int,
        encounter_id: str | None,
        time: datetime,
        available: datetime | None,
    ) -> dict[str, Any]:
        path, digest = store_array(signal.samples, self._run_folder)
        return {
            "recording_id": key,
            "subject_id": subject_id,
            "encounter_id": encounter_id,
            "time": time,
            "available_time": max(time, available) if available else time,
            "sampling_rate": signal.sampling_rate,
            "leads": list(signal.leads),
            "samples": signal.samples.shape[1],
            "unit": "mV",
            "array_path": path,
            "array_sha256": digest,
            "carrier": signal.carrier,
            "source_ref": key,
        }

    def _document_times(self, resource: dict[str, Any]) -> tuple[datetime, datetime | None]:
        """Return when the ECG was recorded, and when the document was there.

        ``context.period.start`` is the time of the service, then ``attachment.creation``; ``date`` is when
        the reference was made (https://hl7.org/fhir/R4/documentreference.html).
        """
        context = resource.get("context")
        period = context.get("period") if isinstance(context, dict) else None
        date = resource.get("date")
        available = None if date is None else parse_time(date, element="date", default_zone=self._zone)
        if isinstance(period, dict) and period.get("start") is not None:
            start = parse_time(period["start"], element="context.period.start", default_zone=self._zone)
            return start, available
        for attachment in list_attachments(resource):
            creation = attachment.element.get("creation")
            if creation is not None:
                return parse_time(creation, element="attachment.creation", default_zone=self._zone), available
        if available is None:
            raise Refusal(Reason.TIME_MISSING, "context.period, attachment.creation or date")
        return available, available

    def _media_times(self, resource: dict[str, Any]) -> tuple[datetime, datetime | None]:
        period = resource.get("createdPeriod")
        value = resource.get("createdDateTime")
        if value is None and isinstance(period, dict):
            value = period.get("start")
        if value is None:
            raise Refusal(Reason.TIME_MISSING, "created")
        issued = resource.get("issued")
        available = None if issued is None else parse_time(issued, element="issued", default_zone=self._zone)
        return parse_time(value, element="created", default_zone=self._zone), available


def _document_encounter(resource: dict[str, Any]) -> str | None:
    direct = element_reference(resource.get("encounter"), "Encounter")
    if direct:
        return direct
    context = resource.get("context")
    found = context.get("encounter") if isinstance(context, dict) else None
    for item in found if isinstance(found, list) else []:
        key = element_reference(item, "Encounter")
        if key:
            return key
    return None
