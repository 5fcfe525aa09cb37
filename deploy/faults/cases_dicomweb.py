"""Cases of reading radiographs by DICOMweb."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from deploy.faults import menu
from deploy.faults.case import Case
from deploy.faults.cases_search import once, quarantined, reasons
from deploy.faults.loopback import Answer, Handle, Request
from deploy.faults.menu import FOREVER
from deploy.faults.pacs import BOUNDARY
from deploy.faults.site import Site, Wiring, change

IMAGES = Wiring(images=True)
QUERY = menu.get("/dicom-web/", "includefield")
OBJECT = menu.get("/instances/")


def unlisted(site: Site) -> None:
    """Take the series out of every ImagingStudy, so that the PACS has to be asked for them."""
    for number in range(sum(kind == "ImagingStudy" for kind, _ in site.store.current)):
        change(site.store, "ImagingStudy", number, lambda item: {k: item[k] for k in item if k != "series"})


def unclosed(request: Request, carry_on: Handle) -> Answer:
    """Leave the closing boundary of the multipart body out."""
    answer = carry_on(request)
    return replace(answer, body=answer.body.removesuffix(f"\r\n--{BOUNDARY}--\r\n".encode())[:-20])


def another_object(site: Site) -> None:
    """Answer every request with the first object that was ever asked for."""
    kept: list[Answer] = []

    def spoil(request: Request, carry_on: Handle) -> Answer:
        kept.append(carry_on(request))
        return kept[0]

    site.saboteur.faults = (menu.Fault(on=OBJECT, spoil=spoil, times=FOREVER),)


def foreign_images(site: Site, summary: dict[str, Any]) -> list[str]:
    """Demand that no object under another's name was taken."""
    images = site.run.load_all("images", "images/*").height
    return [] if images <= 1 else [f"{images} images from one object"]


def some_images(site: Site, summary: dict[str, Any]) -> list[str]:
    """Demand that radiographs were read at all."""
    return [] if site.run.load_all("images", "images/*").height else ["no image was read"]


def not_found(site: Site, summary: dict[str, Any]) -> list[str]:
    """Demand the planted missing study and the one that we took away."""
    count = reasons(summary).get("image.not_found", 0)
    return some_images(site, summary) + ([] if count >= 2 else [f"{count} rows of image.not_found"])


CASES = (
    Case(
        name="query 503, then in order",
        group="dicomweb",
        wiring=IMAGES,
        prepare=unlisted,
        faults=once(menu.status(503), on=QUERY),
        check=some_images,
    ),
    Case(
        name="object cut off in the body",
        group="dicomweb",
        wiring=IMAGES,
        faults=once(menu.cut(), on=OBJECT, times=2),
        check=some_images,
    ),
    Case(
        name="object gone (404)",
        group="dicomweb",
        wiring=IMAGES,
        faults=once(menu.status(404), on=OBJECT),
        check=not_found,
    ),
    Case(
        name="multipart body not closed",
        group="dicomweb",
        wiring=IMAGES,
        faults=once(unclosed, on=OBJECT),
        check=quarantined("image.unreadable"),
    ),
    Case(
        name="every object under another's name",
        group="dicomweb",
        wiring=IMAGES,
        prepare=another_object,
        check=foreign_images,
    ),
    Case(
        name="PACS down for the whole night",
        group="dicomweb",
        wiring=IMAGES,
        faults=once(menu.status(503), on=menu.get("/dicom-web/"), times=FOREVER),
        stops="TemporaryError",
        check=some_images,
    ),
    Case(
        name="login page in place of an object",
        group="dicomweb",
        wiring=IMAGES,
        faults=once(menu.login_page, on=OBJECT, times=FOREVER),
        stops="ContentError",
        check=some_images,
    ),
)
