"""Model cards from the registry: what a model is, how it did, who it was measured on, and TRIPOD+AI."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelling.cohorts.tasks import get_task
from modelling.evaluation.metrics import CLASSIFICATION_METRICS
from modelling.registry.folder import read_folder
from modelling.registry.records import ModelRecord, Transition
from modelling.registry.tripod import tripod_rows

SUBGROUP_METRICS = ("auroc", "calibration_in_the_large")


def registered_card(folder: Path, record: ModelRecord, history: Iterable[Transition] = ()) -> str:
    """Return a registered model's card as Markdown.

    Parameters
    ----------
    folder
        Its checked folder.
    record
        Its row of the registry.
    history
        Changes of its state to list; none makes a card that depends on the model and its evidence alone.

    Raises
    ------
    CheckpointFormatError, CheckpointDigestError
        If the folder is not what its card says.
    """
    read = read_folder(folder)
    card = read.card
    lines = [f"# {record.name} {record.digest[:12]}", "", str(card.get("description", "")), ""]
    lines += _table(
        ("", ""),
        [
            ("Digest", f"`{record.digest}`"),
            ("Task", get_task(record.task).title),
            ("Kind", record.kind),
            ("Inputs", ", ".join(card.get("modalities", []))),
            ("Data", f"{record.data_version}, fingerprint `{record.data_fingerprint}`"),
            ("Catalogue", f"`{record.catalogue_digest}`"),
            ("Code", record.code_version),
        ],
    )
    lines += ["", "## Measured on held-out patients", ""]
    evidence = record.evidence
    lines += [
        f"{evidence.get('samples', 0)} samples of {evidence.get('subjects', 0)} patients, "
        f"{evidence.get('events', 0)} with the outcome.",
        "",
    ]
    lines += _table(
        ("Metric", "Value (95 % interval)"),
        [(CLASSIFICATION_METRICS.get(name, name), _spread(found)) for name, found in record.metrics.items()],
    )
    lines += ["", "## Beside others, on the same patients", ""]
    lines += _table(
        ("Against", "Difference of the AUROC", "p"),
        [
            (
                name,
                _spread(found["difference"]["auroc"], signed=True),
                _plain(found["difference"]["auroc"]["p_value"]),
            )
            for name, found in (evidence.get("comparisons") or {}).items()
        ],
    )
    lines += ["", "## Subgroups", ""]
    lines += _table(
        ("Group", "Samples", "Events", "AUROC", "Calibration in the large"),
        [
            (
                f"{row['subgroup'].replace('_', ' ')} {row['level']}",
                str(row["samples"]),
                "–" if row["events"] is None else str(row["events"]),
                *(
                    "too few" if row["metrics"] is None else _spread(row["metrics"][name])
                    for name in SUBGROUP_METRICS
                ),
            )
            for row in record.subgroups
        ],
    )
    lines += ["", "## Calibration and levels", "", _calibration(record.calibration) + ".", ""]
    lines += [
        f"- {item['level']}: from {item['from']}" for item in record.calibration.get("thresholds") or []
    ]
    lines += ["", "## Limits", "", *(f"- {limit}" for limit in card.get("limits", []))]
    changes = [
        (f"{change.moment:%Y-%m-%d %H:%M}", str(change.kind), str(change.after), change.who, change.why)
        for change in history
    ]
    if changes:
        lines += ["", "## History", "", *_table(("When", "What", "Then", "Who", "Why"), changes)]
    lines += ["", "## TRIPOD+AI", "", *_table(("Item", "Topic", "Answer"), tripod_rows(_facts(record, card)))]
    return "\n".join(lines) + "\n"


def _facts(record: ModelRecord, card: Mapping[str, Any]) -> dict[str, str]:
    task = get_task(record.task)
    trained = card.get("trained_on", {})
    counts = trained.get("samples", {})
    if isinstance(counts, Mapping):
        samples = ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in counts.items())
    else:
        samples = str(counts)
    return {
        "title": task.title.lower(),
        "population": f"Adults of {task.minimum_age:g} years and older in intensive care for at least "
        f"{task.minimum_hours:g} hours",
        "data": f"Finished stays, data version {record.data_version}",
        "version": record.data_version,
        "description": str(card.get("description", "")),
        "catalogue": record.catalogue_digest[:12],
        "outcome": f"{task.title}; {task.source}",
        "features": str(trained.get("features", "–")),
        "modalities": ", ".join(card.get("modalities", [])),
        "samples": f"Samples: {samples}" if samples else "Not recorded",
        "kind": record.kind,
        "calibration": _calibration(record.calibration),
        "thresholds": ", ".join(
            f"{item['level']} from {item['from']}" for item in record.calibration.get("thresholds") or []
        )
        or "none",
        "fingerprint": record.data_fingerprint[:12],
        "code": record.code_version,
        "digest": record.digest[:12],
    }


def _calibration(fields: Mapping[str, Any]) -> str:
    found = fields.get("calibration") or {}
    if found.get("knots"):
        method = f"isotonic, {len(found['knots'])} points"
    else:
        method = f"temperature {found.get('temperature', 1.0):.3f}, shift {found.get('shift', 0.0):.3f}"
    bounds = fields.get("conformal")
    return f"{method}; bounds {bounds['kind']}" if bounds else f"{method}; no bounds"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _spread(interval: Mapping[str, Any], *, signed: bool = False) -> str:
    form = "+.3f" if signed else ".3f"
    if interval["value"] is None:
        return "–"
    if interval["lower"] is None:
        return f"{interval['value']:{form}}"
    return f"{interval['value']:{form}} ({interval['lower']:{form}} to {interval['upper']:{form}})"


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
