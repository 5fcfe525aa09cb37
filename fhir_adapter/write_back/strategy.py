"""How each type can be written, read from what the server says of itself.

Strategies, the best first: ``put`` (the server takes our ids), ``conditional-create`` (the server gives
ids and looks for our identifier), and for scores the same two with an Observation in place of the
RiskAssessment. A plain POST is none of them: sent again after a lost answer, it writes a second score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fhir_adapter.errors import WriteError
from fhir_adapter.transport import Transport

TYPES = ("DocumentReference", "Device", "RiskAssessment", "Provenance")


class Method(StrEnum):
    """How a new resource is written so that a repeat cannot duplicate it."""

    PUT = "put"
    CONDITIONAL_CREATE = "conditional-create"


class Strategy(StrEnum):
    """What a site asks for; ``auto`` lets ``/metadata`` decide."""

    AUTO = "auto"
    PUT = "put"
    CONDITIONAL_CREATE = "conditional-create"
    OBSERVATION = "observation"


@dataclass(frozen=True, kw_only=True)
class Route:
    """How one of our types reaches the server.

    Attributes
    ----------
    server_type
        Type that is written: Observation in place of RiskAssessment where the server takes no other.
    method
        How a new one is written.
    update
        Whether one that is there can be replaced.
    """

    server_type: str
    method: Method
    update: bool

    def __str__(self) -> str:
        return f"{self.server_type} {self.method}"


@dataclass(frozen=True, kw_only=True)
class WriteCapabilities:
    """The writing side of a CapabilityStatement.

    Attributes
    ----------
    routes
        Best route of each type that can be written safely.
    batch
        Whether Bundles are taken.
    """

    routes: Mapping[str, Route]
    batch: bool


def read_write_capabilities(transport: Transport) -> WriteCapabilities:
    """Read ``/metadata``.

    Raises
    ------
    RequestError
        If it cannot be had.
    """
    statement = transport.get_json("metadata")
    rests = [item for item in _dicts(statement.get("rest")) if item.get("mode", "server") == "server"]
    routes = {}
    for resource in (item for rest in rests for item in _dicts(rest.get("resource"))):
        kind = str(resource.get("type"))
        actions = {str(action.get("code")) for action in _dicts(resource.get("interaction"))}
        update = "update" in actions
        if update and resource.get("updateCreate") is True:
            routes[kind] = Route(server_type=kind, method=Method.PUT, update=True)
        elif "create" in actions and resource.get("conditionalCreate") is True:
            routes[kind] = Route(server_type=kind, method=Method.CONDITIONAL_CREATE, update=update)
    system = {str(action.get("code")) for rest in rests for action in _dicts(rest.get("interaction"))}
    return WriteCapabilities(routes=routes, batch=bool(system & {"batch", "transaction"}))


def choose_routes(strategy: Strategy, capabilities: WriteCapabilities | None) -> dict[str, Route]:
    """Return the route of each of our types that the server can take.

    Parameters
    ----------
    strategy
        What the site asks for; ``put`` and ``conditional-create`` are believed without ``/metadata``.

    Raises
    ------
    WriteError
        If scores cannot be written safely.
    """
    if strategy in (Strategy.PUT, Strategy.CONDITIONAL_CREATE):
        method = Method(str(strategy))
        return {kind: Route(server_type=kind, method=method, update=True) for kind in TYPES}
    if capabilities is None:
        raise WriteError("the server's capabilities are not known")
    routes = {kind: capabilities.routes[kind] for kind in TYPES if kind in capabilities.routes}
    if strategy is Strategy.OBSERVATION or "RiskAssessment" not in routes:
        observation = capabilities.routes.get("Observation")
        if observation is None:
            raise WriteError(
                "the server takes scores neither as RiskAssessment nor as Observation without the risk of "
                "duplicates; set destination.kind = 'ndjson'"
            )
        routes["RiskAssessment"] = observation
    return routes


def _dicts(found: object) -> list[dict[str, Any]]:
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
