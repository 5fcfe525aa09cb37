"""A folder of DICOM files as DICOMweb (PS3.18): QIDO-RS instance metadata and WADO-RS objects."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pydicom

from deploy.faults.loopback import Answer, Request, json_answer

PREFIX = "/dicom-web"
KEYWORDS = (
    "Modality",
    "SeriesDescription",
    "BodyPartExamined",
    "ViewPosition",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
)
BOUNDARY = "nightingale-boundary"


class Pacs:
    """Answers requests below ``/dicom-web``.

    Parameters
    ----------
    root
        Folder of ``<study>/<series>/<instance>.dcm``; files that pydicom cannot open are not indexed, as a
        PACS would not have taken them.
    """

    def __init__(self, root: Path) -> None:
        self._files: dict[tuple[str, str, str], bytes] = {}
        self._metadata: dict[str, list[dict[str, object]]] = {}
        for path in sorted(root.rglob("*.dcm")):
            data = path.read_bytes()
            try:
                dataset = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
            except Exception:  # noqa: S112 - not an object that a PACS would have stored
                continue
            uids = (path.parent.parent.name, path.parent.name, path.stem)
            self._files[uids] = data
            shown = pydicom.Dataset()
            for keyword in KEYWORDS:
                if keyword in dataset:
                    shown[keyword] = dataset[keyword]
            self._metadata.setdefault(uids[0], []).append(shown.to_json_dict())

    def handle(self, request: Request) -> Answer:
        """Answer one request."""
        path = request.path.removeprefix(PREFIX).strip("/")
        listing = re.fullmatch(r"studies/([0-9.]+)/instances", path)
        if listing:
            found = self._metadata.get(listing[1], [])
            offset = int(request.query.get("offset", ["0"])[0])
            limit = int(request.query.get("limit", ["200"])[0])
            page = found[offset : offset + limit]
            return json_answer(page, Content_Type="application/dicom+json") if page else Answer(status=204)
        single = re.fullmatch(r"studies/([0-9.]+)/series/([0-9.]+)/instances/([0-9.]+)", path)
        data = self._files.get((single[1], single[2], single[3])) if single else None
        if data is None:
            return Answer(status=404)
        edge = BOUNDARY.encode()
        body = (
            b"--"
            + edge
            + b"\r\nContent-Type: application/dicom\r\n\r\n"
            + data
            + b"\r\n--"
            + edge
            + b"--\r\n"
        )
        kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
        return Answer(body=body, headers={"Content-Type": kind})
