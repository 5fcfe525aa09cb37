"""JSON and one self-contained HTML page from an evaluation."""

from __future__ import annotations

import io
import math
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib as mpl
from jinja2 import Environment, select_autoescape
from markupsafe import Markup

from modelling.evaluation.evaluate import SMALLEST_GROUP, Evaluation
from modelling.evaluation.metrics import CLASSIFICATION_METRICS, REGRESSION_METRICS
from modelling.evaluation.plots import draw_curves, save_figure
from validation.contracts import write_json

NAMES = CLASSIFICATION_METRICS | REGRESSION_METRICS
SUBGROUP_METRICS = ("auroc", "auprc_average_precision", "calibration_in_the_large", "mae")

TEMPLATE = "report.html.j2"


def _number(value: float | None, digits: int = 3) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    return f"{value:.{digits}f}"


def _spread(interval: dict[str, Any]) -> str:
    return f"{_number(interval['value'])} ({_number(interval['lower'])} to {_number(interval['upper'])})"


def render_html(evaluation: Evaluation) -> str:
    """Return one HTML page with inline style and an inline SVG figure: no script, nothing from elsewhere."""
    svg = ""
    if evaluation.curves:
        buffer = io.StringIO()
        with mpl.rc_context({"svg.hashsalt": "nightingale", "svg.fonttype": "none"}):
            draw_curves(evaluation).savefig(buffer, format="svg", metadata={"Date": None})
        text = buffer.getvalue()
        svg = text[text.index("<svg") :]
    page = resources.files("modelling.evaluation").joinpath(TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(autoescape=select_autoescape(default_for_string=True, default=True))
    shown = [name for name in SUBGROUP_METRICS if name in evaluation.metrics]
    return environment.from_string(page).render(
        e=evaluation,
        names=NAMES,
        number=_number,
        spread=_spread,
        shown=shown,
        smallest=SMALLEST_GROUP,
        svg=Markup(svg),  # noqa: S704 - made by matplotlib, which escapes its text
    )


def write_evaluation(evaluation: Evaluation, folder: Path, *, name: str = "evaluation") -> list[Path]:
    """Write ``<name>.json``, ``.html``, ``.png`` and ``.svg`` below ``folder``; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / f"{name}.json", folder / f"{name}.html"]
    write_json(evaluation.to_dict(), written[0])
    temporary = written[1].with_suffix(".html.tmp")
    temporary.write_text(render_html(evaluation), encoding="utf-8")
    temporary.replace(written[1])
    if evaluation.curves:
        written += save_figure(draw_curves(evaluation), folder, name)
    return written
