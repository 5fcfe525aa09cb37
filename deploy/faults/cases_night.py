"""Cases of the night itself: killed, out of disk, out of memory, poisoned, or with nothing to go by."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from deploy.faults.case import Case
from deploy.faults.cases_bulk import jobs_made
from deploy.faults.killed_night import STOPPED, die_in_night
from deploy.faults.site import NIGHT, Site, Wiring
from deploy.faults.store import Resource
from deploy.settings import CONFIG_VARIABLE
from modelling.shipped_weights.cards import HERE as SHIPPED
from validation.reasons import Reason

FILES = Wiring(reading="folder", writing="ndjson")
MODEL = SHIPPED / "physionet2012-mortality"
KILLED = -9


def killed(where: str, *, whole: bool = False, how: str = "kill") -> Callable[[Site], None]:
    """Let a first night die at a place."""

    def prepare(site: Site) -> None:
        config = os.environ[CONFIG_VARIABLE]
        code = die_in_night(NIGHT.isoformat(), config, where, how, whole=whole)
        site.extra["exit"] = code
        site.extra["word"] = f"first run ended with {code}"

    return prepare


def died(expected: int) -> Callable[[Site], int]:
    """Count the death if it was the expected one."""
    return lambda site: int(site.extra.get("exit") == expected)


def death(where: str, text: str, *, wiring: Wiring | None = None, **fields: Any) -> Case:
    """Return a case of ``kill -9``."""
    return Case(
        name=f"kill -9 {text}",
        group="night",
        wiring=replace(wiring or Wiring(), shards=2),
        prepare=killed(where, whole=bool(fields.get("whole"))),
        injected=died(KILLED),
        **fields,
    )


# The model


def set_model(site: Site) -> None:
    """Let the site score with a copy of the shipped model, which may be spoilt."""
    folder = site.folder / "model"
    shutil.copytree(MODEL, folder, ignore=shutil.ignore_patterns("__pycache__"))
    config = site.folder / "nightingale.toml"
    text = config.read_text("utf-8").replace("[night]\n", f'[night]\nmodel = "{folder}"\n')
    config.write_text(text, encoding="utf-8")


def other_weights(site: Site) -> None:
    """Flip one bit of the weights."""
    set_model(site)
    path = site.folder / "model" / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    site.extra["edited"] = 1


def right_weights(site: Site) -> None:
    """Bring the registered weights back."""
    shutil.copy(MODEL / "weights.safetensors", site.folder / "model" / "weights.safetensors")


def memory_of(samples: int) -> Callable[[Site], None]:
    """Let the device run out of memory for more than so many samples at a time."""

    def prepare(site: Site) -> None:
        from modelling.scoring import score

        original = score._fields
        site.extra["count"] = 0

        def fields(model: Any, batch: Any, *arguments: Any, **names: Any) -> Any:
            if len(batch) > samples:
                site.extra["count"] += 1
                raise torch.OutOfMemoryError("CUDA out of memory (made by deploy.faults)")
            return original(model, batch, *arguments, **names)

        score._fields = fields
        site.extra["restore"] = lambda: setattr(score, "_fields", original)

    return prepare


def skipped(reason: Reason, at_least: int) -> Callable[[Site, dict[str, Any]], list[str]]:
    """Demand encounters skipped for a reason."""

    def check(site: Site, summary: dict[str, Any]) -> list[str]:
        found = summary["skipped_by_reason"].get(str(reason), 0)
        return [] if found >= at_least else [f"{found} skipped as {reason}, expected {at_least}"]

    return check


# The data


def poisoned(site: Site) -> None:
    """Give one patient everything that a feed should never send."""
    store = site.store
    subject = _scored_patient(site)
    mine = sorted(
        name
        for (kind, name), item in store.current.items()
        if kind == "Observation" and item.get("subject", {}).get("reference") == f"Patient/{subject}"
    )
    edits: list[Callable[[Resource], Resource]] = [
        lambda item: item | {"valueQuantity": {"value": 1e308, "unit": "kg"}},
        lambda item: item | {"valueQuantity": {"value": "twelve"}},
        lambda item: item | {"effectiveDateTime": "9999-12-31T23:59:59Z"},
        lambda item: item | {"effectiveDateTime": "0001-01-01T00:00:00+14:00"},
        lambda item: item | {"code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}] * 500}},
        lambda item: item | {"component": [{"code": None}] * 1000},
        lambda item: item | {"subject": [item["subject"]]},
        lambda item: item | {"status": {"text": "final"}},
        lambda item: item | {"code": {"coding": [{"system": "\u0000", "code": "\ufffe" * 1000}]}},
        lambda item: item | {"valueQuantity": {"value": -0.0, "code": "' OR 1=1 --", "unit": "../../etc"}},
    ]
    for name, edit in zip(mine, edits, strict=False):
        store.current["Observation", name] = edit(store.current["Observation", name])
    patient = store.current["Patient", subject]
    store.current["Patient", subject] = patient | {"birthDate": "0000-13-45", "gender": 7}
    site.extra["edited"] = len(edits)


def _scored_patient(site: Site) -> str:
    """Return a patient who would have been scored: the one with the most Observations."""
    counts: dict[str, int] = {}
    for (kind, _), item in site.store.current.items():
        if kind == "Observation" and "subject" in item:
            name = str(item["subject"]["reference"]).removeprefix("Patient/")
            counts[name] = counts.get(name, 0) + 1
    return max(sorted(counts), key=counts.__getitem__)


def without(*kinds: str, waveforms: bool = False) -> Callable[[Site], None]:
    """Take every resource of these types away, or every Observation with a waveform."""

    def prepare(site: Site) -> None:
        gone = [
            key
            for key, item in site.store.current.items()
            if key[0] in kinds
            or (
                waveforms
                and key[0] == "Observation"
                and any("valueSampledData" in c for c in item.get("component") or [])
            )
        ]
        for key in gone:
            del site.store.current[key]
        site.extra["edited"] = len(gone)

    return prepare


def edited(site: Site) -> int:
    """Count what was changed before the night."""
    return int(site.extra.get("edited", 0))


def flooded(site: Site) -> None:
    """Take the unit from two thirds of all Observations: the gate must stop."""
    site.extra["store"] = dict(site.store.current)
    for number, (key, item) in enumerate(sorted(site.store.current.items())):
        if key[0] == "Observation" and "valueQuantity" in item and number % 3:
            site.store.current[key] = item | {"valueQuantity": {"value": item["valueQuantity"]["value"]}}
    site.extra["edited"] = 1


def drained(site: Site) -> None:
    """Bring the units back, and look at what the stopped night left."""
    held = [key for key in site.store.current if key[0] == "RiskAssessment"]
    site.extra["held"] = len(held)
    site.store.current = site.extra["store"]


def nothing_was_written(site: Site, summary: dict[str, Any]) -> list[str]:
    """Demand that the stopped night had written nothing."""
    return [f"{site.extra['held']} scores of a stopped night"] if site.extra["held"] else []


CASES = (
    death("open_night", "after the run folder"),
    death("census", "after the census"),
    death("extract", "after the first part"),
    death("validate", "after the first shard's validation"),
    death("map_events", "after the first shard's mapping"),
    death("score", "after the first shard's scores"),
    death("write_back", "after the write-back"),
    death("after ledger marks sent", "between ledger and request"),
    death("before ledger settles", "between the server's commit and the ledger"),
    death(
        "before ledger settles",
        "between file and ledger (NDJSON)",
        wiring=Wiring(writing="ndjson"),
    ),
    death(
        "while the export runs",
        "while the export runs",
        wiring=Wiring(reading="bulk"),
        check=jobs_made(1),
    ),
    death("gate", "after the gate", whole=True),
    death("report", "after the report", whole=True),
    Case(
        name="disk full while extracting",
        group="night",
        prepare=killed("census", how="full"),
        injected=died(STOPPED),
    ),
    Case(
        name="disk full before the ledger",
        group="night",
        prepare=killed("score", how="full"),
        injected=died(STOPPED),
    ),
    Case(
        name="device out of memory: batches halved",
        group="night",
        prepare=memory_of(2),
        injected=lambda site: site.extra["count"],
    ),
    Case(
        name="device always out of memory: every sample skipped",
        group="night",
        prepare=memory_of(0),
        injected=lambda site: site.extra["count"],
        nothing_scored=True,
        check=skipped(Reason.SKIP_SCORING_FAILED, 10),
    ),
    Case(
        name="weights are not those of the card",
        group="night",
        prepare=other_weights,
        injected=edited,
        between=right_weights,
        stops="CheckpointDigestError",
    ),
    Case(
        name="one poisoned patient",
        group="night",
        prepare=poisoned,
        injected=edited,
    ),
    Case(
        name="no ECG and no radiograph at all",
        group="night",
        prepare=without("DocumentReference", "ImagingStudy", waveforms=True),
        injected=edited,
    ),
    Case(
        name="no clinical data at all",
        group="night",
        prepare=without("Observation", "DocumentReference", "ImagingStudy"),
        injected=edited,
        nothing_scored=True,
        check=skipped(Reason.SKIP_NO_USABLE_INPUT, 10),
    ),
    Case(
        name="most units missing: the gate stops the night",
        group="night",
        prepare=flooded,
        injected=edited,
        between=drained,
        stops="NightFailed",
        check=nothing_was_written,
        whole=True,
    ),
)
