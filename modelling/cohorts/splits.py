"""Which patients train, tune and judge: by patient, deterministic, or as published."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import polars as pl

from modelling.errors import CohortError

TRAIN, TUNING, HELD_OUT = "train", "tuning", "held_out"
"""Names of the splits, as MEDS recommends them."""
DEFAULT = {TRAIN: 0.7, TUNING: 0.15, HELD_OUT: 0.15}
_SYNONYMS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": TUNING,
    "valid": TUNING,
    "validate": TUNING,
    "validation": TUNING,
    "dev": TUNING,
    "tuning": TUNING,
    "test": HELD_OUT,
    "held_out": HELD_OUT,
}


def split_subjects(
    subjects: Iterable[int], *, fractions: Mapping[str, float] = DEFAULT, seed: int = 0
) -> pl.DataFrame:
    """Assign every patient to a split by a hash of the patient's number.

    A patient's split depends on nothing but the number and the seed: it stays when patients are added.

    Parameters
    ----------
    fractions
        Share of each split; the shares add up to 1.

    Returns
    -------
    polars.DataFrame
        ``subject_id``, ``split``, sorted by subject.

    Raises
    ------
    CohortError
        If the shares do not add up.

    Examples
    --------
    >>> split_subjects([1, 2], fractions={"train": 1.0})["split"].to_list()
    ['train', 'train']
    """
    if abs(sum(fractions.values()) - 1) > 1e-9 or min(fractions.values()) < 0:
        raise CohortError("the shares of the splits must be positive and add up to 1")
    rows = []
    for subject in sorted(set(subjects)):
        digest = hashlib.sha256(f"{seed}|{subject}".encode()).digest()
        draw, total, chosen = int.from_bytes(digest[:8], "big") / 2**64, 0.0, ""
        for name, share in fractions.items():
            total += share
            chosen = name
            if draw < total:
                break
        rows.append((subject, chosen))
    return pl.DataFrame(rows, schema={"subject_id": pl.Int64, "split": pl.String}, orient="row")


def read_splits(path: Path) -> pl.DataFrame:
    """Read published splits: CSV or Parquet with ``subject_id`` and ``split`` (train, val, test, ...).

    Raises
    ------
    CohortError
        If a column is missing, a split has an unknown name, or a patient is in two splits.
    """
    if not path.is_file():
        raise CohortError(f"{path}: no such file of splits")
    frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path)
    absent = {"subject_id", "split"} - set(frame.columns)
    if absent:
        raise CohortError(f"{path.name}: column {', '.join(sorted(absent))} is missing")
    splits = (
        frame.select(
            pl.col("subject_id").cast(pl.Int64),
            pl.col("split")
            .str.to_lowercase()
            .replace_strict(_SYNONYMS, default=None, return_dtype=pl.String),
        )
        .unique()
        .sort("subject_id")
    )
    if splits["split"].null_count():
        raise CohortError(f"{path.name}: a split is none of {', '.join(sorted(_SYNONYMS))}")
    if splits["subject_id"].is_duplicated().any():
        raise CohortError(f"{path.name}: a patient is in two splits")
    return splits
