"""Every model on a GPU beside the plain float32 loop of the released layout: rates, roofline, busy share, equality.

    python tests/benchmark/bench_gpu.py [--device cuda] [--json tests/benchmark/results/gpu-<name>.json]

Stays are synthetic (:mod:`bench_networks`), weights random. *Ours* is what scoring and training do: encoders in
bfloat16, channels last, compiled, run once an item for the items there are; the network in float32 (training:
bfloat16 autocast, fused AdamW, batches gathered ahead). *Peer* is the loop that the released codes have: float32,
batches of 16, an absent radiograph encoded as a picture of zeros, no reading ahead. Both count the time from
tensors in the host's memory to logits in it. PyTorch's defaults hold for both (convolutions may use TF32).

The roofline: multiply-adds of convolutions, linear layers, LSTMs and attention (two operations each), and the
fewest bytes that these layers move (input, weight and output once each, everything between them fused away),
against the rates that a large matrix product and a large copy reach in the same run. Training counts both thrice.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_networks import BATCH, dataset, tables, with_zero_images
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils.rnn import PackedSequence
from torch.profiler import ProfilerActivity, profile

from modelling.batches import Batch, Dataset, EncodingSettings, Modality
from modelling.batches.ahead import ahead
from modelling.models import RiskModel, build_model
from modelling.models.transformer import Attention
from modelling.registry.folder import ModelFolder
from modelling.scoring.model import ScoringModel, scoring_model
from modelling.training.calibrate import Calibration

PROJECT = Path(__file__).resolve().parents[2]
MODELS = ("medfuse", "mufuse", "medm2t", "nightingale")
LARGE = 256
"""Stays of a training step that fills the GPU; the papers' batches are of 16 and 32."""
ENCODERS = ("signal", "picture")


@dataclass
class Cost:
    """Operations and bytes of the encoders (bfloat16 in ours) and of the rest."""

    operations: dict[str, float] = field(default_factory=lambda: {"encoders": 0.0, "network": 0.0})
    bytes: dict[str, float] = field(default_factory=lambda: {"encoders": 0.0, "network": 0.0})

    def add(self, part: str, operations: float, numbers: float, size: int) -> None:
        """Add one layer's operations, and how many numbers of how many bytes it moves."""
        self.operations[part] += operations
        self.bytes[part] += numbers * size


