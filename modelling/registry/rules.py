"""When a candidate may become champion: rules with their reasons, judged on recorded evidence alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelling.registry.records import Finding

CHAMPION = "champion"
"""Name of the champion among the comparisons of the evidence."""


@dataclass(frozen=True, kw_only=True)
class PromotionRules:
    """Limits of promotion.

    Attributes
    ----------
    fewest_events
        Held-out events and non-events below which nothing is promoted.
    margin
        By how much the AUROC may be lower than the champion's at the lower end of the paired interval.
    beats, confidence
        Baselines that the candidate must beat, and the share of paired resamples in which it must.
    slope, in_the_large, calibration_error
        Calibration slope, mean log-odds shift and expected calibration error that are tolerated: a candidate
        is refused when its interval lies outside, that is, when the miscalibration is beyond chance.
    subgroup_margin, subgroup_events
        A group with at least so many events and non-events is harmed when its AUROC fell by more than the
        margin against the champion, and the fall is beyond chance.
    highest_auroc, highest_feature_auroc
        Above these a candidate, or one single input, is too good to be true: the label has leaked.
    approvers
        Names of those who may approve; empty lets anybody who gives a name.
    """

    fewest_events: int = 20
    margin: float = 0.02
    beats: tuple[str, ...] = ("NEWS2", "boosting")
    confidence: float = 0.95
    slope: tuple[float, float] = (0.7, 1.4)
    in_the_large: float = 0.3
    calibration_error: float = 0.1
    subgroup_margin: float = 0.05
    subgroup_events: int = 10
    highest_auroc: float = 0.99
    highest_feature_auroc: float = 0.95
    approvers: tuple[str, ...] = ()


def judge_candidate(
    evidence: Mapping[str, Any], rules: PromotionRules, *, champion: str | None, digest: str
) -> list[Finding]:
    """Judge a candidate by its evidence.

    Parameters
    ----------
    evidence
        From :func:`modelling.registry.evidence.gather_evidence`.
    champion
        Digest of the registered champion; None if there is none (the shipped weights may stand in for it).
    digest
        Of the candidate.

    Returns
    -------
    list of Finding
        One a rule, in a fixed order.
    """
    if not evidence.get("metrics"):
        return [Finding(rule="evaluated", passed=False, reason="it was never evaluated on held-out patients")]
    return [
        _enough(evidence, rules),
        *_leaks(evidence, rules),
        _champion(evidence, rules, champion, digest),
        *[_beats(evidence, rules, name) for name in rules.beats],
        _calibrated(evidence, rules),
        _subgroups(evidence, rules),
    ]


def _enough(evidence: Mapping[str, Any], rules: PromotionRules) -> Finding:
    events, others = evidence["events"], evidence["samples"] - evidence["events"]
    return Finding(
        rule="enough_events",
        passed=min(events, others) >= rules.fewest_events,
        reason=f"{events} events and {others} non-events held out, at least {rules.fewest_events} are needed",
    )


def _leaks(evidence: Mapping[str, Any], rules: PromotionRules) -> list[Finding]:
    auroc = evidence["metrics"]["auroc"]["value"]
    leaks = evidence.get("leaks")
    if leaks is None:
        inputs = Finding(rule="no_leak", passed=False, reason="the inputs were never searched for leaks")
    else:
        named = ", ".join(f"{item['input']} ({item['why']})" for item in leaks[:3])
        inputs = Finding(
            rule="no_leak",
            passed=not leaks,
            reason=f"{len(leaks)} input(s) give the label away: {named}"
            if leaks
            else "no input gives it away",
        )
    plausible = Finding(
        rule="plausible",
        passed=auroc < rules.highest_auroc,
        reason=f"AUROC {auroc:.3f}, above {rules.highest_auroc} it would be too good to be true",
    )
    return [inputs, plausible]


def _champion(
    evidence: Mapping[str, Any], rules: PromotionRules, champion: str | None, digest: str
) -> Finding:
    rule = "not_worse_than_champion"
    compared = evidence.get("champion") or {}
    if champion == digest:
        return Finding(rule=rule, passed=True, reason="it is the champion")
    if champion is not None and compared.get("digest") != champion:
        return Finding(
            rule=rule,
            passed=False,
            reason=f"the evidence does not compare it with the present champion {champion[:12]}; "
            "retrain or evaluate again",
        )
    if compared.get("error"):
        return Finding(
            rule=rule,
            passed=False,
            reason=f"the champion could not score the held-out patients ({compared['error']}); "
            "retire it first if it is of no use any more",
        )
    comparison = (evidence.get("comparisons") or {}).get(CHAMPION)
    if comparison is None:
        return Finding(rule=rule, passed=True, reason="there is no champion to compare with")
    difference = comparison["difference"]["auroc"]
    return Finding(
        rule=rule,
        passed=difference["lower"] is not None and difference["lower"] >= -rules.margin,
        reason=f"AUROC {_signed(difference)} against {compared.get('name', 'the champion')}, "
        f"tolerated down to {-rules.margin:+.3f}",
    )


def _beats(evidence: Mapping[str, Any], rules: PromotionRules, name: str) -> Finding:
    rule = f"beats_{name.lower()}"
    comparison = (evidence.get("comparisons") or {}).get(name)
    if comparison is None:
        return Finding(rule=rule, passed=False, reason=f"it was not compared with {name}")
    difference = comparison["difference"]["auroc"]
    better = 0.0
    if difference["p_value"] is not None:
        # Two-sided by construction: half of it is the share of resamples on the other side of zero.
        better = 1 - difference["p_value"] / 2 if difference["value"] > 0 else difference["p_value"] / 2
    return Finding(
        rule=rule,
        passed=difference["value"] > 0 and better >= rules.confidence,
        reason=f"AUROC {_signed(difference)} against {name}, better in {100 * better:.1f} % of resamples "
        f"({100 * rules.confidence:.1f} % needed)",
    )


def _calibrated(evidence: Mapping[str, Any], rules: PromotionRules) -> Finding:
    metrics = evidence["metrics"]
    limits = {
        "calibration_slope": rules.slope,
        "calibration_in_the_large": (-rules.in_the_large, rules.in_the_large),
        "expected_calibration_error": (0.0, rules.calibration_error),
    }
    off = [
        f"{name.replace('_', ' ')} {_spread(metrics[name])} outside {low:g} to {high:g}"
        for name, (low, high) in limits.items()
        if name not in metrics or _outside(metrics[name], low, high)
    ]
    return Finding(
        rule="calibrated",
        passed=not off,
        reason="; ".join(off)
        or f"slope {_spread(metrics['calibration_slope'])}, in the large "
        f"{_spread(metrics['calibration_in_the_large'])}",
    )


def _outside(interval: Mapping[str, Any], low: float, high: float) -> bool:
    if interval["value"] is None or interval["lower"] is None or interval["upper"] is None:
        return True
    return bool(interval["upper"] < low or interval["lower"] > high)


def _subgroups(evidence: Mapping[str, Any], rules: PromotionRules) -> Finding:
    rows = [
        row
        for row in evidence.get("subgroup_differences") or []
        if min(row["events"], row["samples"] - row["events"]) >= rules.subgroup_events
    ]
    harmed = [
        f"{row['subgroup'].replace('_', ' ')} {row['level']} (AUROC {_signed(row['difference'])}, n = {row['samples']})"
        for row in rows
        if row["difference"]["value"] < -rules.subgroup_margin and row["difference"]["upper"] < 0
    ]
    return Finding(
        rule="no_subgroup_harmed",
        passed=not harmed,
        reason="; ".join(harmed) or f"{len(rows)} groups with {rules.subgroup_events} events or more held",
    )


def _signed(interval: Mapping[str, Any]) -> str:
    if interval["lower"] is None:
        return f"{interval['value']:+.3f}" if interval["value"] is not None else "unknown"
    return f"{interval['value']:+.3f} ({interval['lower']:+.3f} to {interval['upper']:+.3f})"


def _spread(interval: Mapping[str, Any]) -> str:
    if interval["value"] is None or interval["lower"] is None:
        return "unknown"
    return f"{interval['value']:.2f} ({interval['lower']:.2f} to {interval['upper']:.2f})"
