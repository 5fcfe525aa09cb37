"""One byte form of a resource, so that equal resources have equal digests."""

from __future__ import annotations

import hashlib
import json
from typing import Any

SERVER_OWNED = ("id", "meta", "text")
"""Elements that a server may set or change: its own id, versions and labels, the narrative."""


def canonical(resource: Any) -> bytes:
    """Return compact UTF-8 JSON with sorted keys.

    Examples
    --------
    >>> canonical({"b": 1, "a": "µ"}).decode()
    '{"a":"µ","b":1}'
    """
    return json.dumps(
        resource, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode()


def content_hash(resource: dict[str, Any]) -> str:
    """Return the SHA-256 hex digest of what a resource says, so that a server's copy gives the same.

    Left out are :data:`SERVER_OWNED`, the difference between 1 and 1.0, and that between ``final`` and
    ``corrected``, which says only that an earlier version was replaced.

    Examples
    --------
    >>> ours = {"resourceType": "RiskAssessment", "id": "a", "status": "final", "x": 1.0}
    >>> theirs = {"resourceType": "RiskAssessment", "status": "corrected", "x": 1, "meta": {"versionId": "2"}}
    >>> content_hash(ours) == content_hash(theirs)
    True
    """
    kept = {key: _plain(value) for key, value in resource.items() if key not in SERVER_OWNED}
    if kept.get("status") == "corrected":
        kept["status"] = "final"
    return hashlib.sha256(canonical(kept)).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
