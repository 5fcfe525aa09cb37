"""Rendering the report: one HTML file that needs nothing else, and its JSON twin."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from validation.contracts import write_json
from validation.equations import check_equations
from validation.profiles import describe_comparison
from validation.report import charts
from validation.report.facts import DISCLAIMER, ReportFacts, keep_presentable_codes, with_explanations

OUTCOMES = {
    "pass": ("Pass", "good", "✓"),
    "pass_with_warnings": ("Pass with warnings", "warn", "!"),
    "stop": ("Stopped", "bad", "✕"),
}

TRENDS: dict[str, tuple[str, bool]] = {
    "pulled": ("Resources pulled", False),
    "quarantined_share": ("Share in quarantine", True),
    "eligible": ("Encounters eligible", False),
    "scored": ("Encounters scored", False),
    "mean_probability": ("Mean probability", False),
    "drifted_features": ("Inputs drifted", False),
}
"""Metrics of the history shown as small charts: title, and whether a share."""

SHOWN_FEATURES = 60
SHOWN_COMPARISONS = 20


def render_page(facts: ReportFacts) -> str:
    """Return the report as one HTML document.

    All text is escaped; the page holds no script and loads nothing.
    """
    tables = facts.profiles.tables() if facts.profiles else {}
    decision = facts.gate.decision if facts.gate else None
    return (
        templates()
        .get_template("page.html.j2")
        .render(
            facts=facts,
            counts=facts.counts,
            equations=check_equations(facts.counts),
            outcome=OUTCOMES[decision] if decision else ("Not reached", "bad", "?"),
            disclaimer=DISCLAIMER,
            quarantined=_bars(with_explanations(facts.quarantined)),
            skipped=_bars(with_explanations(facts.skipped)),
            modalities=_bars(facts.modalities),
            risk_levels=_bars(facts.risk_levels),
            unmapped=_bars(keep_presentable_codes(facts.unmapped)),
            features=_features(tables.get("features")),
            wards=tables["wards"].to_dicts() if tables else [],
            sources=tables["sources"].to_dicts() if tables else [],
            drift=_drift(facts.drift),
            score_chart=_score_chart(facts.score_bins),
            calibration_chart=_calibration_chart(facts.calibration),
            calibration=facts.calibration.to_dicts() if facts.calibration is not None else [],
            trend_charts=_trend_charts(facts.trends),
        )
    )


def templates() -> Environment:
    """Return the pages' templates: all text is escaped, and a missing name is an error."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"share": _share, "whole": _whole, "short": _short, "plain": _plain}
    return environment


def write_report(run_folder: Path, facts: ReportFacts) -> Path:
    """Write ``report/index.html`` and ``report/report.json`` below a run folder.

    Returns
    -------
    Path
        The HTML page.
    """
    folder = run_folder / "report"
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "index.html"
    temporary = folder / f".index.html.{os.getpid()}.tmp"
    temporary.write_text(render_page(facts), encoding="utf-8")
    temporary.replace(page)
    write_json(facts.to_dict(), folder / "report.json")
    return page


def _share(value: float | None) -> str:
    if value is None:
        return "–"
    if 0 < value < 0.001:
        return "< 0.1 %"
    return f"{100 * value:.1f} %"


def _whole(value: int) -> str:
    return f"{value:,}".replace(",", "\u202f")  # narrow space: unambiguous in English and German alike


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "not recorded"


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _bars(frame: pl.DataFrame) -> list[dict[str, object]]:
    """Return the rows with ``width``: the percentage of the longest bar."""
    if frame.is_empty():
        return []
    return frame.with_columns((100 * pl.col("n") / pl.col("n").max()).round(1).alias("width")).to_dicts()


def _features(table: pl.DataFrame | None) -> list[dict[str, object]]:
    if table is None or table.is_empty():
        return []
    return table.sort("n_events", "feature", descending=[True, False]).head(SHOWN_FEATURES).to_dicts()


def _drift(table: pl.DataFrame | None) -> list[dict[str, object]]:
    if table is None or table.is_empty():
        return []
    ordered = table.sort("drifted", "q_value", "kind", "name", descending=[True, False, False, False])
    distance, missing = pl.col("distance"), pl.col("kind") == "missing"
    points = pl.format("{} points", (100 * distance).round(0).cast(pl.Int64).cast(pl.String))
    signed = pl.when(distance > 0).then(pl.format("+{}", points)).otherwise(points)
    change = pl.when(missing).then(signed).otherwise(distance.round_sig_figs(2).cast(pl.String))
    adjusted = pl.col("q_value")
    chance = (
        pl.when(adjusted < 0.001)
        .then(pl.lit("< 0.001"))
        .otherwise(adjusted.round_sig_figs(2).cast(pl.String))
    )
    shown = ordered.with_columns(
        change.str.replace("-", "\u2212", literal=True).alias("change"),
        chance.alias("chance"),
        describe_comparison().alias("compared"),
    )
    return shown.head(SHOWN_COMPARISONS).to_dicts()


def _score_chart(bins: pl.DataFrame) -> Markup | None:
    if bins.is_empty() or not bins["n"].sum():
        return None
    edges = [f"{edge:.1f}" for edge in (*bins["low"], bins["high"][-1])]
    return Markup(charts.columns("Scores by predicted probability", edges, bins["n"].to_list()))  # noqa: S704


def _calibration_chart(table: pl.DataFrame | None) -> Markup | None:
    if table is None or table.is_empty():
        return None
    points = list(table.select("predicted", "observed", "n").drop_nulls().iter_rows())
    return Markup(charts.calibration_plot("Predicted against observed risk", points))  # noqa: S704


def _trend_charts(trends: pl.DataFrame | None) -> list[tuple[str, Markup]]:
    if trends is None or trends.is_empty():
        return []
    nights = trends["night"].unique().sort().to_list()
    if len(nights) < 2:
        return []
    shown = []
    for metric, (title, share) in TRENDS.items():
        values = dict(trends.filter(pl.col("metric") == metric).select("night", "value").iter_rows())
        if values:
            numbers = [values.get(night) for night in nights]
            chart = charts.line(title, [str(night) for night in nights], numbers, share=share)
            shown.append((title, Markup(chart)))  # noqa: S704
    return shown
