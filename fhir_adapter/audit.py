"""Audit log of every FHIR interaction, shaped after IHE Basic Audit Log Patterns (BALP 1.1).

One AuditEvent a try, one JSON line an event, one file a day, only ever appended to: who (Nightingale and
the server), what (interaction, resource or query), when, how it ended, and the ``X-Request-Id`` that the
server's own log carries too. Contents of answers, tokens and headers never enter. Ids and query values
that may point to a patient are replaced by a keyed digest (HMAC-SHA256) unless the site asks for plain
ones: who holds the key can look up a patient, who holds only the log cannot.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode

from fhir_adapter.errors import AuditError
from fhir_adapter.transport import Interaction

KEEP = timedelta(days=6 * 366)
"""HIPAA asks for six years of documentation (45 CFR 164.316(b)); whether logs count is disputed."""

BALP = "https://profiles.ihe.net/ITI/BALP"
DCM = "http://dicom.nema.org/resources/ontology/DCM"
TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
SOURCE = {"system": DCM, "code": "110153", "display": "Source Role ID"}
DESTINATION = {"system": DCM, "code": "110152", "display": "Destination Role ID"}
OBJECT = {"system": f"{TERMINOLOGY}/audit-entity-type", "code": "2", "display": "System Object"}
PERSON = {"system": f"{TERMINOLOGY}/audit-entity-type", "code": "1", "display": "Person"}

OWN_TYPES = frozenset({"RiskAssessment", "Device", "Provenance"})
"""Types whose ids we make ourselves from digests; they name no patient and stay readable."""

HARMLESS = frozenset(
    {"_count", "_total", "_lastUpdated", "_since", "_type", "_tag", "_summary", "_elements", "_sort"}
    | {"_format", "_outputFormat", "_include", "_revinclude", "status", "category", "code", "class", "date"}
)
"""Query parameters that cannot point to a patient."""

OF_PATIENT = frozenset({"patient", "subject"})
_TAGGED_FILE = re.compile(r"audit-(\d{4}-\d{2}-\d{2})\.jsonl")

_SUBTYPES = {
    "read": ("R", "Read"),
    "search-type": ("E", "Query"),
    "create": ("C", "Create"),
    "update": ("U", "Update"),
    "delete": ("D", "Delete"),
    "batch": ("E", None),
    "operation": ("E", None),
    "capabilities": ("R", None),
}
"""Action and name of the BALP profile of each interaction; BALP has none for the last three."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who acts.

    Attributes
    ----------
    system, value
        Identifier of this installation, as in the Device that signs its scores.
    display
        Words for it.
    site
        Short name of the site.
    host
        Name of this machine in its network.
    """

    system: str
    value: str
    display: str = "Nightingale"
    site: str = "site"
    host: str = "localhost"


@dataclass
class AuditLog:
    """Writes AuditEvents; pass it as ``audit`` to every :class:`fhir_adapter.transport.Transport`.

    Attributes
    ----------
    folder
        Made if it is missing; files are readable by their owner only.
    identity
        Who acts.
    patients
        ``hmac`` replaces what may point to a patient; ``plain`` keeps it, as BALP itself would.
    key
        Key of the digests. Unset, one is drawn for this process: entries of one process can then be
        linked to one another but to nothing else.
    """

    folder: Path
    identity: Identity
    patients: Literal["hmac", "plain"] = "hmac"
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __call__(self, interaction: Interaction) -> None:
        """Append one event.

        Raises
        ------
        AuditError
            If the log cannot be written: what is not recorded must not happen.
        """
        line = json.dumps(self.event(interaction), ensure_ascii=False, separators=(",", ":")) + "\n"
        day = interaction.started.astimezone(UTC).date()
        try:
            with self._lock:
                self._append(self.folder / f"audit-{day.isoformat()}.jsonl", line.encode())
        except OSError as error:
            raise AuditError(f"the audit log cannot be written ({type(error).__name__})") from None

    def _append(self, path: Path, line: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                line = b"\n" + line  # a full disk or a kill cut the last event off: it costs itself only
            if os.write(handle, line) != len(line):
                raise OSError("short write")
        finally:
            os.close(handle)

    def event(self, interaction: Interaction) -> dict[str, Any]:
        """Return the AuditEvent of one try."""
        subtype = _subtype(interaction)
        action, profile = _SUBTYPES[subtype]
        code = _outcome(interaction)
        data = list(self._data(interaction, subtype))
        patients = [entity for entity in data if entity["type"] is PERSON]
        client, server = (DESTINATION, SOURCE) if subtype == "read" else (SOURCE, DESTINATION)
        event: dict[str, Any] = {
            "resourceType": "AuditEvent",
            "type": {
                "system": f"{TERMINOLOGY}/audit-event-type",
                "code": "rest",
                "display": "Restful Operation",
            },
            "subtype": [{"system": "http://hl7.org/fhir/restful-interaction", "code": subtype}],
            "action": action,
            "period": {
                "start": _instant(interaction.started),
                "end": _instant(interaction.started + timedelta(seconds=interaction.seconds)),
            },
            "recorded": _instant(interaction.started + timedelta(seconds=interaction.seconds)),
            "outcome": code,
            "agent": [
                {
                    "type": {"coding": [client]},
                    "who": self._who(),
                    "requestor": True,
                    "network": {"address": self.identity.host, "type": "1"},
                },
                {
                    "type": {"coding": [server]},
                    "who": {"display": interaction.server or "server"},
                    "requestor": False,
                    "network": {"address": interaction.server or "server", "type": "5"},
                },
            ],
            "source": {"site": self.identity.site, "observer": self._who()},
            "entity": [
                {
                    "what": {"identifier": {"value": interaction.request_id}},
                    "type": {"system": f"{BALP}/CodeSystem/BasicAuditEntityType", "code": "XrequestId"},
                },
                *data,
            ],
        }
        if code != "0":
            event["outcomeDesc"] = interaction.error or f"status {interaction.status}"
        elif profile and data:
            name = f"Patient{profile}" if patients else profile
            event["meta"] = {"profile": [f"{BALP}/StructureDefinition/IHE.BasicAudit.{name}"]}
        return event

    def _who(self) -> dict[str, Any]:
        return {
            "type": "Device",
            "identifier": {"system": self.identity.system, "value": self.identity.value},
            "display": self.identity.display,
        }

    def _data(self, interaction: Interaction, subtype: str) -> Iterator[dict[str, Any]]:
        """Yield what was touched: the resource or the query, the entries of a Bundle, the patients named."""
        if subtype == "search-type":
            pairs = parse_qsl(interaction.query, keep_blank_values=True)
            kept = interaction.query if self.patients == "plain" else self._without_patients(pairs)
            asked = f"{interaction.resource_type or ''}?{kept}"
            yield {
                "type": OBJECT,
                "role": {"system": f"{TERMINOLOGY}/object-role", "code": "24", "display": "Query"},
                "query": base64.b64encode(asked.encode()).decode("ascii"),
            }
            for name, value in pairs:
                if name in OF_PATIENT:
                    for one in value.split(","):
                        yield self._patient(one.rpartition("/")[2])
            return
        if interaction.writes:
            for write in interaction.writes:
                yield _object(self._address(write.partition(" ")[2].partition("?")[0]))
            return
        address = self._address(_below_type(interaction))
        yield (
            _object(address)
            if address
            else {
                "type": OBJECT,
                "what": {"identifier": {"value": self._shown(interaction.path)}},
            }
        )
        kind, _, rest = _below_type(interaction).partition("/")
        if kind == "Patient" and rest and not rest.startswith("$"):
            yield self._patient(rest.partition("/")[0])

    def _patient(self, name: str) -> dict[str, Any]:
        return {
            "type": PERSON,
            "role": {"system": f"{TERMINOLOGY}/object-role", "code": "1", "display": "Patient"},
            "what": {"reference": f"Patient/{self._shown(name)}"},
        }

    def _address(self, path: str) -> str:
        """Return ``Type/id`` with the id shown as the site wishes; an operation's name stays."""
        kind, _, rest = path.partition("/")
        if not rest or rest.startswith("$"):
            return path
        name = rest.partition("/")[0]
        return f"{kind}/{name if kind in OWN_TYPES else self._shown(name)}"

    def _shown(self, value: str) -> str:
        """Return a value as the site wishes to see it."""
        if self.patients == "plain":
            return value
        return "hmac-" + hmac.new(self.key, value.encode(), hashlib.sha256).hexdigest()[:32]

    def _without_patients(self, pairs: list[tuple[str, str]]) -> str:
        return urlencode([(name, value if name in HARMLESS else self._shown(value)) for name, value in pairs])


