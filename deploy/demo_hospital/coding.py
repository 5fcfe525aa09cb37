"""What the demo hospital measures: local code first, LOINC after it, UCUM unit, how often, how late.

LOINC codes follow the feature catalogue; their check digits are tested in tests/unit/deploy.
"""

from __future__ import annotations

from dataclasses import dataclass

LOINC = "http://loinc.org"
UCUM = "http://unitsofmeasure.org"
SNOMED = "http://snomed.info/sct"
HOSPITAL = "https://demo-hospital.invalid"
"""Base of the demo hospital's own code systems and identifiers; ``.invalid`` never resolves (RFC 2606)."""

CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
TEST_DATA = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ActReason",
    "code": "HTEST",
    "display": "test health data",
}
"""Security label "test health data": every resource of the demo hospital carries it."""


@dataclass(frozen=True)
class Measurement:
    """One kind of Observation.

    Attributes
    ----------
    quantity
        Name in :func:`deploy.demo_hospital.physiology.simulate`.
    local
        The hospital's own code.
    loinc
        LOINC codes after the local one, in order.
    display
        Text of the code.
    laboratory
        Laboratory value (sent in UTC, 30 to 120 minutes late) or charted at the bedside.
    unit
        UCUM code; the text shown is the same.
    decimals
        Digits after the point.
    hours_icu, hours_ward
        Interval between two measurements, by kind of ward; 0 is never.
    """

    quantity: str
    local: str
    loinc: tuple[str, ...]
    display: str
    laboratory: bool
    unit: str
    decimals: int
    hours_icu: float
    hours_ward: float


MEASUREMENTS: tuple[Measurement, ...] = (
    Measurement("heart_rate", "HR", ("8867-4",), "Heart rate", False, "/min", 0, 1, 4),
    Measurement("respiratory_rate", "RR", ("9279-1",), "Respiratory rate", False, "/min", 0, 1, 4),
    Measurement(
        "saturation",
        "SPO2",
        ("59408-5", "2708-6"),
        "Oxygen saturation by pulse oximetry",
        False,
        "%",
        0,
        1,
        4,
    ),
    Measurement("temperature", "TEMP", ("8310-5",), "Body temperature", False, "Cel", 1, 4, 6),
    Measurement("oxygen_share", "FIO2", ("3150-0",), "Inhaled oxygen concentration", False, "%", 0, 4, 8),
    Measurement("capillary_refill", "CRT", ("44963-7",), "Capillary refill of nail bed", False, "s", 1, 8, 0),
    Measurement("pain", "NRS", ("72514-3",), "Pain severity 0-10", False, "{score}", 0, 12, 8),
    Measurement("urine_output", "UO", ("9187-6",), "Urine output", False, "mL", 0, 4, 0),
    Measurement("glucose", "POCGLU", ("41653-7",), "Glucose by glucometer", False, "mg/dL", 0, 6, 8),
    Measurement("ph", "BGA-PH", ("2744-1",), "pH of arterial blood", True, "[pH]", 2, 8, 0),
    Measurement(
        "oxygen_pressure",
        "BGA-PO2",
        ("2703-7",),
        "Oxygen partial pressure, arterial",
        True,
        "mm[Hg]",
        0,
        8,
        0,
    ),
    Measurement(
        "carbon_dioxide_pressure",
        "BGA-PCO2",
        ("2019-8",),
        "Carbon dioxide partial pressure, arterial",
        True,
        "mm[Hg]",
        0,
        8,
        0,
    ),
    Measurement("lactate", "LAC", ("2524-7",), "Lactate", True, "mmol/L", 1, 8, 24),
    Measurement("bicarbonate", "HCO3", ("1963-8",), "Bicarbonate", True, "mmol/L", 1, 12, 24),
    Measurement("creatinine", "CREA", ("2160-0",), "Creatinine", True, "mg/dL", 2, 12, 24),
    Measurement("urea_nitrogen", "BUN", ("3094-0",), "Urea nitrogen", True, "mg/dL", 0, 12, 24),
    Measurement("sodium", "NA", ("2951-2",), "Sodium", True, "mmol/L", 0, 12, 24),
    Measurement("potassium", "K", ("2823-3",), "Potassium", True, "mmol/L", 1, 12, 24),
    Measurement("leukocytes", "WBC", ("6690-2",), "Leukocytes", True, "10*3/uL", 1, 24, 24),
    Measurement("haemoglobin", "HB", ("718-7",), "Hemoglobin", True, "g/dL", 1, 12, 24),
    Measurement("platelets", "PLT", ("777-3",), "Platelets", True, "10*3/uL", 0, 24, 24),
    Measurement("bilirubin", "TBIL", ("1975-2",), "Bilirubin, total", True, "mg/dL", 1, 24, 48),
    Measurement("troponin", "TNT", ("6598-7",), "Troponin T, cardiac", True, "ng/mL", 3, 24, 0),
)

