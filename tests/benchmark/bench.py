"""``make bench``: every claim of speed beside a named peer, in the same run on the same machine.

Each way runs in a process of its own, whose imports and preparation are done before the clock starts; the two
ways of a row take turns, five times each. The table gives the median rate, the ratio of the medians, the
processor seconds of one repetition and the peak resident memory of each process. ``--json`` writes all of it with
machine, versions and commit.

Rows of the night and of the write-back are measured by their own modules, since their peers are other sizes
and another server.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
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
    """

    name: str
    unit: str
    ours: str
    peer: str
    against: str
    needs: str | None = None


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
            self.process.wait(timeout=60)

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


def table(rows: list[dict[str, Any]]) -> str:
    """Return the comparisons as a Markdown table."""
    lines = [
        "| what | ours | peer | times faster | by processor time | peak MB | peer |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        less = row["times_less_processor"]
        lines.append(
            f"| {row['name']} | {row['ours_per_second']:,.0f} {row['unit']}/s | {row['peer_per_second']:,.0f}/s "
            f"| {row['times_faster']:.2f} | {f'{less:.2f}' if less else '-'} "
            f"| {row['ours_megabytes']:,.0f} / {row['peer_megabytes']:,.0f} | {row['against']} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure, print one table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="Parts of the names of rows; 'night' and 'write-back' too.")
    parser.add_argument("--nights", type=int, nargs="+", default=[1, 10, 100], help="Demo hospitals a night.")
    parser.add_argument("--json", type=Path, default=PROJECT / "var" / "benchmarks" / "bench.json")
    options = parser.parse_args()
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
            if row.needs and not (data / row.needs).is_file():
                result["left_out"][row.name] = f"{row.needs} is not below NIGHTINGALE_DATA"
                continue
            result["rows"].append(compare(row, Path(folder) / str(number), options.repeat))
            found = result["rows"][-1]
            print(f"{row.name}: {found['times_faster']:.2f} times {row.against}", file=sys.stderr, flush=True)
            save()
        if wanted("night"):
            import bench_night

            result["nights"] = bench_night.measure(Path(folder) / "nights", options.nights)
            save()
        if wanted("write-back"):
            found = subprocess.run(
                [sys.executable, str(HERE / "bench_write_back.py")],
                capture_output=True,
                text=True,
                check=False,
                cwd=PROJECT,
            )
            if found.returncode:
                result["left_out"]["write-back"] = found.stderr.strip().splitlines()[-1:] or "failed"
            else:
                result["write_back"] = found.stdout
    save()
    facts = result["machine"]
    print(
        f"\n{facts['processor']}, {facts['cores']} cores, load average at start {facts['load_at_start']:.1f}, "
    )
    print(f"commit {facts['commit'][:12]}, {result['seconds']:.0f} s in all\n")
    print(table(result["rows"]))
    if "nights" in result:
        import bench_night

        print("\n" + bench_night.table(result["nights"]))
    if "write_back" in result:
        print("\n" + result["write_back"])
    for name, why in result["left_out"].items():
        print(f"left out: {name}: {why}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
