"""Calibration on the tuning split: logits to probabilities that mean what they say, and levels of risk.

References
----------
Temperature: Guo et al., ICML 2017. Slope and shift: Platt 1999. Isotonic regression: Zadrozny and Elkan,
KDD 2002. Choice of one of them by cross-validated log loss, with the one-standard-error rule of Breiman et al.
1984: a richer map must earn its parameters. Thresholds by net benefit: Vickers and Elkin, Medical Decision
Making 2006.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.isotonic import isotonic_regression

from modelling.evaluation.decision import decision_curve

Floats = NDArray[np.float64]

MIN_EVENTS_FOR_SHIFT = 50
MIN_EVENTS_FOR_ISOTONIC = 200
MIN_EVENTS_FOR_DECISION = 20
FOLDS = 5
MOST_KNOTS = 64


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A non-decreasing map from logits to probabilities.

    Attributes
    ----------
    temperature, shift
        ``p = sigmoid(logit / temperature + shift)``; the shift is fitted only where the tuning split holds at
        least 50 events and 50 non-events, so that one more parameter does not fit noise.
    knots
        ``(logit, calibrated logit)`` in ascending order; where given, an isotonic map through these points,
        straight between them and flat beyond, replaces temperature and shift.
    """

    temperature: float = 1.0
    shift: float = 0.0
    knots: Sequence[Sequence[float]] = ()

    @property
    def method(self) -> str:
        """``temperature``, ``platt`` or ``isotonic``."""
        return "isotonic" if self.knots else "platt" if self.shift else "temperature"

    def probability(self, logits: Floats) -> Floats:
        """Return probabilities of logits, same shape."""
        raw = np.asarray(logits, dtype=np.float64)
        if self.knots:
            x, y = np.asarray(self.knots, dtype=np.float64).T
            scaled = np.interp(raw, x, y)
        else:
            scaled = raw / self.temperature + self.shift
        return 1.0 / (1.0 + np.exp(-np.clip(scaled, -50, 50)))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict; knots stand in it only where they are used."""
        fields = asdict(self) | {"knots": [list(knot) for knot in self.knots]}
        return fields if self.knots else {key: fields[key] for key in ("temperature", "shift")}


def fit_calibration(logits: Floats, labels: Floats, *, seed: int = 0) -> Calibration:
    """Fit the calibration that cross-validation on the tuning split prefers.

    Temperature alone, slope and shift, or isotonic regression: a richer one is taken where its mean log loss
    is lower than that of the simpler by more than one standard error, and where enough events stand behind it.
    A split of one class gives no information; the identity is returned then.

    Parameters
    ----------
    logits, labels
        ``[n]``; labels are 0 or 1.
    seed
        Of the folds.
    """
    y = np.asarray(labels, dtype=np.float64)
    z = np.asarray(logits, dtype=np.float64)
    fewest = min(float(y.sum()), y.size - float(y.sum()))
    if fewest == 0:
        return Calibration()
    parametric = _fit_parametric(z, y, shift=fewest >= MIN_EVENTS_FOR_SHIFT)
    if fewest < MIN_EVENTS_FOR_ISOTONIC:
        return parametric
    folds = np.random.default_rng(seed).permutation(y.size) % FOLDS
    losses = np.zeros((2, y.size))
    for fold in range(FOLDS):
        inside, outside = folds != fold, folds == fold
        for row, fitted in enumerate(
            (_fit_parametric(z[inside], y[inside], shift=True), _fit_isotonic(z[inside], y[inside]))
        ):
            losses[row, outside] = _log_loss(fitted.probability(z[outside]), y[outside])
    gain = losses[0] - losses[1]
    error = float(gain.std(ddof=1)) / np.sqrt(gain.size)
    return _fit_isotonic(z, y) if gain.mean() > error else parametric


def _log_loss(probability: Floats, labels: Floats) -> Floats:
    p = np.clip(probability, 1e-9, 1 - 1e-9)
    return -(labels * np.log(p) + (1 - labels) * np.log(1 - p))


def _fit_parametric(z: Floats, y: Floats, *, shift: bool) -> Calibration:
    def loss(parameters: Floats) -> float:
        scaled = z * np.exp(-parameters[0]) + (parameters[1] if shift else 0.0)
        # A weak pull towards temperature 1 keeps separable small splits finite.
        return float(np.mean(np.logaddexp(0.0, scaled) - y * scaled) + 1e-3 * parameters[0] ** 2)

    found = minimize(
        loss, np.zeros(2 if shift else 1), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-10}
    )
    return Calibration(
        temperature=float(np.exp(np.clip(found.x[0], -4, 4))), shift=float(found.x[1]) if shift else 0.0
    )


def _fit_isotonic(z: Floats, y: Floats) -> Calibration:
    order = np.argsort(z, kind="stable")
    x, ranked = z[order], y[order]
    level = isotonic_regression(ranked)
    starts = np.flatnonzero(np.r_[True, level[1:] != level[:-1]])
    sizes = np.diff(np.r_[starts, x.size])
    centres = np.add.reduceat(x, starts) / sizes
    # Half an event more on either side: a block of one class must not promise certainty.
    shares = (np.add.reduceat(ranked, starts) + 0.5) / (sizes + 1.0)
    kept = np.unique(np.linspace(0, len(centres) - 1, min(MOST_KNOTS, len(centres))).round().astype(int))
    heights = np.maximum.accumulate(np.log(shares / (1 - shares)))[kept]
    return Calibration(
        knots=tuple(
            (float(a), float(b))
            for a, b in zip(np.round(centres[kept], 6), np.round(heights, 6), strict=True)
        )
    )


def risk_thresholds(probability: Floats, labels: Floats | None = None) -> list[dict[str, Any]]:
    """Return the lowest probability of each risk level, chosen by decision curve on the tuning split.

    With labels of at least 20 events, *moderate* begins where acting by the score is worth most against acting
    on everybody or on nobody, and *high* at the last threshold at which it is still worth half of that.
    Without, levels are alert budgets: the upper 30 % and the upper 10 % of the tuning split. Levels are codes
    of FHIR's risk-probability value set; a site may set its own.

    Parameters
    ----------
    probability, labels
        ``[n]``, calibrated probabilities and their labels.
    """
    p = np.asarray(probability, dtype=np.float64)
    found = None if labels is None else _by_net_benefit(p, np.asarray(labels, dtype=np.float64))
    moderate, high = found or (round(float(np.quantile(p, share)), 4) for share in (0.7, 0.9))
    if high <= moderate:
        high = min(1.0, moderate + 1e-4)
    return [
        {"level": "low", "from": 0.0},
        {"level": "moderate", "from": moderate},
        {"level": "high", "from": high},
    ]


def _by_net_benefit(probability: Floats, labels: Floats) -> tuple[float, float] | None:
    if min(labels.sum(), labels.size - labels.sum()) < MIN_EVENTS_FOR_DECISION:
        return None
    curve = decision_curve(labels, probability)
    advantage = curve.model - np.maximum(curve.treat_all, 0.0)
    peak = int(advantage.argmax())
    if advantage[peak] <= 0:
        return None
    last = int(np.flatnonzero(advantage >= 0.5 * advantage[peak]).max())
    return float(curve.threshold[peak]), float(curve.threshold[last])


def risk_level(probability: float, thresholds: list[dict[str, Any]]) -> str | None:
    """Return the level with the largest ``from`` that the probability reaches; None without thresholds.

    Examples
    --------
    >>> risk_level(0.2, [{"level": "low", "from": 0.0}, {"level": "high", "from": 0.2}])
    'high'
    """
    reached = [item for item in thresholds if probability >= item["from"]]
    return str(max(reached, key=lambda item: item["from"])["level"]) if reached else None