PRESSURE_HOURS = (1.0, 4.0)
"""Interval of blood-pressure panels in intensive care and on wards."""

COMA_HOURS = (4.0, 8.0)
"""Interval of the Glasgow Coma Scale in intensive care and on wards."""

PRESSURE_PANEL = "85354-9"
PRESSURE_COMPONENTS = (
    ("systolic", "8480-6", "Systolic blood pressure"),
    ("diastolic", "8462-4", "Diastolic blood pressure"),
    ("mean_pressure", "8478-0", "Mean blood pressure"),
)

COMA_PARTS = (
    ("coma_eye", "GCS-E", "9267-6", "Glasgow coma score eye opening"),
    ("coma_verbal", "GCS-V", "9270-0", "Glasgow coma score verbal"),
    ("coma_motor", "GCS-M", "9268-4", "Glasgow coma score motor"),
)

COMA_ANSWERS: dict[str, tuple[tuple[str, str], ...]] = {
    "coma_eye": (
        ("LA6553-7", "No eye opening"),
        ("LA6554-5", "Eye opening to pain"),
        ("LA6555-2", "Eye opening to verbal command"),
        ("LA6556-0", "Eyes open spontaneously"),
    ),
    "coma_verbal": (
        ("LA6557-8", "No verbal response"),
        ("LA6558-6", "Incomprehensible sounds"),
        ("LA6559-4", "Inappropriate words"),
        ("LA6560-2", "Confused"),
        ("LA6561-0", "Oriented"),
    ),
    "coma_motor": (
        ("LA6562-8", "No motor response"),
        ("LA6563-6", "Extension to pain"),
        ("LA6564-4", "Flexion to pain"),
        ("LA6565-1", "Withdrawal from pain"),
        ("LA6566-9", "Localizing pain"),
        ("LA6567-7", "Obeys commands"),
    ),
}
"""LOINC answer codes and texts by score, from 1 upwards."""


@dataclass(frozen=True)
class Ward:
    """A ward, and the habits of its documentation system.

    ``coma`` is how it sends the Glasgow Coma Scale: ``quantity``, ``integer`` or ``text``.
    ``sampled_ecg`` says that its monitors send ECGs as SampledData instead of files.
    """

    id: str
    name: str
    intensive: bool
    coma: str
    fahrenheit: bool
    pounds: bool
    molar_glucose: bool = False
    sampled_ecg: bool = False


WARDS: tuple[Ward, ...] = (
    Ward("icu-medical", "Medical intensive care", True, "quantity", False, False),
    Ward("icu-surgical", "Surgical intensive care", True, "integer", True, False, sampled_ecg=True),
    Ward("ward-5-west", "Ward 5 West", False, "text", False, False, molar_glucose=True),
    Ward("ward-7-east", "Ward 7 East", False, "text", True, True),
)
WARD_BY_ID = {ward.id: ward for ward in WARDS}
