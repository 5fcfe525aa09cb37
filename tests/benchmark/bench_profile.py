"""Where the time goes: torch's profiler on MedFuse, Python's on the night's scoring with explanations.

Run as ``python tests/benchmark/bench_profile.py``; both run on one thread, so that times are processor times.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import time
from pathlib import Path

os.environ.setdefault("POLARS_MAX_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import bench_networks
import torch
from torch.profiler import ProfilerActivity, profile

from modelling.catalogue import load_catalogue
from modelling.scoring import load_model, score_samples
from modelling.shipped_weights.cards import HERE

STAYS = 64


def medfuse() -> None:
    """Print the operators that MedFuse inference spends its time in."""
    run = bench_networks.medfuse_engine(Path())
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        run()
    print(f"MedFuse, {bench_networks.STAYS} stays, encoders in float32 and fusion in float64:\n")
    print(
        profiler.key_averages().table(
            sort_by="self_cpu_time_total", row_limit=8, max_name_column_width=40, header="by operator"
        )
    )


def scoring() -> None:
    """Print the functions that scoring with the shipped ensemble spends its time in."""
    model = load_model(HERE / "physionet2012-mortality", catalogue_digest=load_catalogue().digest)
    tables = bench_networks.tables(STAYS)
    arguments = {**tables, "run_folder": Path(), "site": "bench"}
    score_samples(model, **{**arguments, "samples": tables["samples"].head(2)})
    for explain in (False, True):
        begun = time.process_time()
        profiler = cProfile.Profile(timer=time.process_time)
        profiler.enable()
        score_samples(model, **arguments, explain=explain)
        profiler.disable()
        spent = 1000 * (time.process_time() - begun) / STAYS
        print(
            f"\nensemble, {STAYS} stays, explanations {'on' if explain else 'off'}: {spent:.1f} ms a stay\n"
        )
        pstats.Stats(profiler).sort_stats("tottime").print_stats(12)


if __name__ == "__main__":
    torch.set_num_threads(1)
    medfuse()
    scoring()
