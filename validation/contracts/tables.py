"""Schemas of every table that leaves a room.

Times are ``datetime[us, UTC]``. ``subject_id`` is a signed 64-bit integer, as MEDS asks
(https://github.com/Medical-Event-Data-Standard/meds). ``source_ref`` is a relative FHIR
reference (``Observation/123``) or ``<table>:<key>`` for files; it is what a score's ``basis``
points to. No column holds a patient's name, address or free text of a note.
"""

from __future__ import annotations

import dataframely as dy
import polars as pl

UTC_TIME = {"time_unit": "us", "time_zone": "UTC"}


def _time(*, nullable: bool = True) -> dy.Datetime:
    return dy.Datetime(nullable=nullable, time_unit="us", time_zone="UTC")


class Observations(dy.Schema):
    """What a source said, in the source's own codes and units: one row a value.

    ``codings`` holds ``system|code`` strings in the order of the resource. ``component`` is 0
    for the resource's own value and n for its n-th component. ``unit_system`` and ``unit_code``
    are as declared; a unit given only as text has them null and ``unit_text`` filled.
    """

    subject_id = dy.Int64(nullable=False)
    encounter_id = dy.String(nullable=True)
    time = _time(nullable=False)
    available_time = _time()
    codings = dy.List(dy.String(nullable=False), nullable=False, min_length=1)
    value = dy.Float64(nullable=True)
    text_value = dy.String(nullable=True)
    comparator = dy.String(nullable=True)
    unit_system = dy.String(nullable=True)
    unit_code = dy.String(nullable=True)
    unit_text = dy.String(nullable=True)
    status = dy.String(nullable=False)
    source_ref = dy.String(nullable=False)
    source_file = dy.String(nullable=False)
    source_line = dy.UInt32(nullable=False)
    component = dy.UInt16(nullable=False)


class Events(dy.Schema):
    """MEDS events in catalogue features and canonical units: the model's triplets.

    ``code`` is a catalogue feature key. ``numeric_value`` is in the feature's canonical UCUM
    unit; a categorical feature holds the level's number there and its name in ``text_value``.
    ``derived`` marks values that Nightingale computed (the GCS total).
    """

    subject_id = dy.Int64(nullable=False)
    time = _time(nullable=False)
    code = dy.String(nullable=False)
    numeric_value = dy.Float32(nullable=True)
    text_value = dy.String(nullable=True)
    available_time = _time(nullable=False)
    encounter_id = dy.String(nullable=True)
    source_ref = dy.String(nullable=False)
    derived = dy.Bool(nullable=False)


class Recordings(dy.Schema):
    """One row a twelve-lead ECG; the samples are a float32 array ``[leads, samples]`` in mV.

    ``array_path`` is relative to the run folder and names a ``.npy`` file. ``array_sha256`` is
    the digest of that file, so that an embedding can be cached by it.
    """

    recording_id = dy.String(nullable=False, primary_key=True)
    subject_id = dy.Int64(nullable=False)
    encounter_id = dy.String(nullable=True)
    time = _time(nullable=False)
    available_time = _time(nullable=False)
    sampling_rate = dy.Float64(nullable=False, min_exclusive=0)
    leads = dy.List(dy.String(nullable=False), nullable=False, min_length=1)
    samples = dy.UInt32(nullable=False, min=1)
    unit = dy.String(nullable=False)
    array_path = dy.String(nullable=False)
    array_sha256 = dy.String(nullable=False)
    carrier = dy.String(nullable=False)
    source_ref = dy.String(nullable=False)
    source_file = dy.String(nullable=False)
    source_line = dy.UInt32(nullable=False)


class Images(dy.Schema):
    """One row a frontal chest radiograph; pixels are a uint8 array ``[rows, columns]``.

    Pixels are MONOCHROME2 (air dark), after modality and VOI transformation, scaled to 0-255.
    """

    image_id = dy.String(nullable=False, primary_key=True)
    subject_id = dy.Int64(nullable=False)
    encounter_id = dy.String(nullable=True)
    time = _time(nullable=False)
    available_time = _time(nullable=False)
    view = dy.String(nullable=True)
    height_px = dy.UInt32(nullable=False, min=1)
    width_px = dy.UInt32(nullable=False, min=1)
    pixel_spacing = dy.Float64(nullable=True)
    array_path = dy.String(nullable=False)
    array_sha256 = dy.String(nullable=False)
    study_uid = dy.String(nullable=False)
    series_uid = dy.String(nullable=False)
    instance_uid = dy.String(nullable=False)
    source_ref = dy.String(nullable=False)
    source_file = dy.String(nullable=False)
    source_line = dy.UInt32(nullable=False)


