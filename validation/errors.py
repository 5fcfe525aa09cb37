"""Errors of the validation room."""


class ValidationError(Exception):
    """Base of every error that this package raises on purpose."""


class ContractError(ValidationError):
    """A table does not satisfy its contract. The message names columns and rules, never values."""


class ManifestError(ValidationError):
    """A file is missing, or is not the file that its manifest describes."""


class EquationError(ValidationError):
    """One of the three equations of a run does not hold."""


class GateStopped(ValidationError):  # noqa: N818 - the gate did its work; it is not a programming error
    """The gate decided to stop the night: nothing may be written back."""
