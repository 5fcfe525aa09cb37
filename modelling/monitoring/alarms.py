"""Alarms by rule: when a person must look at a model again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from modelling.monitoring.outcomes import CHAMPION
from modelling.monitoring.performance import Window


@dataclass(frozen=True, kw_only=True)
class AlarmRules:
    """Limits; each is exceeded only beyond chance, where an interval is known.

    Attributes
    ----------
    fewest_events
        Events, and non-events, of a window below which its outcomes raise no alarm.
    auroc_fall, subgroup_fall
        Fall of the AUROC below the model's held-out value, overall and in a group.
    in_the_large
        Calibration in the large, in log-odds.
    alert_rate_factor
        Factor by which the share of high risk may rise or fall against the first window.
    psi
        Population stability index of the probabilities.
    """

    fewest_events: int = 20
    auroc_fall: float = 0.05
    subgroup_fall: float = 0.1
    in_the_large: float = 0.5
    alert_rate_factor: float = 2.0
    psi: float = 0.25


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """One alarm.

    Attributes
    ----------
    rule
        Which limit was exceeded.
    digest, start
        Which model, in which window.
    text
        One sentence with the numbers.
    """

    rule: str
    digest: str
    start: str
    text: str

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)


def find_alarms(
    windows: Sequence[Window], *, reference: Mapping[str, float], rules: AlarmRules
) -> list[Alarm]:
    """Return the alarms of champions; shadows are shown, but raise none.

    Parameters
    ----------
    windows
        From :func:`modelling.monitoring.performance.measure_windows`.
    reference
        Digest to the AUROC on held-out patients before promotion; a model without one raises no fall.
    """
    alarms: list[Alarm] = []
    first: dict[str, Window] = {}
    for window in windows:
        if window.role != CHAMPION:
            continue
        base = first.setdefault(window.digest, window)
        found = [
            *_outcomes(window, reference.get(window.digest), rules),
            *_distribution(window, base, rules),
        ]
        alarms += [
            Alarm(rule=rule, digest=window.digest, start=window.start, text=text) for rule, text in found
        ]
    return alarms


def _outcomes(window: Window, expected: float | None, rules: AlarmRules) -> list[tuple[str, str]]:
    events = window.events
    if window.metrics is None or events is None or min(events, window.known - events) < rules.fewest_events:
        return []
    found = []
    auroc = window.metrics["auroc"]
    if expected is not None and auroc["upper"] < expected - rules.auroc_fall:
        found.append(("auroc_fall", f"AUROC {_spread(auroc)}, {expected:.3f} before promotion"))
    large = window.metrics["calibration_in_the_large"]
    if large["lower"] > rules.in_the_large or large["upper"] < -rules.in_the_large:
        direction = "too low" if large["value"] > 0 else "too high"
        found.append(("miscalibrated", f"risks are {direction}: in the large {_spread(large)} log-odds"))
    for row in window.subgroups:
        area = row["auroc"]
        few = row["events"] is None or min(row["events"], row["known"] - row["events"]) < rules.fewest_events
        if expected is None or area is None or few:
            continue
        if area["upper"] < expected - rules.subgroup_fall:
            group = f"{row['subgroup'].replace('_', ' ')} {row['level']}"
            found.append(
                ("subgroup_fall", f"{group}: AUROC {_spread(area)}, {expected:.3f} before promotion")
            )
    return found


def _distribution(window: Window, base: Window, rules: AlarmRules) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if window is base:
        return found
    if window.stability is not None and window.stability > rules.psi:
        found.append(("score_drift", f"stability index of the scores {window.stability:.2f}"))
    if window.scored and base.scored:
        # Half a score is added, so that a window without any alert has a rate to compare.
        now = (window.alert_rate * window.scored + 0.5) / (window.scored + 1)
        then = (base.alert_rate * base.scored + 0.5) / (base.scored + 1)
        share = now / then
        beyond = (
            abs(now - then) > 2 * ((now * (1 - now)) / window.scored + then * (1 - then) / base.scored) ** 0.5
        )
        if beyond and not 1 / rules.alert_rate_factor <= share <= rules.alert_rate_factor:
            found.append(
                (
                    "alert_rate",
                    f"{100 * window.alert_rate:.1f} % at high risk, {100 * base.alert_rate:.1f} % at first",
                )
            )
    return found


def _spread(interval: Mapping[str, Any]) -> str:
    return f"{interval['value']:.3f} ({interval['lower']:.3f} to {interval['upper']:.3f})"
