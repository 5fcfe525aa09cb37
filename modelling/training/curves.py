"""Curves of training as one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def draw_curves(history: list[dict[str, Any]], path: Path) -> None:
    """Plot loss (training) and score (tuning) of every stage against epochs, one column a stage."""
    stages = list(dict.fromkeys(entry["stage"] for entry in history))
    figure = Figure(figsize=(3.2 * max(1, len(stages)), 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, max(1, len(stages)), squeeze=False, sharex="col")
    for column, stage in enumerate(stages):
        entries = [entry for entry in history if entry["stage"] == stage]
        epochs = [entry["epoch"] + 1 for entry in entries]
        axes[0][column].plot(epochs, [entry["loss"] for entry in entries], color="#1f5fa8", marker=".")
        axes[1][column].plot(epochs, [entry["score"] for entry in entries], color="#b0472f", marker=".")
        axes[0][column].set_title(stage)
        axes[1][column].set_xlabel("epoch")
        for row in (0, 1):
            axes[row][column].grid(alpha=0.3)
    axes[0][0].set_ylabel("training loss")
    axes[1][0].set_ylabel("tuning score")
    figure.savefig(path, dpi=110, metadata={"Software": None})
