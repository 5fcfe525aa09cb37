"""``make bench``: every claim of speed beside a named peer, in the same run on the same machine.

Each way runs in a process of its own, whose imports and preparation are done before the clock starts; the two
ways of a row take turns, five times each. The table gives the median rate, the ratio of the medians, the
processor seconds of one repetition and the peak resident memory of each process. ``--json`` writes all of it with
machine, versions and commit.

Nights are measured by :mod:`bench_night`: their peer is the smaller night. They run once at each size, with
every stage's processor time and memory beside them, since a hundred hospitals five times are no benchmark but
a day's work.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PACKAGES = ("torch", "polars", "pandas", "fhir.resources", "great-expectations", "lightgbm", "numpy", "scipy")


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes
    ----------
    name, unit
        What is done, and to what; rates are ``unit`` a second.
    ours, peer
        ``module:function`` of this folder; called with a work folder it prepares, and returns a function
        without arguments that does the work once and returns the number of units.
    against
        What the peer is.
    needs
        A file below NIGHTINGALE_DATA without which the row is left out.
    program
        A program without which the row is left out.
    """

    name: str
    unit: str
    ours: str
    peer: str
    against: str
    needs: str | None = None
    program: str | None = None

    def lacks(self, data: Path) -> str | None:
        """Say what the row needs and this machine lacks, if anything."""
        if self.needs and not (data / self.needs).is_file():
            return f"{self.needs} is not below NIGHTINGALE_DATA"
        if self.program and not shutil.which(self.program):
            return f"{self.program} is not on this machine"
        return None


ROWS = (
    Row(
        "FHIR to events",
        "Observations",
        "bench_tables:fhir_ours",
        "bench_tables:fhir_one_by_one",
        "fhir.resources, one resource after another",
    ),
    Row(
        "MIMIC to events",
        "rows",
        "bench_tables:mimic_ours",
        "bench_tables:mimic_pandas",
        "pandas, vectorised",
        needs="mimic-iv-demo/compact/chartevents_numeric.parquet",
    ),
    Row(
        "MIMIC to events",
        "rows",
        "bench_tables:mimic_ours",
        "bench_tables:mimic_gzip",
        "gzip -dc to nowhere",
        needs="mimic-iv-demo/compact/chartevents_numeric.parquet",
    ),
    Row(
        "validation",
        "events",
        "bench_tables:validation_ours",
        "bench_tables:validation_rows",
        "Great Expectations on rows (pandas)",
    ),
    Row(
        "events to batches",
        "stays",
        "bench_networks:ragged_batches",
        "bench_networks:padded_batches",
        "padded windows x features tensors (MuFuse's released layout)",
    ),
    Row(
        "MuFuse forward and backward",
        "stays",
        "bench_networks:mufuse_observed",
        "bench_networks:mufuse_padded",
        "all windows x features as tokens, the empty ones masked",
    ),
    Row(
        "MuFuse training with dropout",
        "stays",
        "bench_networks:mufuse_dropout",
        "bench_networks:mufuse_dropout_pytorch",
        "the same network with PyTorch's attention with dropout",
    ),
    Row(
        "MedFuse inference",
        "stays",
        "bench_networks:medfuse_engine",
        "bench_networks:medfuse_released",
        "released layout: fp32, batches of 16, an absent image encoded as zeros",
    ),
    Row(
        "MedFuse training step",
        "stays",
        "bench_networks:medfuse_step",
        "bench_networks:medfuse_step_released",
        "released layout: fp32, batches of 16, an absent image encoded as zeros",
    ),
    Row(
        "write-back to HAPI",
        "scores",
        "bench_write_back:batches",
        "bench_write_back:one_by_one",
        "one PUT each, through the same ledger, checks and reconciliation",
        program="java",
    ),
)


@dataclass
class Way:
    """A process that repeats one way whenever it is asked."""

    name: str
    work: Path
    runs: list[dict[str, float]] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the process and wait until its preparation is done."""
        self.work.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "bench.py"), "--child", self.name, str(self.work)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
        )
        self._answer()

    def _answer(self) -> dict[str, float]:
        assert self.process is not None and self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with status {self.process.wait()}")
        return json.loads(line)

    def run(self) -> None:
        """Do the work once."""
        assert self.process is not None and self.process.stdin is not None
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        self.runs.append(self._answer())

    def stop(self) -> None:
        """End the process."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
            self.process.wait(timeout=120)

    def median(self, key: str) -> float:
        """Return the median of a figure over the repetitions."""
        return statistics.median(run[key] for run in self.runs)