def _layer(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> tuple[float, float] | None:
    """Return operations and numbers moved of one call of a layer; None for what is fused into its neighbours."""
    weights = float(sum(parameter.numel() for parameter in module.parameters(recurse=False)))
    first = inputs[0]
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        per_output = 2 * module.weight[0].numel()
        return per_output * output.numel(), first.numel() + output.numel() + weights
    if isinstance(module, nn.Linear):
        return 2.0 * first.numel() * module.out_features, first.numel() + output.numel() + weights
    if isinstance(module, nn.LSTM):
        steps = first.data if isinstance(first, PackedSequence) else first
        count = steps.numel() // steps.shape[-1]
        return 2.0 * weights * count, steps.numel() + weights + count * module.hidden_size * module.num_layers
    if isinstance(module, Attention):
        queries, keys = first, inputs[1]
        n, q, width = queries.shape
        return 4.0 * n * q * keys.shape[1] * width, 0.0
    return None


def counted(model: RiskModel, run: Callable[[], object], *, half: bool) -> Cost:
    """Run once and return what it costs; ``half``: encoders compute in two bytes, else all in four."""
    cost, handles = Cost(), []
    for name, module in model.named_modules():
        part = "encoders" if name.split(".")[0] in ENCODERS else "network"
        size = 2 if half and part == "encoders" else 4

        def note(module: nn.Module, inputs: Any, output: Any, part: str = part, size: int = size) -> None:
            if (found := _layer(module, inputs, output)) is not None:
                cost.add(part, *found, size)

        handles.append(module.register_forward_hook(note))
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return cost


def synchronise(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def seconds_of(run: Callable[[], object], device: str, *, repeat: int) -> list[float]:
    """Return the seconds of each of ``repeat`` runs, after one that warms up."""
    run()
    synchronise(device)
    found = []
    for _ in range(repeat):
        begun = time.perf_counter()
        run()
        synchronise(device)
        found.append(time.perf_counter() - begun)
    return found


def busy_seconds(run: Callable[[], object], device: str) -> float:
    """Return for how long kernels and copies ran on the GPU during one run."""
    if not device.startswith("cuda"):
        return float("nan")
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    total, until = 0.0, float("-inf")
    for start, end in spans:
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total / 1e6


def ceilings(device: str) -> dict[str, float]:
    """Return what the device reaches: bytes a second of a copy, operations a second of matrix products."""
    gpu = device.startswith("cuda")
    side, size = (8192, 2**30) if gpu else (512, 2**24)
    source = torch.empty(size, dtype=torch.uint8, device=device).random_(0, 255)
    target = torch.empty_like(source)
    found = {
        "copy_bytes": 2 * size / statistics.median(seconds_of(lambda: target.copy_(source), device, repeat=9))
    }
    host = torch.empty(size // 4, dtype=torch.uint8)
    host = host.pin_memory() if gpu else host
    found["host_to_device_bytes"] = (size // 4) / statistics.median(
        seconds_of(lambda: target[: size // 4].copy_(host, non_blocking=True), device, repeat=5)
    )
    for name, dtype, tf32 in (
        ("bfloat16", torch.bfloat16, False),
        ("tf32", torch.float32, True),
        ("float32", torch.float32, False),
    ):
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        torch.backends.cuda.matmul.allow_tf32 = tf32
        median = statistics.median(seconds_of(lambda a=a, b=b: a @ b, device, repeat=7))
        found[f"{name}_operations"] = 2 * side**3 / median
    torch.backends.cuda.matmul.allow_tf32 = False
    return found


def folder_of(name: str, data: Dataset, settings: dict[str, Any]) -> ModelFolder:
    """Return a model with random weights and BatchNorm statistics as after training."""
    torch.manual_seed(0)
    network = build_model(name, data.encoding, settings)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    config = {
        "encoding": data.encoding.to_dict(),
        "model": name,
        "model_settings": settings,
        "calibration": Calibration().to_dict(),
        "thresholds": [],
        "task": "benchmark",
        "horizon_hours": 48.0,
    }
    card = {"name": name, "version": "0"}
    return ModelFolder(
        path=Path(name), digest="0" * 64, config=config, card=card, weights=network.state_dict()
    )


@torch.inference_mode()
def engine(model: ScoringModel, data: Dataset, *, max_samples: int = 512) -> np.ndarray:
    """Return logits as scoring computes them: every item encoded once, then the network in large batches."""
    if model.encoders is not None:
        parts = {}
        if Modality.ECG in model.encoders.digests:
            parts["signals"] = model.encoders.encode(data.signals, Modality.ECG)
        if Modality.CXR in model.encoders.digests:
            parts["pictures"] = model.encoders.encode(data.pictures, Modality.CXR)
        data = replace(data, **parts)
    result = np.full(len(data), np.nan)
    for batch in data.batches(token_budget=model.token_budget, max_samples=max_samples):
        logits = model.network(batch.to(model.device, model.dtype))
        result[batch.sample.numpy()] = logits[:, 0].double().cpu().numpy()
    return result


@torch.inference_mode()
def released(network: RiskModel, data: Dataset, device: str) -> float:
    """Run the peer's loop: batches of 16 in float32, an absent radiograph as zeros."""
    total = 0.0
    for start in range(0, len(data), BATCH):
        batch = data.batch(np.arange(start, min(start + BATCH, len(data))))
        batch = with_zero_images(batch) if Modality.CXR in network.modalities else batch
        total += float(network(moved_plainly(batch, device))[:, 0].sum())
    return total


def moved_plainly(batch: Batch, device: str) -> Batch:
    """Move a batch as ``tensor.to(device)`` does, without pinned memory."""
    fields = {name: getattr(batch, name).to(device) for name in batch.__dataclass_fields__}
    return Batch(**fields)


def training(
    name: str, data: Dataset, settings: dict[str, Any], device: str, *, size: int, steps: int, ours: bool
) -> tuple[Callable[[], None], RiskModel]:
    """Return a function that makes ``steps`` optimiser steps of ``size`` stays, and the network."""
    torch.manual_seed(0)
    network = build_model(name, data.encoding, settings).to(device).train()
    gpu = device.startswith("cuda")
    if ours and gpu:
        network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=ours and gpu)
    rng = np.random.default_rng(0)
    order = [rng.permutation(len(data))[:size] for _ in range(steps)]
    images = Modality.CXR in network.modalities

    def ready() -> Iterator[Batch]:
        for rows in order:
            batch = data.batch(rows)
            yield batch.to(device) if ours else batch

    def run() -> None:
        for given in ahead(ready(), depth=2) if ours else ready():
            batch = given
            if not ours:
                batch = moved_plainly(with_zero_images(given) if images else given, device)
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast("cuda", torch.bfloat16, enabled=ours and gpu):
                logits = network(batch)
            loss = binary_cross_entropy_with_logits(logits[:, 0].float(), batch.label)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            if not ours:
                float(loss.detach())

    return run, network


def floor_seconds(
    cost: Cost, reached: dict[str, float], *, half: str, full: str, times: float = 1.0
) -> float:
    """Return the least time: the larger of arithmetic and movement, of the encoders and of the network."""
    total = 0.0
    for part, rate in (("encoders", half), ("network", full)):
        arithmetic = cost.operations[part] / reached[f"{rate}_operations"]
        total += times * max(arithmetic, cost.bytes[part] / reached["copy_bytes"])
    return total


def _row(name: str, what: str, units: int, runs: list[float], busy: float, floor: float) -> dict[str, Any]:
    median = statistics.median(runs)
    return {
        "model": name,
        "what": what,
        "stays_per_second": units / median,
        "seconds": runs,
        "busy_share": busy / median,
        "roofline_share": floor / median,
    }


def measure(
    name: str, data: Dataset, settings: dict[str, Any], device: str, reached: dict[str, float], repeat: int
) -> Iterator[dict[str, Any]]:
    """Yield the rows of one model."""
    folder = folder_of(name, data, settings)
    model = scoring_model(folder, device=device)
    n = len(data)

    def ours() -> np.ndarray:
        return engine(model, data)

    runs = seconds_of(ours, device, repeat=repeat)
    shares = busy_seconds(ours, device)
    plain = build_model(name, data.encoding, settings).to(device).eval()
    plain.load_state_dict(folder.weights)
    plain_model = replace(model, network=plain, encoders=None, dtype=torch.float32)
    cost = counted(plain, lambda: engine(plain_model, data, max_samples=64), half=True)
    floor = floor_seconds(cost, reached, half="bfloat16", full="float32")
    first = _row(name, "inference, ours", n, runs, shares, floor)
    first["gigaoperations_per_stay"] = sum(cost.operations.values()) / n / 1e9
    first["megabytes_per_stay"] = sum(cost.bytes.values()) / n / 1e6
    yield first

    few = replace(data, all=data.all.take(torch.arange(min(n, 512))), token_counts=data.token_counts[:512])

    def peer() -> float:
        return released(plain, few, device)

    runs = seconds_of(peer, device, repeat=max(2, repeat // 2))
    cost = counted(plain, peer, half=False)
    floor = floor_seconds(cost, reached, half="tf32", full="float32")
    yield _row(name, "inference, peer", len(few), runs, busy_seconds(peer, device), floor)

    steps = 10 if device.startswith("cuda") else 1
    for what, size, own in (
        ("training, peer", BATCH, False),
        ("training, ours, batches of 16", BATCH, True),
        (f"training, ours, batches of {LARGE}", min(LARGE, n), True),
    ):
        run, network = training(name, data, settings, device, size=size, steps=steps, ours=own)
        runs = seconds_of(run, device, repeat=repeat)
        cost = counted(network, run, half=own)
        if own:
            cost.bytes["network"] /= 2
        floor = floor_seconds(
            cost,
            reached,
            half="bfloat16" if own else "tf32",
            full="bfloat16" if own else "float32",
            times=3.0,
        )
        yield _row(name, what, steps * size, runs, busy_seconds(run, device), floor)
        del run, network
        if device.startswith("cuda"):
            torch.cuda.empty_cache()


def agreement(name: str, data: Dataset, settings: dict[str, Any], device: str, stays: int) -> dict[str, Any]:
    """Return the largest differences of the probability: CPU and device, batches of 1 and of 512."""
    few = replace(data, all=data.all.take(torch.arange(stays)), token_counts=data.token_counts[:stays])
    folder = folder_of(name, data, settings)
    models = {where: scoring_model(folder, device=where) for where in ("cpu", device)}
    found = {
        where: {size: engine(model, few, max_samples=size) for size in (1, 512)}
        for where, model in models.items()
    }
    # Random weights hardly move the logit; stretched, the probabilities spread as a trained model's do.
    centre, spread = np.mean(found["cpu"][512]), np.std(found["cpu"][512]) / 2
    found = {
        where: {size: 1 / (1 + np.exp(-(logits - centre) / spread)) for size, logits in by_size.items()}
        for where, by_size in found.items()
    }
    cpu, gpu = found["cpu"], found[device]
    return {
        "model": name,
        "stays": stays,
        "probabilities_from": float(cpu[512].min()),
        "probabilities_to": float(cpu[512].max()),
        "cpu_and_device": float(np.abs(cpu[512] - gpu[512]).max()),
        "cpu_1_and_512": float(np.abs(cpu[512] - cpu[1]).max()),
        "device_1_and_512": float(np.abs(gpu[512] - gpu[1]).max()),
    }


def joined(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one result of several runs, of which a row is taken from the first that has it."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    agreed: dict[str, dict[str, Any]] = {}
    for result in results:
        for row in result["rows"]:
            rows.setdefault((row["model"], row["what"]), row)
        for found in result["agreement"]:
            agreed.setdefault(found["model"], found)
    return {"rows": list(rows.values()), "agreement": list(agreed.values())}


def table(result: dict[str, Any]) -> str:
    """Return the measurements as Markdown tables."""
    rows = result["rows"]
    peers = {
        (row["model"], row["what"].split(",")[0]): row["stays_per_second"]
        for row in rows
        if row["what"].endswith("peer")
    }
    lines = [
        "| model | what | stays/s | times the peer | of the roofline | GPU busy |",
        "| --- | --- | --: | --: | --: | --: |",
    ]
    for row in rows:
        peer = peers.get((row["model"], row["what"].split(",")[0]))
        times = f"{row['stays_per_second'] / peer:.1f}" if peer else "-"
        lines.append(
            f"| {row['model']} | {row['what']} | {row['stays_per_second']:,.0f} | {times} "
            f"| {100 * row['roofline_share']:.1f} % | {100 * row['busy_share']:.0f} % |"
        )
    lines += [
        "",
        "| model | probabilities | CPU and GPU differ by | GPU, batches of 1 and 512 | CPU, batches of 1 and 512 |",
        "| --- | --: | --: | --: | --: |",
    ]
    lines += [
        f"| {row['model']} | {row['probabilities_from']:.3f} to {row['probabilities_to']:.3f} "
        f"| {row['cpu_and_device']:.1e} | {row['device_1_and_512']:.1e} | {row['cpu_1_and_512']:.1e} |"
        for row in result["agreement"]
    ]
    return "\n".join(lines)


def machine(device: str) -> dict[str, Any]:
    """Return where and with what this was measured."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=PROJECT
    )
    return {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "numpy", "polars")},
        "cuda": torch.version.cuda,
        "commit": commit.stdout.strip() or None,
    }


SMALL: dict[str, dict[str, Any]] = {
    "medfuse": {"image_layers": (1, 1), "image_width": 4, "signal_channels": (4, 4, 4, 4, 4)},
    "mufuse": {},
    "medm2t": {"image_layers": (1, 1), "image_width": 4, "signal_channels": (4, 4, 4, 4, 4)},
    "nightingale": {"image_layers": (1, 1), "image_width": 4, "signal_channels": (4, 4, 4, 4, 4)},
}
"""For a rehearsal on a CPU."""


def main() -> int:
    """Measure, print tables, write JSON after every model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--stays", type=int, default=2048)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--agree", type=int, default=96, help="stays that both devices score")
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--small", action="store_true", help="small encoders: a rehearsal, not a measurement")
    parser.add_argument("--warm", action="store_true", help="only compile the encoders, into torch's cache")
    parser.add_argument("--commit", help="of a tree that has no .git")
    parser.add_argument("--table", type=Path, nargs="+", help="print what these files hold, measure nothing")
    parser.add_argument("--json", type=Path, default=PROJECT / "var" / "benchmarks" / "gpu.json")
    options = parser.parse_args()
    if options.table:
        print(table(joined([json.loads(path.read_text("utf-8")) for path in options.table])))
        return 0
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no GPU here; --device cpu --small rehearses")
    begun = time.monotonic()
    result: dict[str, Any] = {"machine": machine(options.device), "rows": [], "agreement": []}
    result["machine"]["commit"] = options.commit or result["machine"]["commit"]
    result["machine"]["stays"] = options.stays
    result["ceilings"] = {} if options.warm else ceilings(options.device)
    data = dataset(tables(options.stays, images=True), EncodingSettings(min_samples=1))

    if options.warm:
        for name in options.models:
            engine(scoring_model(folder_of(name, data, {}), device=options.device), data)
        return 0

    def save() -> None:
        result["seconds"] = round(time.monotonic() - begun, 1)
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

    for name in options.models:
        settings = SMALL[name] if options.small else {}
        for row in measure(name, data, settings, options.device, result["ceilings"], options.repeat):
            result["rows"].append(row)
            print(
                f"{time.monotonic() - begun:.0f} s: {name}, {row['what']}: {row['stays_per_second']:,.0f}/s",
                flush=True,
            )
            save()
        if options.agree:
            result["agreement"].append(agreement(name, data, settings, options.device, options.agree))
            save()
    print(json.dumps({"machine": result["machine"], "ceilings": result["ceilings"]}, indent=1))
    print(table(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
