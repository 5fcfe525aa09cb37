"""Signal and pixel arrays of a table folder, named by their own digest as the adapter names them."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def store_array(array: NDArray[Any], root: Path) -> tuple[str, str]:
    """Write an array as ``arrays/<2 hex digits>/<sha256>.npy`` below a folder; return path and digest.

    The path is relative to the folder. The same array gives the same file, so that a second run changes
    nothing.
    """
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    data = buffer.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    relative = f"arrays/{digest[:2]}/{digest}.npy"
    path = root / relative
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(data)
        temporary.replace(path)
    return relative, digest
