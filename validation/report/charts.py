"""Small charts as inline SVG: they take the page's ink, scale with it, and say in words what they show."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH = 360
HEIGHT = 150
LEFT = 52
BOTTOM = 24
TOP = 12
RIGHT = 8


def _number(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 1_000_000:
        return f"{value / 1e6:.3g} M"
    if abs(value) >= 10_000:
        return f"{value / 1e3:.3g} k"
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.3g}"


def _frame(title: str, description: str, body: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title, quote=True)}. {escape(description, quote=True)}">'
        f"<title>{escape(title)}</title>{body}</svg>"
    )


def _across(position: float) -> float:
    return LEFT + position * (WIDTH - LEFT - RIGHT)


def _up(position: float) -> float:
    return HEIGHT - BOTTOM - position * (HEIGHT - TOP - BOTTOM)


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _axes(top: str) -> str:
    base = _up(0)
    return (
        f'<line class="axis" x1="{LEFT}" y1="{base}" x2="{WIDTH - RIGHT}" y2="{base}"/>'
        f"{_text(LEFT - 4, _up(1) + 4, top, 'end')}{_text(LEFT - 4, base + 4, '0', 'end')}"
    )


def columns(title: str, labels: Sequence[str], numbers: Sequence[float]) -> str:
    """Return a column chart; ``labels`` has one entry more than ``numbers`` (the edges of the bins)."""
    highest = max(numbers, default=0) or 1
    step = 1 / max(1, len(numbers))
    body = _axes(_number(highest))
    for place, number in enumerate(numbers):
        x, width = _across(place * step), step * (WIDTH - LEFT - RIGHT)
        y = _up(number / highest)
        body += (
            f'<rect class="fill" x="{x + 1:.1f}" y="{y:.1f}" width="{max(1, width - 2):.1f}" '
            f'height="{max(0, _up(0) - y):.1f}"/>'
        )
        if number:
            body += _text(x + width / 2, max(TOP - 2, y - 3), _number(number))
    every = max(1, len(labels) // 6)
    for place, label in enumerate(labels):
        if place % every == 0 or place == len(labels) - 1:
            body += _text(_across(place * step), HEIGHT - 8, label)
    described = ", ".join(
        f"{labels[place]} to {labels[place + 1]}: {_number(number)}" for place, number in enumerate(numbers)
    )
    return _frame(title, described, body)


def line(title: str, labels: Sequence[str], numbers: Sequence[float | None], *, share: bool = False) -> str:
    """Return a line chart over nights; None leaves a gap. The last point is marked and written out."""
    known = [number for number in numbers if number is not None]
    highest = max(known, default=0) or 1
    step = 1 / max(1, len(numbers) - 1)

    def show(value: float) -> str:
        return f"{100 * value:.3g} %" if share else _number(value)

    body = _axes(show(highest))
    path, pen = "", "M"
    last: tuple[float, float, float] | None = None
    for place, number in enumerate(numbers):
        if number is None:
            pen = "M"
            continue
        x, y = _across(place * step if len(numbers) > 1 else 0.5), _up(number / highest)
        path += f"{pen}{x:.1f} {y:.1f}"
        pen = "L"
        last = (x, y, number)
    body += f'<path class="stroke" d="{path}"/>'
    if last:
        body += f'<circle class="fill" cx="{last[0]:.1f}" cy="{last[1]:.1f}" r="3.5"/>'
        body += _text(min(last[0], WIDTH - RIGHT), max(TOP, last[1] - 7), show(last[2]), "end")
    if labels:
        body += _text(LEFT, HEIGHT - 8, labels[0], "start")
        if len(labels) > 1:
            body += _text(WIDTH - RIGHT, HEIGHT - 8, labels[-1], "end")
    described = f"{len(known)} nights, last {show(known[-1])}" if known else "no nights"
    return _frame(title, described, body)


def trend(
    title: str,
    labels: Sequence[str],
    spreads: Sequence[tuple[float, float, float] | None],
    *,
    limits: tuple[float, float],
    guide: float | None = None,
) -> str:
    """Return values with their intervals over time; None leaves a gap.

    Parameters
    ----------
    spreads
        Value, lower and upper bound of each label.
    limits
        Range of the axis, widened where a bound lies outside.
    guide
        Value at which a dashed line is drawn, such as the one that was expected.
    """
    known = [spread for spread in spreads if spread is not None]
    low = min([limits[0], *(spread[1] for spread in known)])
    high = max([limits[1], *(spread[2] for spread in known)])

    def at(value: float) -> float:
        return _up((value - low) / (high - low))

    base = _up(0)
    body = (
        f'<line class="axis" x1="{LEFT}" y1="{base}" x2="{WIDTH - RIGHT}" y2="{base}"/>'
        f"{_text(LEFT - 4, _up(1) + 4, _number(high), 'end')}{_text(LEFT - 4, base + 4, _number(low), 'end')}"
    )
    if guide is not None:
        body += f'<path class="guide" d="M{_across(0)} {at(guide):.1f}L{_across(1)} {at(guide):.1f}"/>'
    step = 1 / max(1, len(spreads))
    path, pen = "", "M"
    for place, spread in enumerate(spreads):
        if spread is None:
            pen = "M"
            continue
        value, lower, upper = spread
        x = _across((place + 0.5) * step)
        path += f"{pen}{x:.1f} {at(value):.1f}"
        pen = "L"
        body += (
            f'<path class="axis" d="M{x:.1f} {at(lower):.1f}V{at(upper):.1f}"/>'
            f'<circle class="fill" cx="{x:.1f}" cy="{at(value):.1f}" r="3.5"/>'
        )
    body += f'<path class="stroke" d="{path}"/>'
    if labels:
        body += _text(LEFT, HEIGHT - 8, labels[0], "start")
        if len(labels) > 1:
            body += _text(WIDTH - RIGHT, HEIGHT - 8, labels[-1], "end")
    described = ", ".join(
        f"{label}: {spread[0]:.3f} ({spread[1]:.3f} to {spread[2]:.3f})"
        for label, spread in zip(labels, spreads, strict=True)
        if spread is not None
    )
    return _frame(title, described or "nothing known yet", body)


def spark(title: str, numbers: Sequence[float | None], *, limits: tuple[float, float]) -> str:
    """Return a line without axes, as small as a word; None leaves a gap, a lone value is a point."""
    width, height, edge = 120, 24, 3
    low, high = limits
    step = (width - 2 * edge) / max(1, len(numbers) - 1)
    path, pen, body = "", "M", ""
    for place, number in enumerate(numbers):
        if number is None:
            pen = "M"
            continue
        x = edge + place * step
        y = height - edge - (min(max(number, low), high) - low) / (high - low) * (height - 2 * edge)
        path += f"{pen}{x:.1f} {y:.1f}"
        pen = "L"
        body += f'<circle class="fill" cx="{x:.1f}" cy="{y:.1f}" r="2"/>'
    told = ", ".join("–" if number is None else f"{number:.3f}" for number in numbers)
    name = escape(f"{title}: {told}", quote=True)
    return (
        f'<svg class="spark" viewBox="0 0 {width} {height}" role="img" aria-label="{name}">'
        f'<path class="stroke" d="{path}"/>{body}</svg>'
    )


def calibration_plot(title: str, points: Sequence[tuple[float, float, int]]) -> str:
    """Return predicted against observed risk with the diagonal; a point's area grows with its number."""
    most = max((n for _, _, n in points), default=1)
    body = _axes("1") + f'<path class="guide" d="M{_across(0)} {_up(0)}L{_across(1)} {_up(1)}"/>'
    for predicted, observed, n in points:
        radius = 2.5 + 4 * (n / most) ** 0.5
        body += (
            f'<circle class="fill" cx="{_across(predicted):.1f}" cy="{_up(observed):.1f}" r="{radius:.1f}"/>'
        )
    body += _text(_across(0.5), HEIGHT - 8, "predicted") + _text(_across(1), HEIGHT - 8, "1", "end")
    body += _text(LEFT + 4, TOP + 4, "observed", "start")
    described = ", ".join(f"predicted {p:.2f}, observed {o:.2f}" for p, o, _ in points)
    return _frame(title, described, body)
