"""What is read of a DICOM object before its pixels: transfer syntax, modality, body part, view."""

from __future__ import annotations

import re
import struct

import pydicom

from fhir_adapter.errors import Refusal
from validation.reasons import Reason

SYNTAXES = frozenset(
    {
        "1.2.840.10008.1.2",  # Implicit VR Little Endian
        "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
        "1.2.840.10008.1.2.2",  # Explicit VR Big Endian
        "1.2.840.10008.1.2.5",  # RLE Lossless
        "1.2.840.10008.1.2.4.50",  # JPEG Baseline
        "1.2.840.10008.1.2.4.51",  # JPEG Extended
        "1.2.840.10008.1.2.4.57",  # JPEG Lossless
        "1.2.840.10008.1.2.4.70",  # JPEG Lossless, first-order prediction
        "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
        "1.2.840.10008.1.2.4.81",  # JPEG-LS Near-lossless
        "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless
        "1.2.840.10008.1.2.4.91",  # JPEG 2000
    }
)
"""Transfer syntaxes that are decoded. Deflated (…1.2.1.99) is not: 1 MB inflates to gigabytes."""

LONG_VRS = frozenset({b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UT", b"UN", b"UC", b"UR"})
MAX_META_BYTES = 100_000
RADIOGRAPHY = frozenset({"CR", "DX"})
CHEST = re.compile(r"chest|thorax|thorac|lung|rippen|brust", re.IGNORECASE)
FRONTAL = frozenset({"AP", "PA"})
SIDEWAYS = re.compile(r"\b(lat|lateral|ll|rl|lld|rld|seitlich|oblique)\b", re.IGNORECASE)


def refuse_syntax(data: bytes) -> str:
    """Return the transfer syntax after checking that it is one that is read.

    Only the file meta group is parsed, which is never compressed.

    Raises
    ------
    Refusal
        ``image.unreadable`` or ``image.syntax_not_supported``.
    """
    if data[128:132] != b"DICM":
        raise Refusal(Reason.IMAGE_UNREADABLE, "not a DICOM file")
    syntax = _transfer_syntax(data)
    if syntax not in SYNTAXES:
        raise Refusal(
            Reason.IMAGE_SYNTAX_NOT_SUPPORTED, syntax if re.fullmatch(r"[0-9.]{5,64}", syntax) else None
        )
    return syntax


def _transfer_syntax(data: bytes) -> str:
    """Return (0002,0010) from the file meta group, which is always Explicit VR Little Endian (PS3.10 7.1)."""
    at = 132
    try:
        while at < min(len(data), 132 + MAX_META_BYTES):
            group, element = struct.unpack_from("<HH", data, at)
            if group != 2:
                break
            long = data[at + 4 : at + 6] in LONG_VRS
            length = struct.unpack_from("<I" if long else "<H", data, at + (8 if long else 6))[0]
            at += 12 if long else 8
            if element == 0x10:
                return data[at : at + min(length, 64)].decode("ascii", "replace").rstrip("\0 ")
            at += length
    except struct.error:
        pass  # a cut-off header has no transfer syntax, which is refused below
    raise Refusal(Reason.IMAGE_UNREADABLE, "file meta information")


def check_chest(dataset: pydicom.Dataset) -> str | None:
    """Return the view of a chest radiograph, or None where the object does not say.

    Raises
    ------
    Refusal
        ``image.not_chest`` or ``image.view_not_frontal``.
    """
    if str(dataset.get("Modality", "")) not in RADIOGRAPHY:
        raise Refusal(Reason.IMAGE_NOT_CHEST, "Modality")
    part = str(dataset.get("BodyPartExamined", "") or "")
    if part and not CHEST.search(part):
        raise Refusal(Reason.IMAGE_NOT_CHEST, "BodyPartExamined")
    return check_view(
        str(dataset.get("ViewPosition", "") or ""),
        " ".join(str(dataset.get(name, "") or "") for name in ("SeriesDescription", "ProtocolName")),
    )


def check_view(view: str, description: str) -> str | None:
    """Return ``AP`` or ``PA``, or None where neither view nor description says anything.

    Raises
    ------
    Refusal
        ``image.view_not_frontal``.

    Examples
    --------
    >>> check_view("pa", ""), check_view("", "CHEST AP portable"), check_view("", "CHEST")
    ('PA', 'AP', None)
    """
    stated = view.strip().upper()
    if stated in FRONTAL:
        return stated
    if stated:
        raise Refusal(Reason.IMAGE_VIEW_NOT_FRONTAL, "ViewPosition")
    if SIDEWAYS.search(description):
        raise Refusal(Reason.IMAGE_VIEW_NOT_FRONTAL, "description")
    named = [word for word in re.findall(r"[A-Za-z]+", description.upper()) if word in FRONTAL]
    return named[0] if len(set(named)) == 1 else None
