"""Scoring: a checked model folder, and a score or a reason for every sample."""

from modelling.scoring.identity import score_key
from modelling.scoring.model import ScoringModel, load_model
from modelling.scoring.score import score_samples

__all__ = ["ScoringModel", "load_model", "score_key", "score_samples"]
