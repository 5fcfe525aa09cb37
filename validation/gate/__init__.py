"""The gate: Great Expectations over the profile tables decides whether the night may go on."""

from validation.gate.decision import GateDecision, GateThresholds, decide

__all__ = ["GateDecision", "GateThresholds", "decide"]
