"""The exceptions of this room. Messages carry counts, names of files and codes, never a patient's values."""

from __future__ import annotations

from collections.abc import Sequence


class ModellingError(Exception):
    """Base of every error that ``modelling`` raises on purpose."""


class BaselineError(ModellingError):
    """A baseline cannot be fitted, saved or loaded."""


class EvaluationError(ModellingError):
    """Scores and labels cannot be evaluated together."""


class BenchmarkError(ModellingError):
    """A benchmark cannot run with the data or settings it was given."""


class EncodingError(ModellingError):
    """An encoding cannot be fitted on, or does not fit, the data it was given."""


class ArrayUnreadableError(ModellingError):
    """The array of a recording or an image is missing, changed, or not an array of the declared shape."""


class TrainingError(ModellingError):
    """A model cannot be trained with the data or settings it was given."""


class CheckpointError(ModellingError):
    """A model folder cannot be used."""


class CheckpointFormatError(CheckpointError):
    """Weights are not a safetensors file, or the folder lacks a file."""


class CheckpointDigestError(CheckpointError):
    """Weights or configuration are not those that the card names."""


class CatalogueMismatchError(CheckpointError):
    """The model was trained with another version of the feature catalogue."""


class RegistryError(ModellingError):
    """A model is not in the registry, or its state does not allow what was asked."""


class PromotionRefusedError(RegistryError):
    """A promotion rule does not hold.

    Parameters
    ----------
    findings
        What every rule found (:class:`modelling.registry.records.Finding`).
    """

    def __init__(self, message: str, findings: Sequence[object]) -> None:
        super().__init__(message)
        self.findings = findings


class MonitoringError(ModellingError):
    """Scores and outcomes cannot be joined or judged."""


class CatalogueError(ModellingError):
    """The feature catalogue contradicts itself or lacks something it refers to."""


class MappingError(ModellingError):
    """The mapper's own account does not add up: a defect, never a property of the data."""


class SourceTableError(ModellingError):
    """A source file is missing, corrupt or lacks a column; the message says which and what to do."""


class CohortError(ModellingError):
    """A cohort or task cannot be built with the tables it was given."""
