"""From logits to probabilities that mean what they say, and the thresholds of the risk levels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

MIN_EVENTS_FOR_SHIFT = 50


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """``p = sigmoid(logit / temperature + shift)``.

    Guo et al. 2017 (temperature alone); the shift, as in Platt 1999, is fitted only where the tuning split
    holds at least 50 events and 50 non-events, so that one more parameter does not fit noise.
    """

    temperature: float = 1.0
    shift: float = 0.0

    def probability(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return probabilities of logits, same shape."""
        scaled = np.clip(np.asarray(logits, dtype=np.float64) / self.temperature + self.shift, -50, 50)
        return 1.0 / (1.0 + np.exp(-scaled))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)


def fit_calibration(logits: NDArray[np.float64], labels: NDArray[np.float64]) -> Calibration:
    """Fit temperature (and shift) by maximum likelihood on the tuning split.

    A split of one class gives no information; the identity is returned then.
    """
    y = np.asarray(labels, dtype=np.float64)
    events = float(y.sum())
    if events == 0 or events == y.size:
        return Calibration()
    with_shift = min(events, y.size - events) >= MIN_EVENTS_FOR_SHIFT

    def loss(parameters: NDArray[np.float64]) -> float:
        z = logits * np.exp(-parameters[0]) + (parameters[1] if with_shift else 0.0)
        # A weak pull towards temperature 1 keeps separable small splits finite.
        return float(np.mean(np.logaddexp(0.0, z) - y * z) + 1e-3 * parameters[0] ** 2)

    found = minimize(
        loss, np.zeros(2 if with_shift else 1), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-10}
    )
    return Calibration(
        temperature=float(np.exp(np.clip(found.x[0], -4, 4))), shift=float(found.x[1]) if with_shift else 0.0
    )


def risk_thresholds(probability: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Return the lowest probability of each risk level: the tuning split's upper 30 % and upper 10 %.

    Levels are codes of FHIR's risk-probability value set. The shares are alert budgets that a ward can
    plan with; a site sets its own in the registry.
    """
    moderate, high = (round(float(np.quantile(probability, share)), 4) for share in (0.7, 0.9))
    if high <= moderate:
        high = min(1.0, moderate + 1e-4)
    return [
        {"level": "low", "from": 0.0},
        {"level": "moderate", "from": moderate},
        {"level": "high", "from": high},
    ]


def risk_level(probability: float, thresholds: list[dict[str, Any]]) -> str | None:
    """Return the level with the largest ``from`` that the probability reaches; None without thresholds.

    Examples
    --------
    >>> risk_level(0.2, [{"level": "low", "from": 0.0}, {"level": "high", "from": 0.2}])
    'high'
    """
    reached = [item for item in thresholds if probability >= item["from"]]
    return str(max(reached, key=lambda item: item["from"])["level"]) if reached else None
