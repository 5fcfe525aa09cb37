"""A small recurrent or attention network over the time grid.

The main output may have soft labels, and further outcomes of the same stay (death later, length of stay) are
predicted by extra heads during training only: on 6,400 stays that helps more than any change of architecture
did (docs/evaluation.md). Masked pre-training (restoring hidden values, without labels) can come first; it is
off by default, because averaging more seeds gained as much for less time.

References
----------
Masks and time since the last observation as inputs: Che et al., Recurrent Neural Networks for Multivariate
Time Series with Missing Values (GRU-D), Scientific Reports 2018, doi 10.1038/s41598-018-24271-9; here the
decay is a fixed input channel, not a learnt gate on the hidden state. Masked pre-training of binned series:
Labach et al., DuETT, 2023, arXiv 2304.13017.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from modelling.baselines.grid import CHANNELS, Floats, GridPreparation
from modelling.errors import BaselineError
from validation.contracts import file_digest, write_json


@dataclass(frozen=True, kw_only=True)
class SequenceSettings:
    """Size and training of a :class:`SequenceNetwork`.

    Attributes
    ----------
    body
        ``gru`` or ``transformer``.
    hidden
        Width.
    drop_codes, drop_cells
        Share of codes hidden for a whole sample, and of single observed cells, during training.
    pretrain_epochs, pretrain_learning_rate
        Of masked pre-training; 0 epochs leaves it out.
    decay_hours
        Time constant of the decay channel.
    auxiliary_weight
        Weight of the auxiliary losses.
    learning_rate, weight_decay, batch_size, epochs
        AdamW with a one-cycle schedule; the number of epochs is fixed, so no validation rows are needed.
    """

    body: str = "gru"
    hidden: int = 64
    layers: int = 1
    heads: int = 4
    drop_codes: float = 0.2
    drop_cells: float = 0.0
    auxiliary_weight: float = 0.3
    learning_rate: float = 3e-3
    weight_decay: float = 3e-2
    batch_size: int = 128
    epochs: int = 12
    pretrain_epochs: int = 0
    pretrain_learning_rate: float = 1.5e-3
    decay_hours: float = 6.0


class SequenceNetwork(nn.Module):
    """Grid and static inputs to one main and some auxiliary outputs.

    Shapes: grid ``[batch, bins, 3 * codes]`` (:class:`GridPreparation`), static ``[batch, statics]``, result
    ``[batch, outputs]``.
    """

    def __init__(
        self, codes: int, statics: int, bins: int, outputs: int, settings: SequenceSettings, step: float
    ) -> None:
        super().__init__()
        width = settings.hidden
        self.settings = settings
        self.codes = codes
        self.decay_bins = settings.decay_hours / step
        self.project = nn.Linear(4 * codes, width)
        self.normalise = nn.LayerNorm(width)
        self.body: nn.Module
        self.position: nn.Parameter | None = None
        if settings.body == "gru":
            self.body = nn.GRU(width, width, num_layers=settings.layers, batch_first=True)
        elif settings.body == "transformer":
            self.position = nn.Parameter(torch.randn(bins, width) * 0.02)
            layer = nn.TransformerEncoderLayer(
                width, settings.heads, 2 * width, dropout=0.2, batch_first=True, norm_first=True
            )
            self.body = nn.TransformerEncoder(layer, settings.layers, enable_nested_tensor=False)
        else:
            raise BaselineError(f"body {settings.body!r} is neither gru nor transformer")
        self.static = nn.Linear(statics, 32)
        self.head = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(3 * width + 32, 64), nn.GELU(), nn.Dropout(0.3), nn.Linear(64, outputs)
        )

    def encode(self, value: Tensor, seen: Tensor, spread: Tensor) -> Tensor:
        """Return one vector a bin, ``[batch, bins, hidden]``; all inputs are ``[batch, bins, codes]``."""
        at = torch.arange(seen.shape[1], device=seen.device)[None, :, None]
        last = torch.where(seen > 0, at, -1).cummax(dim=1).values
        carried = torch.where(last >= 0, value.gather(1, last.clamp(min=0)), 0.0)
        decay = torch.where(last >= 0, torch.exp(-(at - last) / self.decay_bins), 0.0)
        steps = self.normalise(self.project(torch.cat([carried, seen, decay, spread * seen], dim=2)))
        if self.position is None:
            return self.body(functional.gelu(steps))[0]
        return self.body(steps + self.position)

    def forward(self, grid: Tensor, static: Tensor) -> Tensor:
        """Return outputs ``[batch, outputs]``; the first is the log-odds of the main outcome."""
        value, seen, spread = grid.split(self.codes, dim=2)
        if self.training:
            by_code = torch.rand(seen.shape[0], 1, seen.shape[2]) >= self.settings.drop_codes
            seen = seen * by_code * (torch.rand_like(seen) >= self.settings.drop_cells)
            value = value * seen
        steps = self.encode(value, seen, spread)
        static = torch.relu(self.static(functional.dropout(static, 0.2, self.training)))
        pooled = torch.cat([steps[:, -1], steps.mean(dim=1), steps.amax(dim=1), static], dim=1)
        return self.head(pooled)

    def restoration_loss(self, grid: Tensor, restore: nn.Linear) -> Tensor:
        """Hide observed cells, whole codes and whole bins, and return the loss of guessing them.

        Squared error on the hidden observed values, plus 0.3 times the logistic loss of guessing which
        hidden cells were observed at all.
        """
        value, seen, spread = grid.split(self.codes, dim=2)
        hidden = (
            (torch.rand_like(seen) < 0.15)
            | (torch.rand(len(seen), 1, self.codes) < 0.15)
            | (torch.rand(len(seen), seen.shape[1], 1) < 0.15)
        )
        shown = seen * ~hidden
        guess, present = restore(self.encode(value * shown, shown, spread)).split(self.codes, dim=2)
        wanted = seen * hidden
        error = ((guess - value) ** 2 * wanted).sum() / wanted.sum().clamp(min=1.0)
        presence = functional.binary_cross_entropy_with_logits(present, seen, reduction="none")
        return error + 0.3 * (presence * hidden).sum() / hidden.sum().clamp(min=1)


@dataclass(kw_only=True)
class Sequence:
    """One network a seed on a common preparation, averaged on the log-odds scale."""

    settings: SequenceSettings = field(default_factory=SequenceSettings)
    preparation: GridPreparation
    networks: list[SequenceNetwork] = field(default_factory=list, repr=False)
    shape: tuple[int, int, int, int] = (0, 0, 0, 0)

    def fit(
        self,
        grid: Floats,
        static: Floats,
        labels: NDArray[np.generic],
        auxiliary: NDArray[np.generic] | None = None,
        *,
        seeds: tuple[int, ...] = (0,),
    ) -> Self:
        """Train one network a seed.

        Parameters
        ----------
        grid, static
            Training rows of :meth:`GridPreparation.transform`.
        labels
            ``[rows]`` in [0, 1]; soft labels are allowed.
        auxiliary
            ``[rows, k]`` further targets; columns within [0, 1] get a logistic loss, others squared error on
            their standardised values. NaN is left out.
        """
        y = np.asarray(labels, dtype=np.float32)[:, None]
        extra = np.zeros((len(y), 0), np.float32) if auxiliary is None else np.asarray(auxiliary, np.float32)
        binary = np.array([np.nanmin(c) >= 0 and np.nanmax(c) <= 1 for c in extra.T], dtype=bool)
        numeric = ~binary
        if numeric.any():
            part = extra[:, numeric]
            extra = extra.copy()
            extra[:, numeric] = (part - np.nanmean(part, axis=0)) / (np.nanstd(part, axis=0) + 1e-6)
        target = torch.from_numpy(np.concatenate([y, extra], axis=1))
        kind = torch.from_numpy(binary)
        codes = grid.shape[2] // CHANNELS
        self.shape = (codes, static.shape[1], grid.shape[1], target.shape[1])
        inputs = torch.from_numpy(grid), torch.from_numpy(static)
        self.networks = [self._train(*inputs, target, kind, seed) for seed in seeds]
        return self

    def _train(
        self, grid: Tensor, static: Tensor, target: Tensor, binary: Tensor, seed: int
    ) -> SequenceNetwork:
        s = self.settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            rng = np.random.default_rng(seed)
            network = SequenceNetwork(*self.shape, s, self.preparation.step).train()
            if s.pretrain_epochs:
                restore = nn.Linear(s.hidden, 2 * network.codes)
                self._descend(
                    [*network.parameters(), *restore.parameters()],
                    lambda rows: network.restoration_loss(grid[rows], restore),
                    len(grid), s.pretrain_epochs, s.pretrain_learning_rate, rng,
                )  # fmt: skip
            self._descend(
                list(network.parameters()),
                lambda rows: _loss(
                    network(grid[rows], static[rows]), target[rows], binary, s.auxiliary_weight
                ),
                len(grid), s.epochs, s.learning_rate, rng,
            )  # fmt: skip
        return network.eval()

    def _descend(
        self,
        parameters: list[nn.Parameter],
        loss_of: Callable[[Tensor], Tensor],
        rows: int,
        epochs: int,
        learning_rate: float,
        rng: np.random.Generator,
    ) -> None:
        s = self.settings
        steps = max(1, rows // s.batch_size)
        optimiser = torch.optim.AdamW(parameters, learning_rate, weight_decay=s.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=epochs * steps)
        for _ in range(epochs):
            order = torch.from_numpy(rng.permutation(rows))
            for step in range(steps):
                loss = loss_of(order[step * s.batch_size : (step + 1) * s.batch_size])
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, 1.0)
                optimiser.step()
                schedule.step()

    def decision(self, grid: Floats, static: Floats, *, batch_size: int = 512) -> NDArray[np.float64]:
        """Return the mean log-odds of the main outcome, ``[rows]``."""
        if not self.networks:
            raise BaselineError("the sequence model is not fitted")
        total = np.zeros(len(grid))
        with torch.inference_mode():
            for network in self.networks:
                parts = [
                    network(
                        torch.from_numpy(grid[start : start + batch_size]),
                        torch.from_numpy(static[start : start + batch_size]),
                    )[:, 0]
                    for start in range(0, len(grid), batch_size)
                ]
                total += torch.cat(parts).double().numpy() if parts else 0.0
        return total / len(self.networks)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return every array to be saved."""
        result: dict[str, NDArray[Any]] = dict(self.preparation.tensors())
        for number, network in enumerate(self.networks):
            result |= {f"network.{number}.{name}": t.numpy() for name, t in network.state_dict().items()}
        return result

    def to_dict(self) -> dict[str, Any]:
        """Return what is not an array."""
        return {
            "settings": asdict(self.settings),
            "preparation": self.preparation.to_dict(),
            "shape": list(self.shape),
            "networks": len(self.networks),
        }

    @classmethod
    def restore(cls, fields: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Self:
        """Build a model from :meth:`to_dict` and :meth:`tensors`."""
        settings = SequenceSettings(**fields["settings"])
        shape = tuple(int(n) for n in fields["shape"])
        model = cls(
            settings=settings,
            preparation=GridPreparation.restore(fields["preparation"], tensors),
            shape=(shape[0], shape[1], shape[2], shape[3]),
        )
        for number in range(fields["networks"]):
            network = SequenceNetwork(*model.shape, settings, model.preparation.step)
            prefix = f"network.{number}."
            network.load_state_dict(
                {
                    name.removeprefix(prefix): torch.from_numpy(np.array(value))
                    for name, value in tensors.items()
                    if name.startswith(prefix)
                }
            )
            model.networks.append(network.eval())
        return model

    def save(self, folder: Path) -> None:
        """Write ``sequence.safetensors`` and ``sequence.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "sequence.safetensors"
        save_file({name: np.ascontiguousarray(value) for name, value in self.tensors().items()}, path)
        write_json(
            {"format": "nightingale-sequence-1", "sha256": file_digest(path), **self.to_dict()},
            folder / "sequence.json",
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote; a wrong digest or format is a :class:`BaselineError`."""
        fields = json.loads((folder / "sequence.json").read_text(encoding="utf-8"))
        path = folder / "sequence.safetensors"
        if fields.get("format") != "nightingale-sequence-1":
            raise BaselineError("sequence.json has an unknown format")
        if not path.is_file() or file_digest(path) != fields["sha256"]:
            raise BaselineError(f"{path.name} is missing or is not the file that was saved")
        return cls.restore(fields, load_file(path))


def _loss(output: Tensor, target: Tensor, binary: Tensor, weight: float) -> Tensor:
    """Logistic loss of the first column plus weighted auxiliary losses over known targets."""
    loss = functional.binary_cross_entropy_with_logits(output[:, 0], target[:, 0])
    for column in range(1, target.shape[1]):
        known = torch.isfinite(target[:, column])
        if weight == 0 or not known.any():
            continue
        predicted, wanted = output[known, column], target[known, column]
        if binary[column - 1]:
            part = functional.binary_cross_entropy_with_logits(predicted, wanted)
        else:
            part = 0.5 * functional.mse_loss(predicted, wanted)
        loss = loss + weight * part
    return loss
