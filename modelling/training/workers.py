"""Data parallel training: each process takes its share of every batch, gradients are summed.

Sums of gradients, not averages of averages: the result does not depend on how a batch is cut, so that
any number of processes walks the same loss curve.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Workers:
    """This process among all that train together."""

    rank: int = 0
    count: int = 1

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up the gradients of all processes; a parameter that one did not use counts as zero there."""
        if self.count == 1:
            return
        for parameter in parameters:
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes."""
        if self.count > 1:
            value = value.cuda() if dist.get_backend() == "nccl" else value
            dist.all_reduce(value)
        return value

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            dist.barrier()


def join_workers(device: str) -> Workers:
    """Join the processes that ``torchrun`` started; without it, this process is alone.

    ``torchrun`` tells each process its place in ``RANK``, ``LOCAL_RANK`` and ``WORLD_SIZE``.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Workers()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return current_workers()


def current_workers() -> Workers:
    """Return this process among those of a group that was joined; alone without one."""
    if not dist.is_initialized():
        return Workers()
    return Workers(rank=dist.get_rank(), count=dist.get_world_size())


def leave_workers() -> None:
    """Leave the group that :func:`join_workers` joined."""
    if dist.is_initialized():
        dist.destroy_process_group()


def choose_device(name: str) -> str:
    """Return ``cuda:<local rank>`` or ``cpu`` for ``auto``, and any other name as it is."""
    if name != "auto":
        return name
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
