"""Errors of the deploy room: settings, launchers, the night's wiring."""


class DeployError(Exception):
    """Base of every error that this package raises on purpose."""


class SettingsError(DeployError):
    """A setting is missing or not valid; the message says which and what is expected."""


class PrerequisiteError(DeployError):
    """A program that must be on the machine is not; the message says how to get it."""


class ServerError(DeployError):
    """A server that the project started did not come up or went away."""


class NightFailed(DeployError):  # noqa: N818 - the night failed; the program did its work
    """A night ended with a broken equation or with dead letters."""
