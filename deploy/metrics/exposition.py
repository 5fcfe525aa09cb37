"""A run's summary as Prometheus text (exposition format 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

PREFIX = "nightingale_"


@dataclass(frozen=True)
class Metric:
    """A gauge with its samples.

    Attributes
    ----------
    name, help
        Without the prefix, and one line of words.
    samples
        Labels and value.
    """

    name: str
    help: str
    samples: list[tuple[dict[str, str], float]] = field(default_factory=list)


def run_metrics(
    summary: Mapping[str, Any],
    *,
    site: str,
    success: bool,
    started: float,
    ended: float,
    stages: Mapping[str, float],
    model: Mapping[str, Any] | None = None,
) -> list[Metric]:
    """Return the metrics of one run.

    Parameters
    ----------
    summary
        Contents of ``summary.json``.
    started, ended
        Unix seconds.
    stages
        Seconds that each stage took.
    model
        Facts of the model that scored, ``digest`` and ``name``.
    """
    counts: Mapping[str, int] = summary.get("counts", {})
    write: Mapping[str, Any] = summary.get("write_back") or {}
    gate = (summary.get("gate") or {}).get("decision") or "none"
    facts = {
        "partition": str(summary.get("partition", "")),
        "model": str((model or {}).get("digest") or "")[:12],
    }

    def of(names: Iterable[str]) -> list[tuple[dict[str, str], float]]:
        return [({"state": name}, float(counts.get(name, 0))) for name in names]

    def by(label: str, key: str) -> list[tuple[dict[str, str], float]]:
        return [({label: str(name)}, float(n)) for name, n in (summary.get(key) or {}).items()]

    metrics = [
        Metric("run_info", "The run that these numbers describe.", [(facts, 1.0)]),
        Metric("run_success", "1 when the run is in order, else 0.", [({}, float(success))]),
        Metric("run_started_seconds", "Start of the run.", [({}, started)]),
        Metric("run_ended_seconds", "End of the run.", [({}, ended)]),
        Metric("run_duration_seconds", "Wall-clock time of the run.", [({}, max(0.0, ended - started))]),
        Metric(
            "stage_seconds", "Wall-clock time of a stage.", [({"stage": k}, v) for k, v in stages.items()]
        ),
        Metric("resources", "FHIR resources of the run.", of(("pulled", "accepted", "quarantined"))),
        Metric("encounters", "Encounters of the run.", of(("eligible", "scored", "skipped"))),
        Metric("assessments", "RiskAssessments of the run.", of(("scored", "confirmed", "dead_lettered"))),
        Metric(
            "writes",
            "What the destination did.",
            [
                ({"outcome": name}, float(write.get(name) or 0))
                for name in ("written", "unchanged", "dead_lettered")
            ],
        ),
        Metric("quarantined_rows", "Refused rows by reason.", by("reason", "quarantined_rows_by_reason")),
        Metric("skipped_encounters", "Skipped encounters by reason.", by("reason", "skipped_by_reason")),
        Metric("scores", "Scores by the modalities they used.", by("modalities", "scores_by_modalities")),
        Metric(
            "equation_holds",
            "1 when an equation of the run holds, else 0.",
            [
                ({"equation": str(item["name"])}, float(item["holds"]))
                for item in summary.get("equations", [])
            ],
        ),
        Metric("gate_decision", "What the gate decided.", [({"decision": str(gate)}, 1.0)]),
    ]
    moment = summary.get("prediction_time")
    if moment:
        seconds = datetime.fromisoformat(str(moment)).timestamp()
        metrics.append(Metric("prediction_time_seconds", "Prediction time of the run.", [({}, seconds)]))
    return [
        Metric(item.name, item.help, [({"site": site, **labels}, value) for labels, value in item.samples])
        for item in metrics
    ]


def render(metrics: Iterable[Metric]) -> str:
    """Return metrics as text.

    Examples
    --------
    >>> print(render([Metric("x", "An x.", [({"site": "a"}, 1.0)])]), end="")
    # HELP nightingale_x An x.
    # TYPE nightingale_x gauge
    nightingale_x{site="a"} 1
    """
    lines: list[str] = []
    for metric in metrics:
        name = PREFIX + metric.name
        lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} gauge"]
        for labels, value in metric.samples:
            shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
            lines.append(f"{name}{{{shown}}} {_number(value)}")
    return "\n".join([*lines, ""])


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.3f}"
