"""ImagingStudy resources to rows of the ``images`` table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from fhir_adapter.arrays import store_array
from fhir_adapter.errors import Refusal
from fhir_adapter.images.archive import ImageArchive, Instance, is_uid
from fhir_adapter.images.decode import DecodedImage, decode_image
from fhir_adapter.images.headers import RADIOGRAPHY
from fhir_adapter.limits import Limits
from fhir_adapter.observations.exact import check_identity, read_subject
from fhir_adapter.references import element_reference, is_one_of, scalar_text
from fhir_adapter.times import parse_time
from validation.reasons import Reason

STUDY_IDENTIFIER = "urn:dicom:uid"
Decoder = Callable[[bytes, Limits], DecodedImage]

__all__ = ["ImageArchive", "StudyReader"]


class StudyReader:
    """Turns one ImagingStudy after another into frontal chest images.

    Parameters
    ----------
    archive
        Where the DICOM objects lie.
    run_folder
        Arrays are stored below it.
    decode
        Decoder; the default works in this process.
    """

    def __init__(
        self,
        *,
        archive: ImageArchive | None,
        run_folder: Path,
        subjects: dict[str, int],
        default_zone: ZoneInfo | None,
        limits: Limits,
        decode: Decoder = decode_image,
    ) -> None:
        self._archive = archive
        self._run_folder = run_folder
        self._subjects = subjects
        self._zone = default_zone
        self._limits = limits
        self._decode = decode
        self._seen: set[str] = set()

    def read_study(self, resource: dict[str, Any]) -> tuple[list[dict[str, Any]], list[Refusal]]:
        """Return the study's frontal chest images, and why its other instances were left out.

        Raises
        ------
        Refusal
            If no instance can be used: the first instance's reason.
        """
        check_identity(resource, "ImagingStudy")
        if resource.get("status") != "available":
            raise Refusal(Reason.STATUS_NOT_ACCEPTED, "status")
        subject_id = read_subject(resource, self._subjects)
        if resource.get("started") is None:
            raise Refusal(Reason.TIME_MISSING, "started")
        time = parse_time(resource["started"], element="started", default_zone=self._zone)
        study_uid = study_identifier(resource)
        if study_uid is None:
            raise Refusal(Reason.IMAGE_NOT_FOUND, "no DICOM study uid")
        _check_modality(resource)
        if self._archive is None:
            raise Refusal(Reason.IMAGE_NOT_FOUND, "no archive is set")
        instances = listed_instances(resource, study_uid) or self._archive.list_instances(study_uid)
        if len(instances) > self._limits.max_instances:
            raise Refusal(Reason.IMAGE_TOO_LARGE, "instances")
        rows: list[dict[str, Any]] = []
        beside: list[Refusal] = []
        for instance in instances:
            try:
                rows.append(
                    self._row(instance, self._archive)
                    | {
                        "subject_id": subject_id,
                        "encounter_id": element_reference(resource.get("encounter"), "Encounter"),
                        "time": time,
                        "available_time": time,
                        "source_ref": f"ImagingStudy/{scalar_text(resource['id'])}",
                    }
                )
            except Refusal as refusal:
                beside.append(refusal)
        if not rows:
            raise beside[0] if beside else Refusal(Reason.IMAGE_NOT_FOUND)
        return rows, beside

    def _row(self, instance: Instance, archive: ImageArchive) -> dict[str, Any]:
        if instance.instance_uid in self._seen:
            raise Refusal(Reason.IMAGE_DUPLICATE, "instance uid")
        image = self._decode(
            archive.read(instance, max_bytes=self._limits.max_attachment_bytes), self._limits
        )
        if image.instance_uid != instance.instance_uid or image.study_uid != instance.study_uid:
            raise Refusal(Reason.IMAGE_UNREADABLE, "the object's uids are not those asked for")
        self._seen.add(instance.instance_uid)
        path, digest = store_array(image.pixels, self._run_folder)
        return {
            "image_id": instance.instance_uid,
            "view": image.view,
            "height_px": image.pixels.shape[0],
            "width_px": image.pixels.shape[1],
            "pixel_spacing": image.pixel_spacing,
            "array_path": path,
            "array_sha256": digest,
            "study_uid": instance.study_uid,
            "series_uid": instance.series_uid,
            "instance_uid": instance.instance_uid,
        }


def study_identifier(resource: dict[str, Any]) -> str | None:
    """Return the Study Instance UID of an ImagingStudy, or None."""
    found = resource.get("identifier")
    for item in found if isinstance(found, list) else []:
        if isinstance(item, dict) and item.get("system") == STUDY_IDENTIFIER:
            uid = str(item.get("value", "")).removeprefix("urn:oid:")
            if is_uid(uid):
                return uid
    return None


def listed_instances(resource: dict[str, Any], study_uid: str) -> list[Instance]:
    """Return the CR and DX instances that the resource itself lists."""
    instances = []
    series_list = resource.get("series")
    for series in series_list if isinstance(series_list, list) else []:
        if not isinstance(series, dict) or not is_uid(series.get("uid")):
            continue
        modality = series.get("modality")
        if isinstance(modality, dict) and not is_one_of(modality.get("code"), RADIOGRAPHY):
            continue
        items = series.get("instance")
        instances += [
            Instance(study_uid, series["uid"], item["uid"])
            for item in (items if isinstance(items, list) else [])
            if isinstance(item, dict) and is_uid(item.get("uid"))
        ]
    return instances


def _check_modality(resource: dict[str, Any]) -> None:
    found = resource.get("modality")
    codes = (
        {str(item.get("code")) for item in found if isinstance(item, dict)}
        if isinstance(found, list)
        else set()
    )
    series = resource.get("series")
    for item in series if isinstance(series, list) else []:
        modality = item.get("modality") if isinstance(item, dict) else None
        if isinstance(modality, dict):
            codes.add(str(modality.get("code")))
    if codes and not codes & RADIOGRAPHY:
        raise Refusal(Reason.IMAGE_NOT_CHEST, "modality")