class Encounters(dy.Schema):
    """One row an encounter. ``end`` may lie in the future of a prediction time: cohorts hide it.

    ``kind`` is ``hospital``, ``icu``, ``emergency`` or ``other``. ``moves`` are the stays in
    wards, with times. ``part_of`` is the enclosing encounter's id.
    """

    encounter_id = dy.String(nullable=False, primary_key=True)
    subject_id = dy.Int64(nullable=False)
    patient_ref = dy.String(nullable=False)
    encounter_ref = dy.String(nullable=False)
    kind = dy.String(nullable=False)
    encounter_class = dy.String(nullable=True)
    status = dy.String(nullable=False)
    part_of = dy.String(nullable=True)
    start = _time(nullable=False)
    end = _time()
    ward = dy.String(nullable=True)
    moves = dy.List(
        dy.Struct(
            {
                "ward": dy.String(nullable=True),
                "start": dy.Datetime(nullable=True, time_unit="us", time_zone="UTC"),
                "end": dy.Datetime(nullable=True, time_unit="us", time_zone="UTC"),
            },
            nullable=False,
        ),
        nullable=False,
    )
    birth_date = dy.Date(nullable=True)
    sex = dy.String(nullable=False)
    admission_source = dy.String(nullable=True)
    source_file = dy.String(nullable=False)
    source_line = dy.UInt32(nullable=False)


class Outcomes(dy.Schema):
    """What happened later. Training reads it; scoring has no path to it."""

    encounter_id = dy.String(nullable=False, primary_key=True)
    subject_id = dy.Int64(nullable=False)
    discharge_time = _time()
    death_time = _time()
    died_in_hospital = dy.Bool(nullable=True)
    icu_days = dy.Float64(nullable=True)


class Samples(dy.Schema):
    """One question to a model: MEDS label schema plus encounter and task.

    ``boolean_value`` and ``float_value`` are labels, null when scoring.
    """

    subject_id = dy.Int64(nullable=False)
    prediction_time = _time(nullable=False)
    boolean_value = dy.Bool(nullable=True)
    float_value = dy.Float64(nullable=True)
    encounter_id = dy.String(nullable=False)
    task = dy.String(nullable=False)
    lookback_start = _time(nullable=False)


class Scores(dy.Schema):
    """One answer, with all that its RiskAssessment needs.

    ``score_key`` is uuid5(site, task, model digest, encounter, prediction time).
    ``contributions`` is the change of the probability when a modality is left out.
    """

    score_key = dy.String(nullable=False, primary_key=True)
    subject_id = dy.Int64(nullable=False)
    encounter_id = dy.String(nullable=False)
    patient_ref = dy.String(nullable=False)
    encounter_ref = dy.String(nullable=False)
    prediction_time = _time(nullable=False)
    task = dy.String(nullable=False)
    model_name = dy.String(nullable=False)
    model_version = dy.String(nullable=False)
    model_digest = dy.String(nullable=False)
    probability = dy.Float64(nullable=True, min=0, max=1)
    value = dy.Float64(nullable=True)
    lower = dy.Float64(nullable=True)
    upper = dy.Float64(nullable=True)
    risk_level = dy.String(nullable=True)
    horizon_hours = dy.Float64(nullable=False)
    modalities_present = dy.List(dy.String(nullable=False), nullable=False)
    modalities_missing = dy.List(dy.String(nullable=False), nullable=False)
    contributions = dy.List(
        dy.Struct(
            {"modality": dy.String(nullable=False), "change": dy.Float64(nullable=False)}, nullable=False
        ),
        nullable=False,
    )
    top_events = dy.List(
        dy.Struct(
            {
                "code": dy.String(nullable=False),
                "source_ref": dy.String(nullable=False),
                "weight": dy.Float64(nullable=False),
            },
            nullable=False,
        ),
        nullable=False,
    )
    basis = dy.List(dy.String(nullable=False), nullable=False)
    computed_on = dy.String(nullable=False)


class Skipped(dy.Schema):
    """An eligible encounter that was not scored, and why."""

    subject_id = dy.Int64(nullable=False)
    encounter_id = dy.String(nullable=False)
    prediction_time = _time(nullable=False)
    task = dy.String(nullable=False)
    reason = dy.String(nullable=False)
    detail = dy.String(nullable=True)


class Quarantine(dy.Schema):
    """What was refused, where it stands and why; never the value itself.

    ``whole`` says that the entire resource was refused, not one component of it.
    """

    stage = dy.String(nullable=False)
    reason = dy.String(nullable=False)
    source_file = dy.String(nullable=True)
    source_line = dy.UInt32(nullable=True)
    source_ref = dy.String(nullable=True)
    component = dy.UInt16(nullable=True)
    feature = dy.String(nullable=True)
    detail = dy.String(nullable=True)
    whole = dy.Bool(nullable=False)


TABLES: dict[str, type[dy.Schema]] = {
    "observations": Observations,
    "events": Events,
    "recordings": Recordings,
    "images": Images,
    "encounters": Encounters,
    "outcomes": Outcomes,
    "samples": Samples,
    "scores": Scores,
    "skipped": Skipped,
    "quarantine": Quarantine,
}


def empty(table: str) -> pl.DataFrame:
    """Return an empty frame of the named table.

    Examples
    --------
    >>> empty("events").height
    0
    """
    return TABLES[table].create_empty()
