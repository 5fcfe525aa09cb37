"""Signal and pixel arrays on disk, named by their own digest."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import numpy as np


def store_array(array: np.ndarray, run_folder: Path) -> tuple[str, str]:
    """Write an array as ``arrays/<2 hex digits>/<sha256>.npy`` below the run folder.

    The same array gives the same file, so a second run changes nothing.

    Returns
    -------
    tuple of str
        Path relative to the run folder, and the SHA-256 of the file.
    """
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    data = buffer.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    relative = f"arrays/{digest[:2]}/{digest}.npy"
    path = run_folder / relative
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    return relative, digest
