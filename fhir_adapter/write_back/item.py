"""One resource on its way to a destination, and how its way ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fhir_adapter.store.ledger import Entry

Key = tuple[str, str]
"""Resource type and id as Nightingale names them; the server may know the resource by others."""


class Outcome(StrEnum):
    """How one resource ended. A score counts as confirmed unless it is a dead letter."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    FOUND = "found"
    AMENDED_BY_OTHERS = "amended_by_others"
    WITHDRAWN = "withdrawn"
    DEAD_LETTERED = "dead_lettered"
    NOT_SUPPORTED = "not_supported"


@dataclass(frozen=True, kw_only=True)
class Item:
    """A resource ready for one destination.

    Attributes
    ----------
    key
        Type and id as in the ledger.
    payload
        The resource as it is sent, its references those of the destination.
    digest
        :func:`fhir_adapter.write_back.canonical.content_hash` of the payload.
    known
        The ledger's row before this delivery, or None.
    version
        Version on the server that may be replaced; None where nothing of ours is known to be there.
    """

    key: Key
    payload: dict[str, Any]
    digest: str
    known: Entry | None = None
    version: str | None = None

    @property
    def server_type(self) -> str:
        """Type under which the destination holds it."""
        return str(self.payload["resourceType"])

    @property
    def server_id(self) -> str | None:
        """The id under which the destination holds an earlier version, or None."""
        known = self.known
        return known.server_id if known and known.server_type == self.server_type else None

    @property
    def identifier(self) -> str | None:
        """``system|value`` of the first identifier, or None."""
        found = self.payload.get("identifier")
        if not isinstance(found, list) or not found:
            return None
        return f"{found[0]['system']}|{found[0]['value']}"


@dataclass(frozen=True, kw_only=True)
class Held:
    """A resource as the server holds it.

    Attributes
    ----------
    resource_type, id, version
        The server's names for it.
    digest
        Its content hash.
    resource
        The whole resource.
    """

    resource_type: str
    id: str
    version: str | None
    digest: str
    resource: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The end of an item.

    Attributes
    ----------
    outcome
        What to count.
    server_id, server_version
        Where the server holds it; None where it does not, or where the version is not ours to replace.
    error_class
        Word for the ledger and the summary.
    codes
        ``issue.code`` values of the server's OperationOutcome.
    """

    item: Item
    outcome: Outcome
    server_id: str | None = None
    server_version: str | None = None
    error_class: str | None = None
    codes: tuple[str, ...] = ()


def dead(item: Item, error_class: str, codes: tuple[str, ...] = ()) -> Answer:
    """Return the answer of an item that could not be delivered."""
    return Answer(item=item, outcome=Outcome.DEAD_LETTERED, error_class=error_class, codes=codes)


def left_alone(item: Item, held: Held) -> Answer:
    """Return the answer of an item that someone else has amended.

    The version kept is the one that we wrote, so that the guard holds again the next time.
    """
    return Answer(
        item=item,
        outcome=Outcome.AMENDED_BY_OTHERS,
        server_id=held.id,
        server_version=item.version,
        error_class=str(Outcome.AMENDED_BY_OTHERS),
    )
