"""One byte form of a resource, so that equal resources have equal digests."""

from __future__ import annotations

import hashlib
import json
from typing import Any

SERVER_OWNED = ("meta", "text")


def canonical(resource: dict[str, Any]) -> bytes:
    """Return compact UTF-8 JSON with sorted keys.

    Examples
    --------
    >>> canonical({"b": 1, "a": "µ"}).decode()
    '{"a":"µ","b":1}'
    """
    return json.dumps(
        resource, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode()


def payload_hash(resource: dict[str, Any]) -> str:
    """Return the SHA-256 hex digest of :func:`canonical`."""
    return hashlib.sha256(canonical(resource)).hexdigest()


def same_content(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Tell whether a server's resource says what ours says.

    The id, ``meta`` and the narrative are the server's to change.
    """

    def content(resource: dict[str, Any]) -> bytes:
        kept = {key: value for key, value in resource.items() if key not in (*SERVER_OWNED, "id")}
        return canonical(kept)

    return content(ours) == content(theirs)