def peak_megabytes() -> float:
    """Return this process's own peak resident memory."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def child(name: str, work: Path) -> None:
    """Prepare, then do the work once for each line on the standard input."""
    module, function = name.split(":")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints does not mix with the answers
    run = getattr(__import__(module), function)(work)
    print(json.dumps({"ready": 1}), file=answers, flush=True)
    for _ in sys.stdin:
        wall, processor = time.perf_counter(), os.times()
        units = run()
        seconds, after = time.perf_counter() - wall, os.times()
        used = sum(after[:4]) - sum(processor[:4])
        figures = {"seconds": seconds, "processor": used, "rate": units / seconds, "units": units}
        print(json.dumps(figures | {"megabytes": peak_megabytes()}), file=answers, flush=True)


def compare(row: Row, work: Path, repeat: int) -> dict[str, Any]:
    """Let the two ways of a row take turns; return what the table shows."""
    ways = [Way(row.ours, work / "ours"), Way(row.peer, work / "peer")]
    try:
        for way in ways:
            way.start()
        for _ in range(repeat):
            for way in ways:
                way.run()
    finally:
        for way in ways:
            way.stop()
    ours, peer = ways
    per_unit = [way.median("processor") / way.median("units") for way in ways]
    return {
        **asdict(row),
        "ours_per_second": ours.median("rate"),
        "peer_per_second": peer.median("rate"),
        "times_faster": ours.median("rate") / peer.median("rate"),
        "times_less_processor": per_unit[1] / per_unit[0] if per_unit[0] else None,
        "ours_megabytes": max(run["megabytes"] for run in ours.runs),
        "peer_megabytes": max(run["megabytes"] for run in peer.runs),
        "load_average": os.getloadavg()[0],
        "runs": {"ours": ours.runs, "peer": peer.runs},
    }


def machine() -> dict[str, Any]:
    """Return where and with what this was measured."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=PROJECT
    )
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no"],
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT,
    )
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "load_at_start": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "commit": commit.stdout.strip(),
        "changed_files": len(changed.stdout.splitlines()),
    }


def rate(number: float) -> str:
    """Return three digits of a small rate, all of a large one."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def table(rows: list[dict[str, Any]]) -> str:
    """Return the comparisons as a Markdown table."""
    lines = [
        "| what | ours | peer | times faster | by processor time | peak MB | peer |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        less = row["times_less_processor"]
        lines.append(
            f"| {row['name']} | {rate(row['ours_per_second'])} {row['unit']}/s | {rate(row['peer_per_second'])}/s "
            f"| {row['times_faster']:.2f} | {f'{less:.2f}' if less else '-'} "
            f"| {row['ours_megabytes']:,.0f} / {row['peer_megabytes']:,.0f} | {row['against']} |"
        )
    return "\n".join(lines)


def show(result: dict[str, Any]) -> None:
    """Print what was measured."""
    facts = result["machine"]
    loads = [
        facts["load_at_start"],
        *(row["load_average"] for row in result["rows"] if "load_average" in row),
    ]
    print(
        f"\n{facts['processor']}, {facts['cores']} cores, load average {min(loads):.0f} to "
        f"{max(loads):.0f}, commit {facts['commit'][:12]}, {result['seconds']:.0f} s in all\n"
    )
    print(table(result["rows"]))
    if "nights" in result:
        import bench_night

        print("\n" + bench_night.table(result["nights"]))
    for name, why in result["left_out"].items():
        print(f"left out: {name}: {why}")


def main() -> int:
    """Measure, print one table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="Parts of the names of rows; 'night' too.")
    parser.add_argument("--nights", type=int, nargs="+", default=[1, 10, 100], help="Demo hospitals a night.")
    parser.add_argument("--json", type=Path, default=PROJECT / "var" / "benchmarks" / "bench.json")
    parser.add_argument("--table", type=Path, help="Measure nothing; print the tables of an earlier result.")
    options = parser.parse_args()
    if options.table:
        show(json.loads(options.table.read_text("utf-8")))
        return 0
    if options.child:
        child(options.child[0], Path(options.child[1]))
        return 0
    begun = time.monotonic()
    result: dict[str, Any] = {"machine": machine(), "rows": [], "left_out": {}}
    data = Path(os.environ.get("NIGHTINGALE_DATA", PROJECT.parent / "shared" / "data"))

    def wanted(name: str) -> bool:
        return not options.only or any(part in name for part in options.only)

    def save() -> None:
        result["seconds"] = round(time.monotonic() - begun, 1)
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")

    with tempfile.TemporaryDirectory(prefix="nightingale-bench-") as folder:
        for number, row in enumerate(ROWS):
            if not wanted(row.name):
                continue
            if lacking := row.lacks(data):
                result["left_out"][row.name] = lacking
                continue
            result["rows"].append(compare(row, Path(folder) / str(number), options.repeat))
            found = result["rows"][-1]
            print(f"{row.name}: {found['times_faster']:.2f} times {row.against}", file=sys.stderr, flush=True)
            save()
        if wanted("night"):
            import bench_night

            result["nights"] = []
            for size in options.nights:
                result["nights"] += bench_night.measure(Path(folder) / "nights", [size])
                save()
            result["rows"] += bench_night.rows(result["nights"])
            save()
    save()
    show(result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
