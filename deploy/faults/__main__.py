"""``python -m deploy.faults``: play every fault, print one table, exit with 1 if any case does not hold."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def main() -> None:
    """Parse options, play, show."""
    parser = argparse.ArgumentParser(prog="python -m deploy.faults", description=__doc__)
    parser.add_argument("--only", metavar="TEXT", help="cases whose group or name holds this text")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the results as JSON")
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases side by side")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # small batches: threads of torch and polars only collide
    from rich.console import Console

    from deploy.faults.cases import all_cases
    from deploy.faults.table import play_all, show, write

    console = Console(width=None if sys.stdout.isatty() else 180)
    cases = [
        case
        for case in all_cases()
        if not options.only or options.only.lower() in f"{case.group} {case.name}".lower()
    ]
    if options.list:
        for case in cases:
            console.print(f"{case.group:<9} {case.name}")
        return
    results = play_all(cases, console=console, jobs=max(1, options.jobs))
    show(results, console=console)
    if options.json:
        write(results, options.json)
    sys.exit(0 if results and all(item.passed for item in results) else 1)


if __name__ == "__main__":
    main()
