"""What a built hospital holds, in counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class HospitalSummary:
    """What was built.

    Attributes
    ----------
    patients, open_stays, icu_stays, deaths
        Stays in all, not yet discharged, with intensive care, ended by death.
    resources
        Lines written by resource type, faulty ones among them.
    ecgs, radiographs
        Recordings and images, faulty ones among them.
    faults
        Planted faults by reason code.
    """

    folder: str
    prediction_time: str
    patients: int = 0
    open_stays: int = 0
    icu_stays: int = 0
    deaths: int = 0
    ecgs: int = 0
    radiographs: int = 0
    resources: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def to_dict(self) -> dict[str, object]:
        """Return a JSON-ready dict."""
        counts = {"resources": dict(self.resources), "faults": dict(self.faults)}
        return {name: counts.get(name, getattr(self, name)) for name in self.__dataclass_fields__}
