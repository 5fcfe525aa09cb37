"""Reason codes: why a row, a resource or an encounter was refused.

A code is ``<what>.<why>``. Every code carries one sentence for the person who has to mend
the cause, and never a value of the row. Add a code here before using it.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why something went to quarantine, or was not scored."""

    # Reading lines and resources
    JSON_UNREADABLE = "json.unreadable"
    JSON_TOO_LONG = "json.too_long"
    JSON_TOO_DEEP = "json.too_deep"
    RESOURCE_UNEXPECTED_TYPE = "resource.unexpected_type"
    RESOURCE_INVALID = "resource.invalid"
    RESOURCE_ID_INVALID = "resource.id_invalid"
    RESOURCE_MODIFIER = "resource.modifier"
    RESOURCE_DUPLICATE = "resource.duplicate"
    RESOURCE_SUPERSEDED = "resource.superseded"
    SUBJECT_MISSING = "subject.missing"
    SUBJECT_UNKNOWN = "subject.unknown"
    ENCOUNTER_UNKNOWN = "encounter.unknown"
    STATUS_NOT_ACCEPTED = "status.not_accepted"
    OPERATION_OUTCOME = "server.operation_outcome"

    # Times
    TIME_MISSING = "time.missing"
    TIME_INVALID = "time.invalid"
    TIME_PARTIAL = "time.partial"
    TIME_ZONE_MISSING = "time.zone_missing"
    TIME_IN_FUTURE = "time.in_future"
    TIME_OUTSIDE_ENCOUNTER = "time.outside_encounter"

    # Values and units
    CODE_MISSING = "code.missing"
    CODE_UNKNOWN = "code.unknown"
    VALUE_MISSING = "value.missing"
    VALUE_ABSENT_REASON = "value.absent_reason"
    VALUE_INVALID = "value.invalid"
    VALUE_TYPE_NOT_SUPPORTED = "value.type_not_supported"
    VALUE_OUT_OF_RANGE = "value.out_of_range"
    VALUE_COMPARATOR = "value.comparator"
    VALUE_UNKNOWN_LEVEL = "value.unknown_level"
    VALUE_DUPLICATE = "value.duplicate"
    UNIT_MISSING = "unit.missing"
    UNIT_UNKNOWN = "unit.unknown"
    PHYSIOLOGY_CONTRADICTION = "physiology.contradiction"

    # Attachments and archives
    ATTACHMENT_OUTSIDE_ARCHIVE = "attachment.outside_archive"
    ATTACHMENT_MISSING = "attachment.missing"
    ATTACHMENT_TOO_LARGE = "attachment.too_large"
    ATTACHMENT_HASH_MISMATCH = "attachment.hash_mismatch"
    ATTACHMENT_HOST_NOT_ALLOWED = "attachment.host_not_allowed"
    ATTACHMENT_TYPE_NOT_SUPPORTED = "attachment.type_not_supported"

    # ECG
    ECG_HEADER_INVALID = "ecg.header_invalid"
    ECG_SIGNAL_TRUNCATED = "ecg.signal_truncated"
    ECG_CHECKSUM_MISMATCH = "ecg.checksum_mismatch"
    ECG_LEADS_MISSING = "ecg.leads_missing"
    ECG_FLAT = "ecg.flat"
    ECG_SATURATED = "ecg.saturated"
    ECG_NOISE = "ecg.noise"
    ECG_RATE_IMPLAUSIBLE = "ecg.rate_implausible"
    ECG_AMPLITUDE_IMPLAUSIBLE = "ecg.amplitude_implausible"
    ECG_TOO_SHORT = "ecg.too_short"
    ECG_DUPLICATE = "ecg.duplicate"
    ECG_UNREADABLE = "ecg.unreadable"

    # X-ray
    IMAGE_NO_PIXELS = "image.no_pixels"
    IMAGE_UNREADABLE = "image.unreadable"
    IMAGE_TOO_LARGE = "image.too_large"
    IMAGE_SYNTAX_NOT_SUPPORTED = "image.syntax_not_supported"
    IMAGE_NOT_CHEST = "image.not_chest"
    IMAGE_VIEW_NOT_FRONTAL = "image.view_not_frontal"
    IMAGE_BLANK = "image.blank"
    IMAGE_TINY = "image.tiny"
    IMAGE_INVERTED = "image.inverted"
    IMAGE_BORDER = "image.border"
    IMAGE_TURNED = "image.turned"
    IMAGE_DUPLICATE = "image.duplicate"
    IMAGE_NOT_FOUND = "image.not_found"

    # Encounters that are eligible but not scored
    SKIP_TOO_YOUNG = "skip.too_young"
    SKIP_AGE_UNKNOWN = "skip.age_unknown"
    SKIP_STAY_TOO_SHORT = "skip.stay_too_short"
    SKIP_NO_USABLE_INPUT = "skip.no_usable_input"
    SKIP_OTHER_STAY_SCORED = "skip.other_stay_scored"
    SKIP_GATE_STOPPED = "skip.gate_stopped"
    SKIP_SCORING_FAILED = "skip.scoring_failed"


