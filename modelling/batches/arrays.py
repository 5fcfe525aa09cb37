"""Arrays of recordings and images: memory-mapped, checked by digest, prepared by several threads."""

from __future__ import annotations

import math
import mmap
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modelling.batches.encoding import Encoding
from modelling.batches.picture import prepare_image
from modelling.batches.signal import prepare_signal
from modelling.errors import ArrayUnreadableError

WORKERS = min(4, os.cpu_count() or 1)
#: Format 1.0 of NEP 1, as ``numpy.save`` writes it for plain arrays. NumPy's own reader hands this text to
#: ``ast.literal_eval``, which in several threads of CPython < 3.11.8 raises SystemError at random
#: (github.com/python/cpython/issues/106905) and would end the night.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(?P<dtype>[^']+)', 'fortran_order': (?P<by_columns>True|False), "
    rb"'shape': \((?P<shape>[0-9, ]*)\), \} *\n",
    re.DOTALL,
)

#: From rows of ``recordings`` or ``images`` to one outcome each, in order: what a model reads, or the error.
ItemReader = Callable[[Sequence[dict[str, Any]]], Iterable[Tensor | Exception]]


def read_array(path: Path, digest: str) -> NDArray[Any]:
    """Map a ``.npy`` file after checking its SHA-256; pickled objects are refused.

    Returns
    -------
    numpy.ndarray
        Read-only; its bytes stay in the page cache and are not copied.

    Raises
    ------
    ArrayUnreadableError
        If the file is missing, was changed, or is not a plain array.
    """
    try:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # an empty file cannot be mapped
        raise ArrayUnreadableError("array file is missing or cannot be read") from None
    if sha256(content).hexdigest() != digest:
        raise ArrayUnreadableError("array file was changed after it was written")
    try:
        return _plain_array(content)
    except (TypeError, ValueError):
        raise ArrayUnreadableError("file is not a plain array") from None


def _plain_array(content: mmap.mmap) -> NDArray[Any]:
    header = _HEADER.match(content)
    if header is None:
        raise ValueError
    dtype = np.dtype(header["dtype"].decode("ascii"))
    shape = tuple(int(side) for side in header["shape"].split(b",") if side.strip())
    array = np.frombuffer(content, dtype=dtype, count=math.prod(shape), offset=header.end())
    return array.reshape(shape, order="F" if header["by_columns"] == b"True" else "C")


def _signal(row: dict[str, Any], run_folder: Path, encoding: Encoding) -> Tensor:
    array = read_array(run_folder / row["array_path"], row["array_sha256"])
    return torch.from_numpy(
        prepare_signal(array, row["leads"], row["sampling_rate"], encoding.settings.signal)
    )


def _picture(row: dict[str, Any], run_folder: Path, encoding: Encoding) -> Tensor:
    array = read_array(run_folder / row["array_path"], row["array_sha256"])
    return torch.tensor(prepare_image(array, encoding.settings.image))


def _in_threads(
    rows: Sequence[dict[str, Any]], prepare: Callable[[dict[str, Any]], Tensor], workers: int
) -> Iterator[Tensor | Exception]:
    def outcome(row: dict[str, Any]) -> Tensor | Exception:
        try:
            return prepare(row)
        except ArrayUnreadableError as error:
            return error

    if workers < 2 or len(rows) < 2:
        yield from map(outcome, rows)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="prepare") as pool:
        yield from pool.map(outcome, rows)


def signal_reader(run_folder: Path, encoding: Encoding, *, workers: int = WORKERS) -> ItemReader:
    """Return a reader of ECG windows, float32 ``[12, length]``; NumPy and SciPy leave other threads room."""
    return partial(
        _in_threads, prepare=partial(_signal, run_folder=run_folder, encoding=encoding), workers=workers
    )


def picture_reader(run_folder: Path, encoding: Encoding, *, workers: int = WORKERS) -> ItemReader:
    """Return a reader of images, uint8 ``[size, size]``."""
    return partial(
        _in_threads, prepare=partial(_picture, run_folder=run_folder, encoding=encoding), workers=workers
    )
