"""Where DICOM objects lie: a folder ``<study>/<series>/<instance>.dcm``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fhir_adapter.errors import Refusal
from fhir_adapter.waveforms.archive import read_bounded, resolve_inside
from validation.reasons import Reason

UID = re.compile(r"[0-9]+(?:\.[0-9]+)*")


@dataclass(frozen=True)
class Instance:
    """One DICOM object of a study."""

    study_uid: str
    series_uid: str
    instance_uid: str


class ImageArchive(Protocol):
    """A store of DICOM objects."""

    def list_instances(self, study_uid: str) -> list[Instance]:
        """Return the radiographs of a study that may be frontal chest views, in a fixed order."""

    def read(self, instance: Instance, *, max_bytes: int) -> bytes:
        """Return a DICOM file."""


def is_uid(value: object) -> bool:
    """Tell whether a value is a DICOM UID (PS3.5 9.1)."""
    return isinstance(value, str) and len(value) <= 64 and UID.fullmatch(value) is not None


class FolderArchive:
    """A folder of ``<study uid>/<series uid>/<instance uid>.dcm``."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def list_instances(self, study_uid: str) -> list[Instance]:
        """Return what lies in the study's folder, sorted.

        Raises
        ------
        Refusal
            ``image.not_found`` if there is no such folder or it holds nothing.
        """
        if not is_uid(study_uid):
            raise Refusal(Reason.IMAGE_NOT_FOUND, "study uid")
        found = sorted(self._walk(study_uid), key=lambda item: (item.series_uid, item.instance_uid))
        if not found:
            raise Refusal(Reason.IMAGE_NOT_FOUND)
        return found

    def _walk(self, study_uid: str) -> Iterator[Instance]:
        folder = self._root / study_uid
        if not folder.is_dir():
            return
        for series in folder.iterdir():
            if series.is_dir() and is_uid(series.name):
                for path in series.glob("*.dcm"):
                    if is_uid(path.stem):
                        yield Instance(study_uid, series.name, path.stem)

    def read(self, instance: Instance, *, max_bytes: int) -> bytes:
        """Return a file of the archive.

        Raises
        ------
        Refusal
            ``image.not_found``, ``image.too_large`` or ``attachment.outside_archive``.
        """
        uids = (instance.study_uid, instance.series_uid, instance.instance_uid)
        if not all(map(is_uid, uids)):
            raise Refusal(Reason.IMAGE_NOT_FOUND, "uid")
        try:
            return read_bounded(resolve_inside(self._root, "{}/{}/{}.dcm".format(*uids)), max_bytes)
        except Refusal as refusal:
            mapped = {
                Reason.ATTACHMENT_MISSING: Reason.IMAGE_NOT_FOUND,
                Reason.ATTACHMENT_TOO_LARGE: Reason.IMAGE_TOO_LARGE,
            }
            raise Refusal(mapped.get(refusal.reason, refusal.reason)) from None
