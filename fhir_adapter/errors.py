"""Errors of the adapter room.

A message names the interaction (``GET Observation``), a status and codes. It never holds a
resource id, a query string, a header, a body or a value: those may identify a patient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from validation.reasons import Reason


class AdapterError(Exception):
    """Base of every error that this package raises on purpose."""


class RequestError(AdapterError):
    """An HTTP interaction failed.

    Attributes
    ----------
    status
        HTTP status, or None where there was no answer.
    codes
        ``issue.code`` values of the OperationOutcome; diagnostics are dropped, for they may hold values.
    """

    def __init__(self, message: str, *, status: int | None = None, codes: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.codes = tuple(codes)


class FatalError(RequestError):
    """Trying again does not help: a person or a setting must change something."""


class TemporaryError(RequestError):
    """All retries were spent on a fault that may pass.

    Attributes
    ----------
    retry_after
        Seconds that the server asked to wait, where it did.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        codes: Sequence[str] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status=status, codes=codes)
        self.retry_after = retry_after


class ConnectionLostError(TemporaryError):
    """The connection broke or stayed silent: it is unknown whether the server did what was asked."""


class AuthorizationError(FatalError):
    """The server refused our credentials or our scopes."""


class OriginError(FatalError):
    """An address, a redirect or a link leads to a host that the site did not allow."""


class ContentError(FatalError):
    """The answer is not what the interaction promises: HTML, broken JSON, another resource."""


class TooLargeError(ContentError):
    """The answer is larger than the caller allows; nothing of it was kept."""


class PagingError(FatalError):
    """A search cannot be read completely: the pages loop, or their counts do not add up."""


class ExportError(FatalError):
    """A Bulk Data export failed or left files out."""


class WriteError(AdapterError):
    """A destination cannot take scores in a way that is safe to repeat."""


class AuditError(AdapterError):
    """The audit log cannot be written, so nothing more may be asked of any server."""


class SourceError(AdapterError):
    """A local source cannot be read as a whole."""


@contextmanager
def unforeseen_refused() -> Iterator[None]:
    """Turn an error that no reader foresaw into the refusal of the resource at hand.

    A resource that trips a reader costs itself, never the night; its quarantine row names the error's
    class, without its text. What is not the resource's fault (network, disk, memory) passes through.
    """
    try:
        yield
    except (AdapterError, OSError, MemoryError):
        raise
    except Exception as error:
        raise Refusal(Reason.RESOURCE_INVALID, f"unforeseen {type(error).__name__}") from None


class Refusal(AdapterError):  # noqa: N818 - a verdict on one resource, caught and turned into a quarantine row
    """One resource or attachment cannot be used.

    Attributes
    ----------
    reason
        Code for the quarantine table.
    detail
        Element or rule that failed; never a value.
    """

    def __init__(self, reason: Reason, detail: str | None = None) -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail
