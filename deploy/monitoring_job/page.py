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
        ``moment``, ``windows``, ``alarms`` and ``reference`` (digest to the AUROC before promotion) as
        :mod:`deploy.monitoring_job.steps` writes them.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    models = [
        _model(list(windows), summary["reference"].get(digest))
        for (_, digest), windows in groupby(
            summary["windows"], key=lambda item: (item["role"], item["digest"])
        )
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


def _model(windows: Sequence[Mapping[str, Any]], expected: float | None) -> dict[str, Any]:
    judged = [window for window in windows if window["metrics"]]
    return {
        "role": windows[0]["role"],
        "name": windows[0]["name"],
        "digest": windows[0]["digest"],
        "windows": windows,
        "charts": [(title, Markup(chart)) for title, chart in _charts(windows, expected)],  # noqa: S704 - escaped by charts
        "groups": _groups(judged),
        "expected": expected,
    }


def _charts(windows: Sequence[Mapping[str, Any]], expected: float | None) -> list[tuple[str, str]]:
    days = [window["start"][:10] for window in windows]

    def metric(name: str) -> list[tuple[float, float, float] | None]:
        return [_bounds(window["metrics"][name]) if window["metrics"] else None for window in windows]

    auroc = "AUROC" if expected is None else f"AUROC; dashed: {expected:.3f} before promotion"
    plots = [
        (auroc, charts.trend("AUROC", days, metric("auroc"), limits=(0.5, 1.0), guide=expected)),
        ("AUPRC", charts.trend("AUPRC", days, metric("auprc_average_precision"), limits=(0.0, 1.0))),
        (
            "Calibration in the large, log-odds; above zero risks are too low",
            charts.trend(
                "Calibration in the large",
                days,
                metric("calibration_in_the_large"),
                limits=(-1.0, 1.0),
                guide=0.0,
            ),
        ),
        (
            "Share of scores at high risk",
            charts.line("Share at high risk", days, [window["alert_rate"] for window in windows], share=True),
        ),
        (
            "Drift: stability index of the scores against the first window",
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
    return plots


def _groups(judged: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each group with its AUROC over the windows and its row of the latest window that has it."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for place, window in enumerate(judged):
        for row in window["subgroups"]:
            group = found.setdefault(
                (row["subgroup"], row["level"]),
                {"name": f"{row['subgroup'].replace('_', ' ')} {row['level']}", "over": [None] * len(judged)},
            )
            group["over"][place] = None if row["auroc"] is None else row["auroc"]["value"]
            group |= {"row": row, "start": window["start"]}
    for group in found.values():
        chart = charts.spark(f"AUROC of {group['name']}", group["over"], limits=(0.5, 1.0))
        group["chart"] = Markup(chart)  # noqa: S704 - escaped by charts
    return [found[key] for key in sorted(found)]


def _bounds(interval: Mapping[str, Any]) -> tuple[float, float, float] | None:
    value = interval["value"]
    if value is None:
        return None
    lower, upper = interval["lower"], interval["upper"]
    return value, value if lower is None else lower, value if upper is None else upper


def _spread(interval: Mapping[str, Any]) -> str:
    if interval["value"] is None or interval["lower"] is None:
        return "–"
    return f"{interval['value']:.3f} ({interval['lower']:.3f} to {interval['upper']:.3f})"
