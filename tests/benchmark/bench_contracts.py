"""Which library keeps the table contracts: dataframely, pandera and patito on the same events.

    python tests/benchmark/bench_contracts.py [--rows 5000000]

Each library states the same contract (types, nulls, a range, a rule over two columns) and judges a clean
table and one with planted faults, in a process of its own. pandera and patito are no dependencies of the
project; where one is missing, its line says so. To measure all three without touching the environment:
``uv run --no-project --with polars --with dataframely --with 'pandera[polars]' --with patito``.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

LIBRARIES = ("dataframely", "pandera", "patito")
TIME = pl.Datetime("us", "UTC")
PLANTED = {"no value": 3_000, "out of range": 2_000, "known before measured": 1_000}


def make(rows: int, *, faulty: bool) -> pl.DataFrame:
    """Return an events table; faulty rows break one rule each."""
    rng = np.random.default_rng(0)
    start = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1e6)
    moment = start + rng.integers(0, 14 * 86_400, rows) * 1_000_000
    value = rng.normal(80, 12, rows).clip(10, 300).astype(np.float32)
    known = moment + 600_000_000
    missing = np.zeros(rows, dtype=bool)
    if faulty:
        wrong = rng.choice(rows, sum(PLANTED.values()), replace=False)
        first, second, third = np.split(wrong, np.cumsum(list(PLANTED.values()))[:-1])
        missing[first], value[second], known[third] = True, 5000, moment[third] - 1_000_000
    frame = pl.DataFrame(
        {
            "subject_id": rng.integers(1, rows // 400 + 2, rows),
            "time": pl.Series(moment).cast(TIME),
            "available_time": pl.Series(known).cast(TIME),
            "numeric_value": value,
            "missing": missing,
        }
    )
    return frame.select(
        "subject_id",
        "time",
        "available_time",
        pl.lit("heart_rate").alias("code"),
        pl.when(~pl.col("missing")).then("numeric_value").alias("numeric_value"),
    )


def with_dataframely() -> Callable[[pl.DataFrame], dict[str, int]]:
    """Return a judge by :meth:`dataframely.Schema.filter`."""
    import dataframely as dy

    class Events(dy.Schema):
        subject_id = dy.Int64(nullable=False)
        time = dy.Datetime(nullable=False, time_unit="us", time_zone="UTC")
        available_time = dy.Datetime(nullable=False, time_unit="us", time_zone="UTC")
        code = dy.String(nullable=False, min_length=1)
        numeric_value = dy.Float32(nullable=False, min=0, max=350)

        @dy.rule()
        def known_after(cls) -> pl.Expr:
            return pl.col("available_time") >= pl.col("time")

    def judge(frame: pl.DataFrame) -> dict[str, int]:
        good, failures = Events.filter(frame)
        return {"accepted": good.height, **failures.counts()}

    return judge


def with_pandera() -> Callable[[pl.DataFrame], dict[str, int]]:
    """Return a judge by lazy validation; accepted rows must be found by the caller from the failure cases."""
    import pandera.polars as pa

    schema = pa.DataFrameSchema(
        {
            "subject_id": pa.Column(pl.Int64, nullable=False),
            "time": pa.Column(TIME, nullable=False),
            "available_time": pa.Column(TIME, nullable=False),
            "code": pa.Column(pl.String, pa.Check.str_length(min_value=1), nullable=False),
            "numeric_value": pa.Column(pl.Float32, pa.Check.in_range(0, 350), nullable=False),
        },
        checks=pa.Check(
            lambda data: data.lazyframe.select(pl.col("available_time") >= pl.col("time")), name="known_after"
        ),
    )

    def judge(frame: pl.DataFrame) -> dict[str, int]:
        try:
            schema.validate(frame, lazy=True)
        except pa.errors.SchemaErrors as error:
            cases = error.failure_cases
            counts = dict(cases.group_by("check").len().iter_rows())
            return {"accepted": frame.height - cases["index"].n_unique(), **counts}
        return {"accepted": frame.height}

    return judge


def with_patito() -> Callable[[pl.DataFrame], dict[str, int]]:
    """Return a judge by :meth:`patito.Model.validate`, which names failing columns but no rows."""
    import patito as pt

    class Events(pt.Model):
        subject_id: int
        time: datetime = pt.Field(dtype=TIME)
        available_time: datetime = pt.Field(
            dtype=TIME, constraints=pl.col("available_time") >= pl.col("time")
        )
        code: str = pt.Field(min_length=1)
        numeric_value: float = pt.Field(dtype=pl.Float32, ge=0, le=350)

    def judge(frame: pl.DataFrame) -> dict[str, int]:
        try:
            Events.validate(frame)
        except pt.exceptions.DataFrameValidationError as error:
            return {f"{item['loc'][0]}: {item['type']}": 0 for item in error.errors()}
        return {"accepted": frame.height}

    return judge


JUDGES = {"dataframely": with_dataframely, "pandera": with_pandera, "patito": with_patito}


def measure(library: str, rows: int) -> dict[str, Any]:
    """Return wall and processor seconds (best of three), peak memory and verdicts of one library."""
    judge = JUDGES[library]()
    result: dict[str, Any] = {}
    for name, faulty in (("clean", False), ("faulty", True)):
        frame = make(rows, faulty=faulty)
        seconds = []
        for _ in range(3):
            started, processor = time.perf_counter(), time.process_time()
            result[f"{name} verdict"] = judge(frame)
            seconds.append((time.perf_counter() - started, time.process_time() - processor))
        result[name], result[f"{name} processor"] = map(min, zip(*seconds, strict=True))
    result["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return result


def main() -> None:
    """Measure every library that is installed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--library", choices=LIBRARIES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.library:
        print(json.dumps(measure(options.library, options.rows)))
        return
    print(f"{options.rows:,} events; planted: {PLANTED}")
    for library in LIBRARIES:
        command = [sys.executable, __file__, "--rows", str(options.rows), "--library", library]
        child = subprocess.run(command, capture_output=True, text=True, check=False)
        if child.returncode:
            print(f"{library:12} {child.stderr.strip().splitlines()[-1]}")
            continue
        found = json.loads(child.stdout)
        print(
            f"{library:12} clean {found['clean']:5.2f} s (processor {found['clean processor']:5.2f} s)  "
            f"faulty {found['faulty']:6.2f} s (processor {found['faulty processor']:6.2f} s)  "
            f"peak {found['peak']:4.2f} GiB  {found['faulty verdict']}"
        )


if __name__ == "__main__":
    main()
