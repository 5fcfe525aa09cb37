"""``make bench-map``: speed and peak memory of mapping chartevents, beside three yardsticks, in one run.

Files of 1, 10 and 100 times the open demo's chart events (NIGHTINGALE_DATA) are written in the official
layout.
Each way runs in a process of its own; its clock starts after its imports, and its peak memory is that
process's own (for gzip, that of the Python which starts it). Beside the wall clock stands the processor time,
which another program's load does not change.

* ours: ``map_tables``, from CSV.gz to checked and judged Parquet events;
* pandas: the same mapping with vectorised pandas;
* row by row: the steps of the benchmark scripts of Harutyunyan et al. (``row_by_row.py``), which give their 17
  variables only;
* ``gzip -dc`` of the same file to nowhere.

Run as ``python tests/benchmark/bench_map.py [--sizes 1 10 100] [--repeat 1]``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

PROJECT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("NIGHTINGALE_DATA", PROJECT.parent / "shared" / "data"))
ROW_BY_ROW_UP_TO = 1
"""Largest size for the slow loop; its rows/s does not depend on the size."""
PANDAS_UP_TO = 10
"""Largest size for pandas, which holds the table in memory."""


def write_chartevents(target: Path, times: int) -> int:
    """Write the demo's chart events ``times`` over, with other subjects each time; return the rows."""
    source = pl.read_parquet(DATA / "mimic-iv-demo" / "compact" / "chartevents_numeric.parquet").sort(
        "subject_id", "charttime"
    )
    number = pl.col("valuenum").cast(pl.Float64).round(2)
    clock = "%Y-%m-%d %H:%M:%S"
    with target.open("wb") as file:
        process = subprocess.Popen(["gzip", "-6", "-c"], stdin=subprocess.PIPE, stdout=file)
        assert process.stdin is not None
        for copy in range(times):
            frame = source.select(
                pl.col("subject_id").cast(pl.Int64) + copy * 100_000,
                "hadm_id",
                "stay_id",
                pl.lit(40_000).alias("caregiver_id"),
                (pl.col("charttime") + pl.duration(minutes=copy)).dt.strftime(clock).alias("charttime"),
                (pl.col("charttime") + pl.duration(minutes=copy + 7)).dt.strftime(clock).alias("storetime"),
                "itemid",
                pl.coalesce(number.cast(pl.String), pl.lit("Charted as text")).alias("value"),
                number.alias("valuenum"),
                "valueuom",
                pl.lit(0).alias("warning"),
            )
            process.stdin.write(frame.write_csv(include_header=copy == 0).encode())
        process.stdin.close()
        if process.wait():
            raise RuntimeError("gzip failed")
    return source.height * times


def ours(path: Path, out: Path) -> int:
    """Map with the house's mapper; return the number of events kept."""
    from modelling.catalogue import load_catalogue
    from modelling.mapping.folder import TableFolder, no_progress
    from modelling.mimic.reader import map_tables, plan_shards
    from modelling.mimic.staging import ROWS_IN_MEMORY

    catalogue = load_catalogue()
    folder = TableFolder(out, catalogue=catalogue, source={"bench": path.name}, n_shards=plan_shards(path))
    map_tables(
        folder,
        folder.missing(),
        {"icu/chartevents": path},
        catalogue,
        rows_in_memory=ROWS_IN_MEMORY,
        progress=no_progress,
    )
    return int(folder.finish()["counts"]["events_kept"])


def with_pandas(path: Path, out: Path) -> int:
    """Do the numeric part of the mapping with vectorised pandas; return the number of events kept."""
    import pandas as pd

    from modelling.catalogue import load_catalogue

    catalogue = load_catalogue()
    codes = catalogue.codes_of("chart").to_pandas()
    codes["itemid"] = codes["code"].astype("int32")
    units = catalogue.conversions.filter(pl.col("unit_system").is_null()).to_pandas()
    columns = ["subject_id", "stay_id", "charttime", "storetime", "itemid", "value", "valuenum", "valueuom"]
    frame = pd.read_csv(path, usecols=columns, dtype={"itemid": "int32", "value": str, "valueuom": str})
    frame = frame[frame["itemid"].isin(codes["itemid"]) & frame["valuenum"].notna()]
    frame = frame.merge(codes[["itemid", "feature", "factor", "offset"]], on="itemid", how="left")
    frame["unit_code"] = frame["valueuom"].str.lower().str.replace(r"\s+", "", regex=True)
    frame = frame.merge(
        units[["feature", "unit_code", "factor", "offset"]],
        on=["feature", "unit_code"],
        how="left",
        suffixes=("_stated", ""),
    )
    factor = frame["factor"].fillna(frame["factor_stated"]).fillna(1.0)
    offset = frame["offset"].fillna(frame["offset_stated"]).fillna(0.0)
    frame["numeric_value"] = (frame["valuenum"] * factor + offset).astype("float32")
    for name in ("charttime", "storetime"):
        local = pd.to_datetime(frame[name], format="%Y-%m-%d %H:%M:%S")
        frame[name] = local.dt.tz_localize(
            "America/New_York", ambiguous="NaT", nonexistent="NaT"
        ).dt.tz_convert("UTC")
    frame = frame.drop_duplicates(["subject_id", "feature", "charttime", "numeric_value"])
    limits = catalogue.limits().to_pandas()
    frame = frame.merge(limits, left_on="feature", right_on="code", how="left")
    frame = frame[frame["numeric_value"].between(frame["low"], frame["high"])]
    frame = frame.sort_values(["subject_id", "charttime", "feature"])
    out.mkdir(parents=True, exist_ok=True)
    kept = ["subject_id", "charttime", "feature", "numeric_value", "storetime", "stay_id"]
    frame[kept].to_parquet(out / "events.parquet")
    return len(frame)


