"""Patient-level splits: no patient stands in two of them."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

import numpy as np
import polars as pl

from modelling.errors import TrainingError

TRAIN, TUNING, HELD_OUT = "train", "tuning", "held_out"


def split_subjects(
    samples: pl.DataFrame, *, tuning_share: float, held_out_share: float, seed: int
) -> dict[int, str]:
    """Assign every subject to a split (names as in MEDS), stratified by whether any label is true.

    Parameters
    ----------
    samples
        Table ``samples``; rows without a label are ignored.
    tuning_share, held_out_share
        Of subjects.
    seed
        Of the shuffle; the order of the table does not matter.

    Raises
    ------
    TrainingError
        If a split would hold no positive or no negative subject.
    """
    subjects = (
        samples.drop_nulls("boolean_value")
        .group_by("subject_id")
        .agg(pl.col("boolean_value").any().alias("positive"))
        .sort("subject_id")
    )
    generator = np.random.default_rng(seed)
    names: dict[int, str] = {}
    for positive in (False, True):
        group = subjects.filter(pl.col("positive") == positive)["subject_id"].to_numpy()
        group = group[generator.permutation(group.size)]
        held_out = round(held_out_share * group.size)
        tuning = max(1, round(tuning_share * group.size))
        if group.size - held_out - tuning < 1:
            kind = "positive" if positive else "negative"
            raise TrainingError(f"{group.size} {kind} subjects are too few to train, tune and test on")
        names |= {int(subject): HELD_OUT for subject in group[:held_out]}
        names |= {int(subject): TUNING for subject in group[held_out : held_out + tuning]}
        names |= {int(subject): TRAIN for subject in group[held_out + tuning :]}
    return names


def part(samples: pl.DataFrame, split: Mapping[int, str], name: str) -> pl.DataFrame:
    """Return the labelled samples of the subjects of one split, in table order."""
    subjects = [subject for subject, where in split.items() if where == name]
    return samples.drop_nulls("boolean_value").filter(
        pl.col("subject_id").is_in(pl.Series(subjects, dtype=pl.Int64).implode())
    )


def split_digest(split: Mapping[int, str]) -> str:
    """Return a digest of who stands in which split."""
    text = "\n".join(f"{subject} {name}" for subject, name in sorted(split.items()))
    return sha256(text.encode()).hexdigest()
