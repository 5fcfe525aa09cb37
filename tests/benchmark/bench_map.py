"""``make bench-map``: speed and peak memory of mapping chartevents, beside three yardsticks, in one run.

Files of 1, 10 and 100 times the open demo's chart events (NIGHTINGALE_DATA) are written in the official
layout.
Each way runs in a process of its own; its clock starts after its imports, and its peak memory is that
process's own (for gzip, that of the Python which starts it).

* ours: ``map_tables``, from CSV.gz to checked and judged Parquet events;
* pandas: the same mapping with vectorised pandas;
* row by row: a loop over ``csv`` rows, as the benchmark scripts of Harutyunyan et al. do;
* ``gzip -dc`` of the same file to nowhere.

Run as ``python tests/benchmark/bench_map.py [--sizes 1 10 100] [--repeat 1]``.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import importlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

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
    """Do the numeric part of the mapping one row at a time; return the number of events kept."""
    from modelling.catalogue import load_catalogue

    catalogue = load_catalogue()
    codes = {row["code"]: row for row in catalogue.codes_of("chart").iter_rows(named=True)}
    units = {
        (row["feature"], row["unit_code"]): (row["factor"], row["offset"])
        for row in catalogue.conversions.filter(pl.col("unit_system").is_null()).iter_rows(named=True)
    }
    limits = {row["code"]: (row["low"], row["high"]) for row in catalogue.limits().iter_rows(named=True)}
    zone, utc = ZoneInfo("America/New_York"), ZoneInfo("UTC")
    seen: set[tuple[str, str, str, float]] = set()
    out.mkdir(parents=True, exist_ok=True)
    kept = 0
    with gzip.open(path, "rt", newline="") as file:
        for row in csv.DictReader(file):
            code = codes.get(row["itemid"])
            if code is None or not row["valuenum"]:
                continue
            feature = code["feature"]
            unit = "".join(row["valueuom"].lower().split())
            stated = (code["factor"] or 1.0, code["offset"] or 0.0)
            factor, offset = units.get((feature, unit), stated)
            value = float(row["valuenum"]) * factor + offset
            key = (row["subject_id"], feature, row["charttime"], value)
            low, high = limits[feature]
            if key in seen or not low <= value <= high:
                continue
            seen.add(key)
            times = [
                datetime.strptime(row[name], "%Y-%m-%d %H:%M:%S")
                .replace(tzinfo=zone)
                .astimezone(utc)
                .isoformat()
                for name in ("charttime", "storetime")
            ]
            with (out / f"{row['subject_id']}.csv").open("a", newline="") as target:
                csv.writer(target).writerow([times[0], feature, value, times[1], row["stay_id"]])
            kept += 1
    return kept


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
    "row by row": ("modelling.catalogue",),
}
"""What each way imports before its clock starts."""
WAYS = {"gzip -dc": decompress, "ours": ours, "pandas": with_pandas, "row by row": row_by_row}


def measure(way: str, path: Path, work: Path) -> dict[str, float]:
    """Run one way in a process of its own; return seconds, peak memory (MB) and events."""
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


def child(way: str, path: str, out: str) -> None:
    """Run one way once, imports done, and print its time, peak memory and result."""
    for module in MODULES[way]:
        importlib.import_module(module)
    begun = time.perf_counter()
    events = WAYS[way](Path(path), Path(out))
    seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "events": events, "megabytes": peak_megabytes()}))


def report(sizes: list[int], repeat: int) -> pl.DataFrame:
    """Measure every way at every size; return the table."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for size in sizes:
            path = work / f"chartevents-{size}.csv.gz"
            n = write_chartevents(path, size)
            for way in WAYS:
                if (way == "row by row" and size > ROW_BY_ROW_UP_TO) or (
                    way == "pandas" and size > PANDAS_UP_TO
                ):
                    continue
                best = min((measure(way, path, work) for _ in range(repeat)), key=lambda run: run["seconds"])
                rows.append(
                    (
                        size,
                        n,
                        way,
                        best["seconds"],
                        n / best["seconds"],
                        best["megabytes"],
                        int(best["events"]),
                    )
                )
                print(f"{size:>4} x  {way:<11} {best['seconds']:8.2f} s", file=sys.stderr)
            path.unlink()
    names = ["times", "rows", "way", "seconds", "rows_per_second", "megabytes", "events"]
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
            if (size, way) in speed:
                ratio = speed[size, "ours"] / speed[size, way]
                print(f"{size} x: {ratio:.2f} times as fast as {way} (bound {bound:g})")
    if {10, 100} <= set(memory):
        print(f"peak memory from 10 to 100 times: {memory[10]:.0f} to {memory[100]:.0f} MB")


if __name__ == "__main__":
    main()
