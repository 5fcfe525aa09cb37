"""Embeddings by digest of input and weights, so that an ECG or an image is encoded once a night.

``<folder>/<encoder digest>/<digest of the part's keys>.parquet`` holds ``key`` and ``vector``. Parts are
written whole under a temporary name, so shards that run beside one another can share a folder; a part that
cannot be read counts as not there.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Mapping
from hashlib import sha256
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

log = logging.getLogger(__name__)
COLUMNS = pl.Schema([("key", pl.String()), ("vector", pl.List(pl.Float32))])


class EmbeddingStore:
    """Embeddings that were computed before.

    Parameters
    ----------
    folder
        Where they lie; None keeps none beyond a call.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def get(self, encoder: str, keys: Collection[str]) -> dict[str, Tensor]:
        """Return the embeddings ``[d]`` (float32) of those keys that are there."""
        if self.folder is None or not keys:
            return {}
        parts = sorted((self.folder / encoder).glob("*.parquet"))
        wanted = pl.col("key").is_in(pl.Series(list(keys), dtype=pl.String).implode())
        try:
            found = _read(parts, wanted)
        except (OSError, pl.exceptions.PolarsError):
            found = pl.concat([COLUMNS.to_frame(), *_readable(parts, wanted)])
        return {key: torch.tensor(vector) for key, vector in found.iter_rows()}

    def put(self, encoder: str, vectors: Mapping[str, Tensor]) -> None:
        """Keep embeddings ``[d]`` (float32)."""
        if self.folder is None or not vectors:
            return
        folder = self.folder / encoder
        keys = sorted(vectors)
        frame = pl.DataFrame(
            {"key": keys, "vector": [vectors[key].numpy() for key in keys]}, schema=COLUMNS, strict=False
        )
        name = sha256("".join(keys).encode()).hexdigest()[:32]
        temporary = folder / f".{name}.{os.getpid()}.tmp"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            frame.write_parquet(temporary)
            temporary.replace(folder / f"{name}.parquet")
        except (OSError, pl.exceptions.PolarsError) as error:
            log.warning("embeddings are not kept: %s", type(error).__name__)


def _read(parts: list[Path], wanted: pl.Expr) -> pl.DataFrame:
    """Read all parts at once, vectors of wanted keys only: a night has a part a shard, and every shard asks."""
    if not parts:
        return COLUMNS.to_frame()
    return (
        pl.scan_parquet(parts)
        .select(pl.col(name).cast(kind) for name, kind in COLUMNS.items())
        .filter(wanted)
        .collect()
    )


def _readable(parts: list[Path], wanted: pl.Expr) -> Iterator[pl.DataFrame]:
    for path in parts:
        try:
            yield _read([path], wanted)
        except (OSError, pl.exceptions.PolarsError):
            log.warning("embeddings in %s cannot be read and are computed again", path.name)
