"""Write-back of a run: scores to FHIR resources, and those to the destination, exactly once."""

from __future__ import annotations

from typing import Any

from deploy.champion import card_markdown
from deploy.night.connections import database, destination_transport
from deploy.night.run import Run
from deploy.night.scoring import model_folder
from deploy.settings import Settings
from fhir_adapter.store import Ledger
from fhir_adapter.transport import same_origin
from fhir_adapter.write_back import Coding, FhirServer, ModelFacts, NdjsonDrop, build_resources, deliver
from modelling.cohorts.tasks import get_task
from modelling.registry.folder import read_folder
from validation.contracts import write_json


def model_facts(settings: Settings, run: Run) -> ModelFacts:
    """Return what the written resources say of the model that scored."""
    path = model_folder(settings, run)
    folder = read_folder(path)
    task = get_task(str(folder.config["task"]))
    return ModelFacts.from_card(
        folder.card,
        digest=folder.digest,
        title=task.title,
        outcomes=[Coding(task.outcome_system, task.outcome_code, task.outcome_display)],
        markdown=card_markdown(settings, path),
        unit=task.unit,
    )


def reference_base(settings: Settings) -> str | None:
    """Return the address that references must carry: the source's, where scores go to another server."""
    source, destination = settings.source.base_url, settings.destination.base_url
    if settings.destination.kind == "ndjson" or not (source and destination):
        return None
    return None if same_origin(source, destination) else source


def write_scores(settings: Settings, run: Run) -> dict[str, Any]:
    """Build, deliver and reconcile every score of a run; write and return the summary.

    Raises
    ------
    RequestError
        If the destination cannot be asked at all, so that the task is tried again.
    """
    resources = build_resources(
        run.load_all("scores", "scores/*"),
        card=model_facts(settings, run),
        site=settings.site.name,
        partition=run.partition,
        site_uri=settings.site.uri,
        zone=settings.site.zone,
        transparency_profiles=settings.destination.transparency_profiles,
        reference_base=reference_base(settings),
    )
    engine = database(settings)
    destination = open_destination(settings)
    try:
        summary = deliver(
            resources,
            ledger=Ledger(engine),
            destination=destination,
            partition=run.partition,
            progress=lambda done, total: run.report_progress("write back", done, total),
        ).to_dict()
    finally:
        engine.dispose()
    summary["location"] = location(destination)
    write_json(summary, run.path / "write_back" / "summary.json")
    run.report_progress("write back", 1, 1)
    return {name: summary[name] for name in ("scores", "confirmed", "written", "unchanged", "dead_lettered")}


def open_destination(settings: Settings) -> FhirServer | NdjsonDrop:
    """Return where scores go: the FHIR server, or one file a type and partition in the site's folder."""
    if settings.destination.kind == "ndjson":
        return NdjsonDrop(settings.destination.folder / settings.site.name)
    return FhirServer(destination_transport(settings), bundle_size=settings.destination.bundle_size)


def location(destination: FhirServer | NdjsonDrop) -> str:
    """Return where a person finds what was written: a folder or a server's address."""
    return destination.key if isinstance(destination, FhirServer) else str(destination.folder)
