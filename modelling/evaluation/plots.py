"""Figures of an evaluation, drawn without a display and without global state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from modelling.evaluation.evaluate import Evaluation

BLUE, ORANGE, GREY = "#1f5a93", "#c8591a", "#7a7a7a"


def draw_curves(evaluation: Evaluation) -> Figure:
    """Draw ROC, precision-recall, calibration and decision curve as one figure.

    Panels of curves that the evaluation does not hold are left out.
    """
    panels = [
        name for name in ("roc", "precision_recall", "reliability", "decision") if name in evaluation.curves
    ]
    figure = Figure(figsize=(4.6 * max(len(panels), 1), 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    for position, name in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), position + 1)
        PANELS[name](axes, evaluation)
        axes.grid(visible=True, color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
    figure.suptitle(f"{evaluation.model}: {evaluation.task}, n = {evaluation.samples:,}")
    return figure


def _label(evaluation: Evaluation, metric: str, name: str) -> str:
    interval = evaluation.metrics[metric]
    return f"{name} {interval.value:.3f} ({interval.lower:.3f} to {interval.upper:.3f})"


def _roc(axes: Any, evaluation: Evaluation) -> None:
    curve = evaluation.curves["roc"]
    axes.plot(curve["x"], curve["y"], color=BLUE, label=_label(evaluation, "auroc", "AUROC"))
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
    axes.set(xlabel="False positive rate", ylabel="True positive rate", title="ROC", aspect="equal")
    axes.legend(loc="lower right", frameon=False)


def _precision_recall(axes: Any, evaluation: Evaluation) -> None:
    curve = evaluation.curves["precision_recall"]
    axes.plot(
        curve["x"],
        curve["y"],
        color=BLUE,
        label=_label(evaluation, "auprc_average_precision", "Average precision"),
    )
    prevalence = (evaluation.events or 0) / evaluation.samples
    axes.axhline(prevalence, color=GREY, linestyle=":", linewidth=1, label=f"Prevalence {prevalence:.3f}")
    axes.set(xlabel="Recall", ylabel="Precision", title="Precision-recall", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="upper right", frameon=False)


def _reliability(axes: Any, evaluation: Evaluation) -> None:
    bins = evaluation.curves["reliability"]
    below = [o - low for o, low in zip(bins["observed"], bins["lower"], strict=True)]
    above = [high - o for o, high in zip(bins["observed"], bins["upper"], strict=True)]
    top = max([0.05, *bins["predicted"], *bins["upper"]])
    axes.plot([0, top], [0, top], color=GREY, linestyle=":", linewidth=1)
    axes.errorbar(
        bins["predicted"],
        bins["observed"],
        yerr=[below, above],
        color=BLUE,
        marker="o",
        markersize=4,
        capsize=2,
        label=_label(evaluation, "calibration_slope", "Slope"),
    )
    axes.set(xlabel="Mean predicted risk", ylabel="Observed share, 95 % interval", title="Calibration")
    axes.legend(loc="upper left", frameon=False)


def _decision(axes: Any, evaluation: Evaluation) -> None:
    curve = evaluation.curves["decision"]
    axes.plot(curve["threshold"], curve["model"], color=BLUE, label=evaluation.model)
    axes.plot(curve["threshold"], curve["treat_all"], color=ORANGE, linestyle="--", label="Act on everybody")
    axes.axhline(0.0, color=GREY, linestyle=":", linewidth=1, label="Act on nobody")
    ceiling = max(0.02, *curve["model"], *curve["treat_all"])
    axes.set(
        xlabel="Threshold probability",
        ylabel="Net benefit",
        title="Decision curve",
        ylim=(-0.25 * ceiling, 1.05 * ceiling),
    )
    axes.legend(loc="upper right", frameon=False)


PANELS = {
    "roc": _roc,
    "precision_recall": _precision_recall,
    "reliability": _reliability,
    "decision": _decision,
}


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write PNG (150 dpi) and SVG; SVG ids and dates are fixed so that equal figures give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    figure.savefig(paths[0], dpi=150, metadata={"Software": None})
    with mpl.rc_context({"svg.hashsalt": "nightingale"}):
        figure.savefig(paths[1], metadata={"Date": None})
    return paths