EXPLANATIONS: dict[Reason, str] = {
    Reason.JSON_UNREADABLE: "The line is not one JSON object; ask the sender to export the file again.",
    Reason.JSON_TOO_LONG: "The line is longer than the site's limit; raise it only if this is expected.",
    Reason.JSON_TOO_DEEP: "The JSON is nested deeper than any FHIR resource needs.",
    Reason.RESOURCE_UNEXPECTED_TYPE: "The resource type is not the one that this file or query must hold.",
    Reason.RESOURCE_INVALID: "The resource breaks FHIR R4; the detail names the element.",
    Reason.RESOURCE_ID_INVALID: "The id is missing or is not a FHIR id.",
    Reason.RESOURCE_MODIFIER: "A modifierExtension or implicitRules may turn the meaning around.",
    Reason.RESOURCE_DUPLICATE: "The same id and version arrived before; the first one was kept.",
    Reason.RESOURCE_SUPERSEDED: "A newer version of the same resource arrived; the newer one was kept.",
    Reason.SUBJECT_MISSING: "The resource names no patient.",
    Reason.SUBJECT_UNKNOWN: "The patient was not part of this pull; check the cohort query.",
    Reason.ENCOUNTER_UNKNOWN: "The encounter was not part of this pull; check the cohort query.",
    Reason.STATUS_NOT_ACCEPTED: "The status is entered-in-error, cancelled, unknown or not yet final.",
    Reason.OPERATION_OUTCOME: "The server put an OperationOutcome among the results: it left something out.",
    Reason.TIME_MISSING: "There is no clinical time.",
    Reason.TIME_INVALID: "The time cannot be read as a FHIR dateTime.",
    Reason.TIME_PARTIAL: "The time is only a date, month or year; too coarse for an hourly model.",
    Reason.TIME_ZONE_MISSING: "The time carries no zone, and the site sets no default zone.",
    Reason.TIME_IN_FUTURE: "The clinical time lies after the moment at which the value was already known.",
    Reason.TIME_OUTSIDE_ENCOUNTER: "The time lies outside the patient's stay by more than the site's limit.",
    Reason.CODE_MISSING: "There is no coding with a system and a code.",
    Reason.CODE_UNKNOWN: "The feature is not in the catalogue; mapper and catalogue differ in version.",
    Reason.VALUE_MISSING: "There is neither a value nor a component with a value.",
    Reason.VALUE_ABSENT_REASON: "The sender says why the value is absent (dataAbsentReason).",
    Reason.VALUE_INVALID: "The value is not a finite number where one is needed.",
    Reason.VALUE_TYPE_NOT_SUPPORTED: "The value[x] type is not one that the catalogue can use.",
    Reason.VALUE_OUT_OF_RANGE: "The value lies outside the catalogue's plausible range.",
    Reason.VALUE_COMPARATOR: "The value has a comparator that the catalogue does not allow here.",
    Reason.VALUE_UNKNOWN_LEVEL: "The categorical value is not one of the catalogue's levels.",
    Reason.VALUE_DUPLICATE: "The same value of the same feature and time came before; the first was kept.",
    Reason.UNIT_MISSING: "There is no unit, and the feature needs a proven one.",
    Reason.UNIT_UNKNOWN: "The catalogue has no conversion from this unit for this feature.",
    Reason.PHYSIOLOGY_CONTRADICTION: "Values of the same time contradict one another.",
    Reason.ATTACHMENT_OUTSIDE_ARCHIVE: "The attachment points outside the configured archive.",
    Reason.ATTACHMENT_MISSING: "The attachment does not exist in the archive.",
    Reason.ATTACHMENT_TOO_LARGE: "The attachment is larger than the site's limit.",
    Reason.ATTACHMENT_HASH_MISMATCH: "The attachment's size or hash is not the declared one.",
    Reason.ATTACHMENT_HOST_NOT_ALLOWED: "The attachment's host is not on the site's list.",
    Reason.ATTACHMENT_TYPE_NOT_SUPPORTED: "The attachment's content type is not a known waveform carrier.",
    Reason.ECG_HEADER_INVALID: "The waveform header lies or cannot be read.",
    Reason.ECG_SIGNAL_TRUNCATED: "The signal file is shorter than its header says.",
    Reason.ECG_CHECKSUM_MISMATCH: "The signal does not match the checksum in its header.",
    Reason.ECG_LEADS_MISSING: "Fewer leads than the site asks for, or leads with unknown names.",
    Reason.ECG_FLAT: "Too many leads are flat.",
    Reason.ECG_SATURATED: "Too many samples lie at the recorder's limits.",
    Reason.ECG_NOISE: "Baseline wander or powerline noise drowns the signal.",
    Reason.ECG_RATE_IMPLAUSIBLE: "The heart rate found in the signal is not plausible.",
    Reason.ECG_AMPLITUDE_IMPLAUSIBLE: "The amplitude is no ECG's in millivolts; check gain and unit.",
    Reason.ECG_TOO_SHORT: "The recording is shorter than the site asks for.",
    Reason.ECG_DUPLICATE: "The same samples arrived earlier for this patient.",
    Reason.ECG_UNREADABLE: "The waveform cannot be decoded.",
    Reason.IMAGE_NO_PIXELS: "The DICOM object has no pixel data.",
    Reason.IMAGE_UNREADABLE: "The DICOM object or its pixel data cannot be decoded.",
    Reason.IMAGE_TOO_LARGE: "The decoded image would exceed the site's limit.",
    Reason.IMAGE_SYNTAX_NOT_SUPPORTED: "The transfer syntax is refused or has no decoder.",
    Reason.IMAGE_NOT_CHEST: "Body part or modality says that this is no chest radiograph.",
    Reason.IMAGE_VIEW_NOT_FRONTAL: "The view is neither AP nor PA.",
    Reason.IMAGE_BLANK: "The image has almost no contrast.",
    Reason.IMAGE_TINY: "The image has too few pixels.",
    Reason.IMAGE_INVERTED: "The image looks inverted against its photometric interpretation.",
    Reason.IMAGE_BORDER: "Burned-in or empty borders fill too much of the image.",
    Reason.IMAGE_TURNED: "The image looks turned on its side or upside down.",
    Reason.IMAGE_DUPLICATE: "The same pixels arrived earlier for this patient.",
    Reason.IMAGE_NOT_FOUND: "The study or instance is not in the archive.",
    Reason.SKIP_TOO_YOUNG: "The patient is younger than the model's lowest age.",
    Reason.SKIP_AGE_UNKNOWN: "The patient's age cannot be computed.",
    Reason.SKIP_STAY_TOO_SHORT: "The stay is shorter than the task's minimum at prediction time.",
    Reason.SKIP_NO_USABLE_INPUT: "No accepted input of any modality was known before prediction time.",
    Reason.SKIP_OTHER_STAY_SCORED: "Another stay of the same patient is the one scored.",
    Reason.SKIP_GATE_STOPPED: "The gate stopped the night before scoring.",
    Reason.SKIP_SCORING_FAILED: "Scoring this encounter failed; the detail names the error class.",
}


def explain(reason: str) -> str:
    """Return the sentence for a reason code.

    Examples
    --------
    >>> explain("ecg.flat")
    'Too many leads are flat.'
    """
    return EXPLANATIONS[Reason(reason)]
