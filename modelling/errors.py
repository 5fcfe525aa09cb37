"""The exceptions of this room. Messages carry counts, names of files and codes, never a patient's values."""

from __future__ import annotations


class ModellingError(Exception):
    """Base of every error that ``modelling`` raises on purpose."""


class BaselineError(ModellingError):
    """A baseline cannot be fitted, saved or loaded."""


class EvaluationError(ModellingError):
    """Scores and labels cannot be evaluated together."""


class BenchmarkError(ModellingError):
    """A benchmark cannot run with the data or settings it was given."""
