"""Attachments of DocumentReference and Media: bytes with size and hash proven, then an ECG."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from fhir_adapter.errors import Refusal
from fhir_adapter.limits import Limits
from fhir_adapter.waveforms.archive import WaveformArchive
from fhir_adapter.waveforms.dicom_ecg import is_dicom, read_dicom_ecg
from fhir_adapter.waveforms.signal import Signal
from fhir_adapter.waveforms.wfdb_record import read_wfdb
from validation.reasons import Reason

HEADER_TYPES = frozenset({"application/x-wfdb-header", "application/wfdb-header", "text/x-wfdb-header"})


@dataclass(frozen=True)
class Attachment:
    """One attachment: its file name, its address if it has one, and its element."""

    name: str
    url: str | None
    element: dict[str, Any]

    @property
    def content_type(self) -> str:
        """Media type without parameters, in lower case."""
        return str(self.element.get("contentType") or "").split(";")[0].strip().lower()


def list_attachments(resource: dict[str, Any]) -> list[Attachment]:
    """Return the attachments of a DocumentReference or Media in order."""
    if resource.get("resourceType") == "Media":
        elements = [resource.get("content")]
    else:
        found = resource.get("content")
        elements = (
            [item.get("attachment") for item in found if isinstance(item, dict)]
            if isinstance(found, list)
            else []
        )
    attachments = []
    for element in elements:
        if not isinstance(element, dict):
            continue
        url = element.get("url") if isinstance(element.get("url"), str) else None
        title = element.get("title") if isinstance(element.get("title"), str) else None
        shown = PurePosixPath(unquote(urlsplit(url).path)).name if url else ""
        name = shown if re.search(r"\.(hea|dat|dcm)$", shown, re.IGNORECASE) else (title or shown)
        attachments.append(Attachment(name, url, element))
    return attachments


def read_attachment(attachment: Attachment, archive: WaveformArchive | None, limits: Limits) -> bytes:
    """Return an attachment's bytes.

    ``size`` and ``hash`` (base64 of SHA-1, https://hl7.org/fhir/R4/datatypes.html#Attachment) must agree.

    Raises
    ------
    Refusal
        ``attachment.*``.
    """
    element = attachment.element
    inline = element.get("data")
    if isinstance(inline, str):
        if len(inline) > limits.max_attachment_bytes * 4 // 3 + 4:
            raise Refusal(Reason.ATTACHMENT_TOO_LARGE)
        try:
            data = base64.b64decode(re.sub(r"\s", "", inline), validate=True)
        except (binascii.Error, ValueError):
            raise Refusal(Reason.ATTACHMENT_MISSING, "data is not base64") from None
    elif attachment.url:
        data = (archive or WaveformArchive()).read(attachment.url, max_bytes=limits.max_attachment_bytes)
    else:
        raise Refusal(Reason.ATTACHMENT_MISSING, "neither data nor url")
    size = element.get("size")
    if size is not None and size != len(data):
        raise Refusal(Reason.ATTACHMENT_HASH_MISMATCH, "size")
    digest = element.get("hash")
    if (
        digest is not None
        and digest != base64.b64encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()
    ):
        raise Refusal(Reason.ATTACHMENT_HASH_MISMATCH, "hash")
    return data


def read_signals(
    resource: dict[str, Any],
    archive: WaveformArchive | None,
    limits: Limits,
    *,
    read_dicom: Callable[[bytes, Limits], Signal] = read_dicom_ecg,
) -> list[Signal]:
    """Return every ECG among a document's attachments.

    Raises
    ------
    Refusal
        For the first attachment that should be an ECG and is not, or if none of them is one.
    """
    attachments = list_attachments(resource)
    if not attachments:
        raise Refusal(Reason.ATTACHMENT_MISSING, "no attachment")
    signals = []
    for attachment in attachments:
        lower = attachment.name.lower()
        if lower.endswith(".hea") or attachment.content_type in HEADER_TYPES:
            signals.append(_read_record(attachment, attachments, archive, limits))
        elif lower.endswith(".dcm") or attachment.content_type == "application/dicom":
            signals.append(read_dicom(read_attachment(attachment, archive, limits), limits))
        elif attachment.content_type == "application/octet-stream" and not lower.endswith(".dat"):
            data = read_attachment(attachment, archive, limits)
            if is_dicom(data):
                signals.append(read_dicom(data, limits))
    if not signals:
        raise Refusal(Reason.ATTACHMENT_TYPE_NOT_SUPPORTED)
    return signals


def _read_record(
    header: Attachment, attachments: list[Attachment], archive: WaveformArchive | None, limits: Limits
) -> Signal:
    beside = {other.name: other for other in attachments if other is not header}

    def read_file(name: str) -> bytes:
        # the header's own checks allow plain file names only
        if name in beside:
            return read_attachment(beside[name], archive, limits)
        if header.url and archive is not None and "data" not in header.element:
            return archive.read(archive.sibling(header.url, name), max_bytes=limits.max_attachment_bytes)
        raise Refusal(Reason.ATTACHMENT_MISSING, "signal file")

    return read_wfdb(read_attachment(header, archive, limits), read_file, limits)