def prune(folder: Path, *, keep: timedelta = KEEP, today: date) -> int:
    """Remove files of days longer ago than ``keep``; return how many. Other files are left alone."""
    removed = 0
    for path in sorted(folder.glob("audit-*.jsonl")):
        match = _TAGGED_FILE.fullmatch(path.name)
        if match and today - date.fromisoformat(match[1]) > keep:
            path.unlink()
            removed += 1
    return removed


def _subtype(interaction: Interaction) -> str:
    path = _below_type(interaction)
    if interaction.resource_type == "metadata":
        return "capabilities"
    if "$" in path:
        return "operation"
    if interaction.method == "GET":
        if interaction.resource_type is None:  # a link of the server's own making
            return "search-type" if interaction.query else "read"
        return "read" if "/" in path else "search-type"
    if interaction.method == "POST":
        if interaction.writes or not interaction.resource_type:
            return "batch"
        return "search-type" if path.endswith("/_search") else "create"
    return {"PUT": "update", "DELETE": "delete"}.get(interaction.method, "operation")


def _below_type(interaction: Interaction) -> str:
    """Return the path from the resource type on; empty where there is none (a link, DICOMweb)."""
    kind = interaction.resource_type
    if not kind:
        return ""
    parts = interaction.path.split("/")
    return "/".join(parts[parts.index(kind) :]) if kind in parts else kind


def _object(address: str) -> dict[str, Any]:
    role = {"system": f"{TERMINOLOGY}/object-role", "code": "4", "display": "Domain Resource"}
    what: dict[str, Any] = {"reference": address} if "/" in address and "$" not in address else {}
    return {"type": OBJECT, "role": role, "what": what or {"display": address}}


def _outcome(interaction: Interaction) -> str:
    """Return 0 success, 4 the client's fault, 8 the server's or the network's."""
    if interaction.error or interaction.status is None or interaction.status >= 500:
        return "8"
    return "0" if interaction.status < 400 else "4"


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")
