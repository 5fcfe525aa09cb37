"""The stacked ensemble behind the same interface as the networks: a batch in, logits out.

So it is trained on tables, kept in the same model folder (safetensors and JSON), and scored, explained and
refused by the same code as every other model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from modelling.baselines.ensemble import Ensemble, inputs_of_tokens
from modelling.baselines.ensemble_config import EnsembleConfig
from modelling.batches import Batch, Encoding, Modality, owners
from modelling.errors import TrainingError
from modelling.models.base import RiskModel


def ensemble_settings(ensemble: Ensemble) -> dict[str, Any]:
    """Return the settings under which an ensemble is stored in a model folder."""
    shapes = [
        f"{name}:{array.dtype.name}:{','.join(str(size) for size in array.shape)}"
        for name, array in ensemble.tensors().items()
    ]
    return {"description": json.dumps(ensemble.to_dict(), sort_keys=True), "tensors": shapes, "threads": 1}


def ensemble_weights(ensemble: Ensemble) -> dict[str, Tensor]:
    """Return an ensemble's arrays as the state of an :class:`EnsembleModel`."""
    return {_buffer(name): torch.from_numpy(np.array(array)) for name, array in ensemble.tensors().items()}


def _buffer(name: str) -> str:
    return name.replace(".", "/")


class EnsembleModel(RiskModel):
    """Vital signs, laboratory values, age and sex to the log-odds of a stacked ensemble.

    The arrays are buffers, so that loading and saving are those of any network; the ensemble is built from
    them at the first batch. It always computes on the CPU, in the precision it was trained in.
    """

    modalities = (Modality.EHR,)
    token_budget = 524_288

    def __init__(self, encoding: Encoding, config: EnsembleConfig) -> None:
        super().__init__(encoding)
        if not config.description or not config.tensors:
            raise TrainingError("the ensemble is built by modelling.shipped_weights, not here")
        self.description: dict[str, Any] = json.loads(config.description)
        self.threads = config.threads
        self.names: list[str] = []
        self.types: dict[str, str] = {}
        for entry in config.tensors:
            name, kind, sizes = entry.rsplit(":", 2)
            shape = [int(size) for size in sizes.split(",") if size]
            self.names.append(name)
            self.types[name] = kind
            self.register_buffer(_buffer(name), torch.zeros(shape, dtype=getattr(torch, kind)))
        self._ensemble: Ensemble | None = None

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load the arrays; the ensemble is rebuilt from them when it is next used."""
        self._ensemble = None
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    @property
    def ensemble(self) -> Ensemble:
        """The ensemble, built from the buffers."""
        if self._ensemble is None:
            arrays: dict[str, NDArray[Any]] = {
                name: self.get_buffer(_buffer(name)).detach().cpu().numpy().astype(self.types[name])
                for name in self.names
            }
            self._ensemble = Ensemble.restore(self.description, arrays, threads=self.threads)
        return self._ensemble

    @torch.no_grad()
    def forward(self, batch: Batch) -> Tensor:
        """Return logits ``[n, 1]``."""
        ensemble = self.ensemble
        visible = batch.present[:, 0]
        owner = owners(batch.token_offsets)
        shown = visible[owner]
        codes = np.array(["", *self.encoding.codes])
        tokens = pl.DataFrame(
            {
                "row": owner[shown].cpu().numpy().astype(np.uint32),
                "code": codes[batch.feature[shown].cpu().numpy()],
                "hours_before": batch.hours[shown].float().cpu().numpy(),
                "value": batch.raw[shown].float().cpu().numpy(),
            }
        ).sort("row", "code", "hours_before", descending=[False, False, True], maintain_order=True)
        inputs = inputs_of_tokens(tokens, self._static(batch), ensemble.features)
        log_odds = ensemble.member_log_odds(inputs) @ ensemble.weights + ensemble.intercept
        return torch.from_numpy(log_odds).to(batch.device, batch.dtype)[:, None]

    def _static(self, batch: Batch) -> pl.DataFrame:
        age, known, male, female = batch.static.double().cpu().unbind(1)
        years = age * self.encoding.age_standard_deviation + self.encoding.age_mean
        return pl.DataFrame(
            {
                "row": np.arange(len(batch), dtype=np.uint32),
                "age_years": torch.where(known > 0, years, torch.nan).numpy(),
                "male": torch.where((male > 0) | (female > 0), (male > 0).double(), torch.nan).numpy(),
                "ward": [None] * len(batch),
            },
            schema_overrides={"ward": pl.String},
        ).with_columns(pl.col("age_years", "male").fill_nan(None))
