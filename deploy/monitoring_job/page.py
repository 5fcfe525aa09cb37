"""The page of a monitoring run: plots and tables, no script, nothing loaded from elsewhere, aggregates only."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from modelling.evaluation.evaluate import SMALLEST_GROUP
from validation.report import charts

METRICS = {
    "auroc": "AUROC",
    "auprc_average_precision": "AUPRC",
    "brier": "Brier score",
    "calibration_in_the_large": "Calibration in the large",
    "calibration_slope": "Calibration slope",
}


def render_page(summary: Mapping[str, Any], *, site: str, task: str, note: str | None) -> str:
    """Return the page.

    Parameters
    ----------
    summary
        ``moment``, ``windows`` and ``alarms`` as :mod:`deploy.monitoring_job.steps` writes them.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    models = [
        _model(list(windows))
        for _, windows in groupby(summary["windows"], key=lambda item: (item["role"], item["digest"]))
    ]
    return environment.get_template("page.html.j2").render(
        site=site,
        task=task,
        note=note,
        moment=summary["moment"][:10],
        alarms=summary["alarms"],
        models=models,
        metrics=METRICS,
        spread=_spread,
        smallest=SMALLEST_GROUP,
    )


def write_page(path: Path, text: str) -> Path:
    """Write the page under a temporary name and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return path


def _model(windows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    days = [window["start"][:10] for window in windows]

    def metric(name: str) -> list[float | None]:
        return [window["metrics"][name]["value"] if window["metrics"] else None for window in windows]

    plots = [
        ("AUROC", charts.line("AUROC", days, metric("auroc"))),
        ("AUPRC", charts.line("AUPRC", days, metric("auprc_average_precision"))),
        (
            "Expected calibration error",
            charts.line("Expected calibration error", days, metric("expected_calibration_error")),
        ),
        (
            "Share of scores at high risk",
            charts.line("Share at high risk", days, [window["alert_rate"] for window in windows], share=True),
        ),
        (
            "Stability index of the scores against the first window",
            charts.line("Stability index", days, [window["stability"] for window in windows]),
        ),
    ]
    judged = [window for window in windows if window["reliability"]]
    if judged:
        bins = judged[-1]["reliability"]
        points = [
            (float(p), float(o), int(n))
            for p, o, n in zip(bins["predicted"], bins["observed"], bins["count"], strict=True)
        ]
        title = f"Predicted against observed, window from {judged[-1]['start'][:10]}"
        plots.append((title, charts.calibration_plot("Predicted against observed risk", points)))
    return {
        "role": windows[0]["role"],
        "name": windows[0]["name"],
        "digest": windows[0]["digest"],
        "windows": windows,
        "charts": [(title, Markup(chart)) for title, chart in plots],  # noqa: S704 - escaped by charts
        "groups": judged[-1]["subgroups"] if judged else [],
        "groups_from": judged[-1]["start"] if judged else "",
    }


def _spread(interval: Mapping[str, Any]) -> str:
    if interval["value"] is None or interval["lower"] is None:
        return "–"
    return f"{interval['value']:.3f} ({interval['lower']:.3f} to {interval['upper']:.3f})"
