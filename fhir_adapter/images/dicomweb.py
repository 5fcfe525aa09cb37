"""DICOMweb as an image archive (PS3.18): QIDO-RS metadata first, then only frontal chest views by WADO-RS."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from fhir_adapter.errors import ContentError, FatalError, Refusal, TooLargeError
from fhir_adapter.images.archive import Instance, is_uid
from fhir_adapter.images.headers import CHEST, RADIOGRAPHY, check_view
from fhir_adapter.transport import Reply, Transport
from validation.reasons import Reason

PAGE = 200
FIELDS = {
    "Modality": "00080060",
    "SeriesDescription": "0008103E",
    "BodyPartExamined": "00180015",
    "ViewPosition": "00185101",
}


class DicomWebArchive:
    """Reads a PACS by DICOMweb.

    Parameters
    ----------
    transport
        Client whose base address is the DICOMweb root (``https://pacs.example/dicom-web``).
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list_instances(self, study_uid: str) -> list[Instance]:
        """Return the study's instances that may be frontal chest views, sorted.

        Instances whose metadata say otherwise are left out; those that say nothing stay, and their own
        header is judged when they are decoded.

        Raises
        ------
        Refusal
            ``image.not_found`` if the PACS does not know the study, or the first instance's reason if
            none is a frontal chest view.
        """
        if not is_uid(study_uid):
            raise Refusal(Reason.IMAGE_NOT_FOUND, "study uid")
        kept: list[Instance] = []
        first: Refusal | None = None
        for item in self._query(study_uid):
            series, instance = _value(item, "0020000E"), _value(item, "00080018")
            if not is_uid(series) or not is_uid(instance):
                continue
            try:
                _check_metadata(item)
            except Refusal as refusal:
                first = first or refusal
                continue
            kept.append(Instance(study_uid, str(series), str(instance)))
        if not kept:
            raise first or Refusal(Reason.IMAGE_NOT_FOUND)
        return sorted(kept, key=lambda item: (item.series_uid, item.instance_uid))

    def read(self, instance: Instance, *, max_bytes: int) -> bytes:
        """Return a DICOM file.

        Raises
        ------
        Refusal
            ``image.not_found`` or ``image.too_large``.
        """
        path = f"studies/{instance.study_uid}/series/{instance.series_uid}/instances/{instance.instance_uid}"
        try:
            reply = self._transport.request(
                "GET",
                path,
                headers={"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'},
                max_bytes=max_bytes + 10_000,
            )
        except TooLargeError:
            raise Refusal(Reason.IMAGE_TOO_LARGE) from None
        except FatalError as error:
            if error.status in {404, 410}:
                raise Refusal(Reason.IMAGE_NOT_FOUND) from None
            raise
        return first_part(reply)

    def _query(self, study_uid: str) -> Iterator[dict[str, Any]]:
        """Yield instance metadata by pages; a PACS that ignores ``offset`` gives the same page again."""
        seen: set[str] = set()
        offset = 0
        while True:
            params: dict[str, Any] = {"limit": PAGE, "offset": offset, "includefield": list(FIELDS.values())}
            try:
                reply = self._transport.request(
                    "GET",
                    f"studies/{study_uid}/instances",
                    params=params,
                    headers={"Accept": "application/dicom+json"},
                    accept_status={204},
                )
            except FatalError as error:
                if error.status in {404, 410}:
                    raise Refusal(Reason.IMAGE_NOT_FOUND) from None
                raise
            found = reply.json() if reply.content.strip() else []
            if not isinstance(found, list):
                raise ContentError("the PACS answered a query with something other than a list")
            fresh = [
                item for item in found if isinstance(item, dict) and _value(item, "00080018") not in seen
            ]
            seen.update(str(_value(item, "00080018")) for item in fresh)
            yield from fresh
            if len(found) < PAGE or not fresh:
                return
            offset += len(found)


def _value(item: dict[str, Any], tag: str) -> object:
    """Return the first value of a DICOM JSON attribute (PS3.18 F.2)."""
    found = item.get(tag)
    values = found.get("Value") if isinstance(found, dict) else None
    return values[0] if isinstance(values, list) and values else None


def _check_metadata(item: dict[str, Any]) -> None:
    text = {name: str(_value(item, tag) or "") for name, tag in FIELDS.items()}
    if text["Modality"] and text["Modality"] not in RADIOGRAPHY:
        raise Refusal(Reason.IMAGE_NOT_CHEST, "Modality")
    if text["BodyPartExamined"] and not CHEST.search(text["BodyPartExamined"]):
        raise Refusal(Reason.IMAGE_NOT_CHEST, "BodyPartExamined")
    check_view(text["ViewPosition"], text["SeriesDescription"])


def first_part(reply: Reply) -> bytes:
    """Return the first part of a ``multipart/related`` answer (RFC 2387), or a plain DICOM body.

    Raises
    ------
    Refusal
        ``image.unreadable``.
    """
    kind = reply.headers.get("content-type", "")
    if "multipart/" not in kind.lower():
        return reply.content
    match = re.search(r'boundary="?([^";,]{1,200})"?', kind, re.IGNORECASE)
    if match is None:
        raise Refusal(Reason.IMAGE_UNREADABLE, "multipart without boundary")
    boundary = b"--" + match[1].encode("latin-1", "replace")
    start = reply.content.find(boundary)
    body = reply.content.find(b"\r\n\r\n", start)
    if start < 0 or body < 0:
        raise Refusal(Reason.IMAGE_UNREADABLE, "multipart body")
    end = reply.content.find(b"\r\n" + boundary, body)
    if end < 0:
        raise Refusal(Reason.IMAGE_UNREADABLE, "multipart body is cut off")
    return reply.content[body + 4 : end]
