"""The models: MedFuse 2022, MuFuse 2025, MedM2T 2025 and Nightingale's own."""

from modelling.models.base import RiskModel
from modelling.models.build import MODELS, build_model, model_config

__all__ = ["MODELS", "RiskModel", "build_model", "model_config"]
