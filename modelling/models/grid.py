"""The regular grid that MedFuse 2022 reads, built from tokens on the device of the batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from modelling.batches import Batch, Encoding, owners


class Grid(nn.Module):
    """Benchmark grid: last value a bin, previous value or the normal value where there is none, masks.

    The 17 variables give 76 channels (12 numbers, 47 one-hot columns, 17 masks) in bins of 1 or 2 h
    (Harutyunyan et al. 2019; MedFuse 2022, section 4.1). Numbers are standardised with the statistics of
    the training fold.

    Parameters
    ----------
    encoding
        Variables, step and span.
    """

    def __init__(self, encoding: Encoding) -> None:
        super().__init__()
        self.variables = encoding.grid
        self.steps = encoding.grid_steps
        self.step_hours = encoding.settings.step_hours
        self.channels = encoding.grid_channels
        variable = torch.tensor([-1, *(feature.grid_variable for feature in encoding.features)])
        self.variable: Tensor
        self.normal: Tensor
        self.register_buffer("variable", variable, persistent=False)
        self.register_buffer(
            "normal", torch.tensor([v.normal for v in encoding.grid]).float(), persistent=False
        )

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Lay the tokens of a batch on the grid.

        Returns
        -------
        grid, lengths
            float ``[n, steps, channels]`` and int64 ``[n]``: bins from the start of the look-back (or of the
            last ``grid_hours``) to the prediction time, at least 1.
        """
        n, count = len(batch), len(self.variables)
        span = batch.lookback.clamp(max=self.steps * self.step_hours)
        lengths = torch.ceil(span / self.step_hours - 1e-6).long().clamp(1, self.steps)
        owner = owners(batch.token_offsets)
        variable = self.variable[batch.feature]
        elapsed = span[owner] - batch.hours
        used = (variable >= 0) & (elapsed >= 0) & batch.present[owner, 0]
        time = torch.minimum((elapsed / self.step_hours).floor().long(), lengths[owner] - 1)
        cell = (owner * self.steps + time) * count + variable
        # Tokens of a sample run from old to new: the largest position is the last value, in a cell and,
        # by a running maximum over time, of all cells before.
        last = torch.full((n * self.steps * count,), -1, dtype=torch.int64, device=batch.device)
        position = torch.arange(cell.numel(), device=batch.device)
        last.scatter_reduce_(0, cell[used], position[used], "amax")
        last = last.view(n, self.steps, count)
        filled = last.cummax(dim=1).values
        raw = torch.cat([batch.raw, batch.raw.new_zeros(1)])  # position -1: nothing yet
        value = torch.where(filled >= 0, raw[filled], self.normal.to(raw.dtype))
        columns = []
        for index, variable_ in enumerate(self.variables):
            column = value[..., index]
            if variable_.width:
                level = (column.round().long() - variable_.lowest).clamp(0, variable_.width - 1)
                columns.append(one_hot(level, variable_.width).to(value.dtype))
            else:
                columns.append(((column - variable_.mean) / variable_.standard_deviation).unsqueeze(-1))
        columns.append((last >= 0).to(value.dtype))
        return torch.cat(columns, dim=-1), lengths
