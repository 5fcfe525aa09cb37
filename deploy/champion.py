"""Which model scores a task: the site's choice, the registry's champion, or the shipped weights."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from deploy.errors import SettingsError
from deploy.settings import Settings
from fhir_adapter.store import open_engine
from modelling.registry.cards import registered_card
from modelling.registry.records import State
from modelling.registry.registry import Registry
from modelling.registry.rules import PromotionRules
from modelling.shipped_weights.cards import HERE as SHIPPED
from modelling.shipped_weights.cards import render_card

SHIPPED_BY_TASK = {"in-hospital-mortality": SHIPPED / "physionet2012-mortality"}
REGISTERED = "registered"
"""Folder of the registry's models, below ``storage.models``."""


def open_registry(settings: Settings) -> Registry:
    """Open the site's registry: the database of the ledger, and ``registered/`` below the models' folder."""
    return Registry(open_engine(settings.storage.database), settings.storage.models / REGISTERED)


def champion_folder(settings: Settings, task: str) -> Path:
    """Return the folder of the model that scores a task.

    ``night.model`` wins for the night's task, then the champion (every file checked against its recorded
    SHA-256), then the shipped weights.

    Raises
    ------
    SettingsError
        If there is none of these.
    CheckpointFormatError, CheckpointDigestError
        If the champion's folder is not as it was registered: another model must not silently take its place.
    """
    if settings.night.model is not None and task == settings.night.task:
        return settings.night.model
    registry = open_registry(settings)
    champion = registry.champion(task)
    if champion is not None:
        return registry.folder(champion.digest)
    shipped = SHIPPED_BY_TASK.get(task)
    if shipped is None:
        raise SettingsError(
            f"no model for task {task!r} comes with Nightingale: train one (`nightingale retrain`) and promote "
            "it (`nightingale models promote`), or name a folder in night.model"
        )
    return shipped


def shadow_folders(settings: Settings, task: str) -> dict[str, Path]:
    """Return digest to folder of the models that score a task without writing to the record."""
    registry = open_registry(settings)
    return {
        record.digest: registry.folder(record.digest)
        for record in registry.find(task=task, state=State.SHADOW)
    }


def card_markdown(settings: Settings, folder: Path) -> str:
    """Return the card of a model as Markdown: from the registry where it is registered, else from its folder."""
    registry = open_registry(settings)
    if folder.parent.resolve() == registry.objects.root.resolve():
        return registered_card(folder, registry.get(folder.name))
    return render_card(folder)


def promotion_rules(settings: Settings) -> PromotionRules:
    """Return the site's promotion rules."""
    return PromotionRules(**settings.promotion.model_dump())


def now() -> datetime:
    """Return the moment that a change of the registry is recorded with."""
    return datetime.now(UTC)
