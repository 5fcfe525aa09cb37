"""Take a patient out of files of lines: downloads, written resources, the audit log."""

from __future__ import annotations

import base64
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy.forget.trace import Trace

FORGOTTEN = "forgotten"


def open_lines(path: Path) -> list[str]:
    """Return the lines of a file, also of a compressed one; what is no UTF-8 is replaced."""
    raw = path.read_bytes()
    data = gzip.decompress(raw) if path.suffix == ".gz" else raw
    return data.decode("utf-8", errors="replace").splitlines()


def _write_lines(lines: list[str], path: Path) -> None:
    data = "".join(f"{line}\n" for line in lines).encode()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(gzip.compress(data) if path.suffix == ".gz" else data)
        file.flush()
        os.fsync(file.fileno())
    temporary.chmod(path.stat().st_mode & 0o777)
    temporary.replace(path)


def clean_lines(path: Path, trace: Trace, mend: Callable[[str, Trace], str | None]) -> int:
    """Rewrite a file line by line; return how many lines were dropped or changed.

    Parameters
    ----------
    mend
        Gives the line without the patient, or None to drop it; called for lines that name the patient.
    """
    kept: list[str] = []
    touched = 0
    for line in open_lines(path):
        if not named(line, trace):
            kept.append(line)
            continue
        touched += 1
        mended = mend(line, trace)
        if mended is not None:
            kept.append(mended)
    if touched:
        _write_lines(kept, path)
    return touched


def named(line: str, trace: Trace) -> bool:
    """Tell whether a line names the patient, also inside the audit log's encoded queries."""
    if trace.named_in(line):
        return True
    return '"query"' in line and any(trace.named_in(text) for text in _queries(line))


def _queries(line: str) -> list[str]:
    try:
        entities = json.loads(line).get("entity", [])
        return [
            base64.b64decode(item["query"]).decode("utf-8", "replace") for item in entities if "query" in item
        ]
    except (ValueError, AttributeError, TypeError):
        return []


def drop(line: str, trace: Trace) -> None:
    """Drop a line of the patient."""


def drop_or_untie(line: str, trace: Trace) -> str | None:
    """Drop a resource of the patient; a Provenance of many scores only loses those of the patient."""
    try:
        resource = json.loads(line)
    except ValueError:
        return None
    if not isinstance(resource, dict) or resource.get("resourceType") != "Provenance":
        return None
    targets = [item for item in resource.get("target", []) if not trace.named_in(json.dumps(item))]
    if not targets:
        return None
    text = json.dumps(
        {**resource, "target": targets}, ensure_ascii=False, separators=(",", ":"), sort_keys=True
    )
    return None if trace.named_in(text) else text


def redact_event(line: str, trace: Trace) -> str | None:
    """Take the patient's names out of an AuditEvent; that something was done, when and by whom stays."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    text = json.dumps(_redacted(event, trace), ensure_ascii=False, separators=(",", ":"))
    return None if named(text, trace) else text


def _redacted(value: Any, trace: Trace) -> Any:
    if isinstance(value, dict):
        return {
            key: _query(item, trace) if key == "query" else _redacted(item, trace)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_redacted(item, trace) for item in value]
    if isinstance(value, str) and trace.named_in(value):
        kind, slash, _ = value.partition("/")
        return f"{kind}/{FORGOTTEN}" if slash else FORGOTTEN
    return value


def _query(value: Any, trace: Trace) -> Any:
    text = base64.b64decode(str(value)).decode("utf-8", "replace")
    if not trace.named_in(text):
        return value
    return base64.b64encode(f"{text.partition('?')[0]}?{FORGOTTEN}".encode()).decode("ascii")
