"""Data parallel training with real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from modelling.training import train

UNIT = Path(__file__).resolve().parents[1] / "unit" / "modelling"
sys.path.insert(0, str(UNIT))

from synthetic_ward import catalogue, ward  # noqa: E402
from test_training import TINY  # noqa: E402


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights.safetensors")


@pytest.mark.slow
def test_two_processes_walk_the_same_loss_curve(tmp_path: Path) -> None:
    """`torchrun` with two CPU processes against one process."""
    stays = ward(tmp_path / "ward", n=60, seed=11, pixels=40, values=4)
    plain = replace(stays, recordings=stays.recordings.clear(), images=stays.images.clear())
    script = tmp_path / "worker.py"
    for name in ("samples", "encounters", "events", "recordings", "images"):
        getattr(plain, name).write_parquet(tmp_path / f"{name}.parquet")
    config = replace(TINY, pretrain_epochs=1, model={**TINY.model, "dropout": 0.0}, device="cpu")
    script.write_text(
        "import sys, json, polars as pl\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(UNIT)!r})\n"
        "from synthetic_ward import catalogue\n"
        "from modelling.training import train\n"
        "from modelling.training.workers import leave_workers\n"
        "here, out = Path(sys.argv[1]), Path(sys.argv[2])\n"
        "names = ('samples', 'encounters', 'events', 'recordings', 'images')\n"
        "tables = {name: pl.read_parquet(here / f'{name}.parquet') for name in names}\n"
        f"train(**tables, run_folder=here, catalogue=catalogue(), task='mortality', model='medfuse', seed=7,\n"
        f"      config=json.loads({json.dumps(json.dumps(config.to_dict()))}), out=out)\n"
        "leave_workers()\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*command, script, tmp_path, tmp_path / "two"],
        check=True,
        env=environment,
        capture_output=True,
        timeout=240,
    )
    tables = plain.tables()
    alone = train(
        **tables,
        catalogue=catalogue(),
        task="mortality",
        model="medfuse",
        config=config,
        out=tmp_path / "one",
        seed=7,
    )
    curves = [
        json.loads((folder / "metrics.json").read_text())["history"]
        for folder in (alone.folder, tmp_path / "two")
    ]
    assert len(curves[0]) == len(curves[1]) == 3
    for one, two in zip(*curves, strict=True):
        assert one["stage"] == two["stage"] and abs(one["loss"] - two["loss"]) < 1e-5
    for name, tensor in load_weights(alone.folder).items():
        assert torch.allclose(tensor, load_weights(tmp_path / "two")[name], atol=2e-5), name
