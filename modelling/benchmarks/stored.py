"""Scores of one benchmark run as a small JSON file, small enough to be kept beside the code.

Scores are log-odds whose ranks and rough size matter; they are kept as 65,536 levels between their smallest
and largest value (about 0.0002 apart), in base64.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelling.errors import BenchmarkError

LEVELS = 65_535


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """What one model, fold and seed gave.

    Attributes
    ----------
    scores
        Of the test rows, ``[n]``.
    seconds
        Time of the run.
    about
        For the reader of the file: contender, settings, metrics.
    """

    scores: NDArray[np.float64]
    seconds: float
    about: Mapping[str, Any]


def subjects_digest(subjects: NDArray[np.generic]) -> str:
    """Return a short digest of the subjects in their order."""
    return hashlib.sha256(np.asarray(subjects, dtype="<i8").tobytes()).hexdigest()[:12]


def write_run(path: Path, run: StoredRun, *, subjects: NDArray[np.generic]) -> None:
    """Write a run; a reader never sees half a file."""
    lowest, highest = float(run.scores.min()), float(run.scores.max())
    step = (highest - lowest) / LEVELS or 1.0
    levels = np.round((run.scores - lowest) / step).astype("<u2")
    fields = {
        **run.about,
        "subjects": subjects_digest(subjects),
        "seconds": round(run.seconds, 1),
        "lowest": lowest,
        "step": step,
        "levels": base64.b64encode(levels.tobytes()).decode("ascii"),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(fields, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_run(path: Path, *, subjects: NDArray[np.generic]) -> StoredRun:
    """Read what :func:`write_run` wrote.

    Raises
    ------
    BenchmarkError
        If the file is of other subjects or not readable.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        levels = np.frombuffer(base64.b64decode(fields.pop("levels"), validate=True), dtype="<u2")
        lowest, step, seconds = (float(fields.pop(name)) for name in ("lowest", "step", "seconds"))
        digest = fields.pop("subjects")
    except (ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(f"{path} is not a stored run: {type(error).__name__}") from None
    if digest != subjects_digest(subjects) or len(levels) != len(subjects):
        raise BenchmarkError(f"{path} holds other samples")
    return StoredRun(scores=lowest + step * levels.astype(np.float64), seconds=seconds, about=fields)