def row_by_row(path: Path, out: Path) -> int:
    """Map one row at a time, as the benchmark's scripts do; return the number of values in its series."""
    from row_by_row import map_row_by_row

    from modelling.catalogue import load_catalogue

    catalogue = load_catalogue()
    variables = (
        catalogue.codes_of("chart")
        .join(catalogue.features.select("feature", variable="benchmark").drop_nulls(), on="feature")
        .select(pl.col("code").cast(pl.Int64).alias("itemid"), "variable", pl.col("expected").alias("label"))
        .to_pandas()
        .set_index("itemid")
    )
    return map_row_by_row(path, DATA / "mimic-iv-demo" / "icu" / "icustays.csv.gz", variables, out)


def decompress(path: Path, out: Path) -> int:
    """Run ``gzip -dc`` to nowhere."""
    del out
    with Path(os.devnull).open("wb") as nowhere:
        subprocess.run(["gzip", "-dc", str(path)], stdout=nowhere, check=True)
    return 0


MODULES = {
    "gzip -dc": (),
    "ours": ("modelling.mimic.reader",),
    "pandas": ("pandas", "modelling.catalogue"),
    "row by row": ("row_by_row", "modelling.catalogue"),
}
"""What each way imports before its clock starts."""
WAYS = {"gzip -dc": decompress, "ours": ours, "pandas": with_pandas, "row by row": row_by_row}


def measure(way: str, path: Path, work: Path) -> dict[str, float]:
    """Run one way in a process of its own; return seconds, processor seconds, peak memory (MB), events."""
    out = work / way.replace(" ", "_")
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, str(Path(__file__).resolve()), "--child", way, str(path), str(out)]
    environment = {**os.environ, "POLARS_MAX_THREADS": os.environ.get("POLARS_MAX_THREADS", "2")}
    answer = subprocess.run(command, stdout=subprocess.PIPE, env=environment, cwd=PROJECT, check=True).stdout
    shutil.rmtree(out, ignore_errors=True)
    return json.loads(answer)


def peak_megabytes() -> float:
    """Return this process's own peak; the figure that a parent gets counts what it forked from, too."""
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def processor_seconds() -> float:
    """Return the processor time of this process and its children, all threads together."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def child(way: str, path: str, out: str) -> None:
    """Run one way once, imports done, and print its time, peak memory and result."""
    for module in MODULES[way]:
        importlib.import_module(module)
    begun, used = time.perf_counter(), processor_seconds()
    events = WAYS[way](Path(path), Path(out))
    seconds, used = time.perf_counter() - begun, processor_seconds() - used
    print(
        json.dumps({"seconds": seconds, "processor": used, "events": events, "megabytes": peak_megabytes()})
    )


def report(sizes: list[int], repeat: int) -> pl.DataFrame:
    """Measure every way at every size; return the table."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for size in sizes:
            path = work / f"chartevents-{size}.csv.gz"
            n = write_chartevents(path, size)
            ways = [
                way
                for way in WAYS
                if size <= {"row by row": ROW_BY_ROW_UP_TO, "pandas": PANDAS_UP_TO}.get(way, size)
            ]
            # Ways take turns, so that a busy moment of the machine does not fall on one of them alone.
            turns = [{way: measure(way, path, work) for way in ways} for _ in range(repeat)]
            for way in ways:
                best = min((turn[way] for turn in turns), key=lambda run: run["seconds"])
                speed = n / best["seconds"]
                rows.append(
                    (
                        size,
                        n,
                        way,
                        best["seconds"],
                        best["processor"],
                        speed,
                        best["megabytes"],
                        best["events"],
                    )
                )
                print(f"{size:>4} x  {way:<11} {best['seconds']:8.2f} s", file=sys.stderr)
            path.unlink()
    names = ["times", "rows", "way", "seconds", "processor", "rows_per_second", "megabytes", "events"]
    return pl.DataFrame(rows, schema=names, orient="row")


def main() -> None:
    """Print the table and what it says about the issue's four bounds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--child", nargs=3)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    table = report(arguments.sizes, arguments.repeat)
    with pl.Config(tbl_rows=-1, tbl_cols=-1, float_precision=1, tbl_width_chars=120):
        print(table)
    speed = {(row["times"], row["way"]): row["rows_per_second"] for row in table.iter_rows(named=True)}
    memory = {
        row["times"]: row["megabytes"] for row in table.filter(pl.col("way") == "ours").iter_rows(named=True)
    }
    for size in arguments.sizes:
        for way, bound in (("pandas", 5.0), ("row by row", 100.0), ("gzip -dc", 1.0)):
            # The slow ways are measured on small files; their rows a second do not rise with the size.
            measured = max(times for times, name in speed if name == way and times <= size)
            ratio = speed[size, "ours"] / speed[measured, way]
            beside = "" if measured == size else f" at {measured} x"
            print(f"{size} x: {ratio:.2f} times as fast as {way}{beside} (bound {bound:g})")
    if {10, 100} <= set(memory):
        print(f"peak memory from 10 to 100 times: {memory[10]:.0f} to {memory[100]:.0f} MB")


if __name__ == "__main__":
    main()
