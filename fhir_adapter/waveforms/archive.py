"""Files behind attachment addresses: below one root folder, or on the FHIR server itself."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urljoin, urlsplit

from fhir_adapter.errors import FatalError, OriginError, Refusal, TooLargeError
from fhir_adapter.transport import Transport
from validation.reasons import Reason


def resolve_inside(root: Path, relative: str) -> Path:
    """Return the file that a relative address names below a root.

    Raises
    ------
    Refusal
        ``attachment.outside_archive`` for anything that leads out (``..``, absolute paths, drives, links),
        ``attachment.missing`` if there is no such regular file.
    """
    name = unquote(relative)
    parts = PurePosixPath(name).parts
    if not name or "\\" in name or "\0" in name or ":" in name or name.startswith("/") or ".." in parts:
        raise Refusal(Reason.ATTACHMENT_OUTSIDE_ARCHIVE)
    base = root.resolve()
    try:
        path = (base / name).resolve()
    except (OSError, RuntimeError):
        raise Refusal(Reason.ATTACHMENT_MISSING) from None
    if not path.is_relative_to(base):
        raise Refusal(Reason.ATTACHMENT_OUTSIDE_ARCHIVE)
    if not path.is_file():
        raise Refusal(Reason.ATTACHMENT_MISSING)
    return path


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Return a file's content.

    Raises
    ------
    Refusal
        ``attachment.too_large`` before anything is read.
    """
    if path.stat().st_size > max_bytes:
        raise Refusal(Reason.ATTACHMENT_TOO_LARGE)
    return path.read_bytes()


class WaveformArchive:
    """Where attachment addresses lead.

    Parameters
    ----------
    root
        Folder for relative addresses and ``file:`` names.
    transport
        Client of the FHIR server for ``Binary/<id>`` and for addresses of allowed origins.
    """

    def __init__(self, root: Path | None = None, *, transport: Transport | None = None) -> None:
        self._root = root
        self._transport = transport

    def read(self, url: str, *, max_bytes: int) -> bytes:
        """Return what an address names.

        Raises
        ------
        Refusal
            ``attachment.*``. A network that is down is not the attachment's fault and raises
            :class:`fhir_adapter.errors.TemporaryError`.
        """
        absolute = re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", url) is not None
        if absolute or re.fullmatch(r"Binary/[A-Za-z0-9\-.]{1,64}", url):
            return self._fetch(url, max_bytes)
        if self._root is None:
            raise Refusal(Reason.ATTACHMENT_OUTSIDE_ARCHIVE, "no archive is set")
        return read_bounded(resolve_inside(self._root, url), max_bytes)

    def sibling(self, url: str, name: str) -> str:
        """Return the address of a file that stands beside another; ``name`` is a plain file name."""
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", url):
            return urljoin(url, name)
        return str(PurePosixPath(urlsplit(url).path).parent / name)

    def _fetch(self, url: str, max_bytes: int) -> bytes:
        if self._transport is None or not re.match(r"https?://|Binary/", url):
            raise Refusal(Reason.ATTACHMENT_HOST_NOT_ALLOWED)
        try:
            reply = self._transport.request(
                "GET",
                url,
                headers={"Accept": "application/octet-stream, application/dicom, */*;q=0.1"},
                max_bytes=max_bytes,
            )
        except OriginError:
            raise Refusal(Reason.ATTACHMENT_HOST_NOT_ALLOWED) from None
        except TooLargeError:
            raise Refusal(Reason.ATTACHMENT_TOO_LARGE) from None
        except FatalError as error:
            if error.status in {404, 410}:
                raise Refusal(Reason.ATTACHMENT_MISSING) from None
            raise
        return reply.content
