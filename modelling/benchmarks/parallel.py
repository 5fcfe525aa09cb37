"""A benchmark's missing runs in several processes, which may share a GPU."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import torch

from modelling.benchmarks.harness import Cohort, Contender, missing, run_once
from modelling.errors import BenchmarkError

_work: tuple[Path, Cohort, dict[str, Contender]] | None = None


def _start(path: Path) -> None:
    global _work
    torch.set_num_threads(1)
    _work = pickle.loads(path.read_bytes())  # noqa: S301 - written by the parent a moment ago


def _run(names: Sequence[str], fold: int, seed: int) -> list[str]:
    """Run contenders on one fold and seed, whose encoded samples they share; return those that failed."""
    assert _work is not None  # noqa: S101 - set when the process started
    folder, cohort, contenders = _work
    failed = []
    for name in names:
        started = time.perf_counter()
        try:
            run_once(folder, cohort, contenders[name], fold, seed)
            outcome = f"{time.perf_counter() - started:.0f} s"
        except Exception as error:
            failed.append(f"{name}, fold {fold}, seed {seed}: {type(error).__name__}: {error}")
            outcome = "failed"
        print(f"{name}: fold {fold}, seed {seed}, {outcome}", file=sys.stderr, flush=True)
    return failed


def run_parallel(folder: Path, cohort: Cohort, contenders: Sequence[Contender], *, workers: int) -> None:
    """Run what is missing in ``workers`` processes of one thread each, first seeds first.

    Every finished run is on disk at once and told on standard error: a stop loses the unfinished ones only.

    Raises
    ------
    BenchmarkError
        At the end, if a run failed; the others are done.
    """
    groups: dict[tuple[int, int], list[str]] = defaultdict(list)
    for contender, fold, seed in missing(folder, cohort, contenders):
        groups[fold, seed].append(contender.name)
    # Read by the libraries when a worker imports them.
    limits = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "POLARS_MAX_THREADS": "2"}
    before = {name: os.environ.get(name) for name in limits}
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="nightingale-benchmark-") as temporary:
        shared = Path(temporary) / "work"
        shared.write_bytes(pickle.dumps((folder, cohort, {one.name: one for one in contenders})))
        os.environ.update(limits)
        try:
            with ProcessPoolExecutor(
                workers, mp_context=get_context("spawn"), initializer=_start, initargs=(shared,)
            ) as pool:
                jobs = [pool.submit(_run, names, fold, seed) for (fold, seed), names in groups.items()]
                for job in as_completed(jobs):
                    failed += job.result()
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name)
                else:
                    os.environ[name] = value
    if failed:
        raise BenchmarkError(f"{len(failed)} runs failed, the first is {failed[0]}")
