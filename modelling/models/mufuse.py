"""MuFuse 2025: multiplicative embeddings of observed triplets and a transformer over them.

"MedFuse: Multiplicative Embedding Fusion for Irregular Clinical Time Series" (arXiv 2511.09247). The paper's
model works on a grid of windows by variables and masks the empty cells; here only observed tokens exist.
Their attention outputs are the same, at a cost that follows what was measured. Where the released code
averages over empty cells too, we average over observed tokens; ``pooling="all"`` restores it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from modelling.batches import Batch, Encoding, Modality, owners
from modelling.errors import TrainingError
from modelling.models.base import RiskModel
from modelling.models.tokens import TokenEmbedding, Tokens, pad, sinusoid, visible_tokens
from modelling.models.transformer import EncoderLayer


@dataclass(frozen=True, kw_only=True)
class MuFuseConfig:
    """Sizes; the defaults are the paper's for PhysioNet 2012.

    Attributes
    ----------
    embedding
        ``mufuse``, or ``scane`` and ``additive`` for comparison.
    width, heads, layers, inner
        d, attention heads, layers, feed-forward size.
    hidden, value_width
        p and d'.
    dropout, attention_dropout, head_dropout
        Rates.
    window_hours
        Tokens of one window share a time code; 0 encodes the exact hour.
    origin
        Time counts from the ``start`` of the look-back (the paper) or back from the ``prediction``.
    pooling
        ``mean`` of observed tokens, ``attention`` (STraTS), or ``all``: mean over the whole grid of windows
        by features as in the released code (needs tokens windowed as ``window_hours``).
    head_ratio
        The head narrows d by this factor.
    static
        Whether age and sex are tokens.
    outputs
        1, and one for each further target.
    """

    embedding: str = "mufuse"
    width: int = 144
    heads: int = 1
    layers: int = 1
    inner: int = 144
    hidden: int = 16
    value_width: int = 144
    dropout: float = 0.1
    attention_dropout: float = 0.025
    head_dropout: float = 0.45
    window_hours: float = 1.0
    origin: str = "prediction"
    pooling: str = "mean"
    head_ratio: int = 2
    static: bool = True
    pre_norm: bool = False
    outputs: int = 1


def time_code(batch: Batch, width: int, *, window_hours: float, origin: str) -> Tensor:
    """Return the time code ``[tokens, width]`` of every token."""
    hours = batch.hours
    if origin == "start":
        hours = batch.lookback[owners(batch.token_offsets)] - hours
    return sinusoid(torch.floor(hours / window_hours) if window_hours else hours, width)


class TokenEncoder(nn.Module):
    """Tokens of a batch, embedded and mixed by transformer layers: the part that other models share."""

    def __init__(self, encoding: Encoding, config: MuFuseConfig) -> None:
        super().__init__()
        if config.pooling not in ("mean", "attention", "all"):
            raise TrainingError(f"no pooling {config.pooling!r}; there are mean, attention, all")
        if config.origin not in ("start", "prediction"):
            raise TrainingError(f"no origin of time {config.origin!r}; there are start, prediction")
        self.config = config
        self.n_features = encoding.n_tokens - 1
        self.grid_hours = encoding.settings.grid_hours
        kind = config.embedding
        self.embedding = TokenEmbedding(
            encoding,
            kind=kind,  # type: ignore[arg-type]
            width=config.width,
            value_width=config.value_width,
            hidden=config.hidden,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(
                config.width,
                config.heads,
                config.inner,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                pre_norm=config.pre_norm,
            )
            for _ in range(config.layers)
        )
        self.nothing = nn.Parameter(torch.zeros(config.width))
        self.look = nn.Sequential(
            nn.Linear(config.width, config.width), nn.Tanh(), nn.Linear(config.width, 1, bias=False)
        )

    def tokens(self, batch: Batch) -> Tokens:
        """Return embedded tokens, static ones last, before any attention."""
        config = self.config
        batch = visible_tokens(batch)
        flat = self.embedding(batch.feature, batch.value, batch.level)
        flat = flat + time_code(batch, config.width, window_hours=config.window_hours, origin=config.origin)
        tokens = pad(self.dropout(flat), batch.token_offsets)
        if config.static:
            static = self.embedding.static(batch.static)
            tokens = Tokens(
                torch.cat([tokens.vectors, static.vectors], 1), torch.cat([tokens.there, static.there], 1)
            )
        return tokens

    def forward(self, batch: Batch) -> Tokens:
        """Return the tokens after all layers."""
        tokens = self.tokens(batch)
        x = tokens.vectors
        for layer in self.layers:
            x = layer(x, tokens.there)
        return Tokens(x, tokens.there)

    def _whole_grid(self, batch: Batch) -> Tensor:
        """Mean over all cells of the grid: empty cells read the observed ones but are never read.

        All empty cells of a window hold the same query (zero plus the time code), so one query a window,
        weighted by the number of its empty cells, gives the mean of all of them.
        """
        config = self.config
        batch = visible_tokens(batch)
        tokens = self.tokens(batch)
        n, windows = len(batch), round(self.grid_hours / config.window_hours)
        code = sinusoid(torch.arange(windows, device=batch.device, dtype=batch.dtype), config.width)
        owner = owners(batch.token_offsets)
        hours = batch.hours if config.origin == "prediction" else batch.lookback[owner] - batch.hours
        cell = owner * windows + (hours / config.window_hours).floor().long().clamp(0, windows - 1)
        filled = torch.zeros(n * windows, dtype=batch.dtype, device=batch.device)
        filled.index_add_(0, cell, torch.ones_like(hours))
        x = torch.cat([tokens.vectors, code.expand(n, -1, -1)], 1)
        there = torch.cat([tokens.there, tokens.there.new_zeros(n, windows)], 1)
        for layer in self.layers:
            x = layer(x, there)
        empty = self.n_features - filled.view(n, windows)
        weight = torch.cat([tokens.there.to(x.dtype), empty], 1)
        return (x * weight.unsqueeze(-1)).sum(1) / weight.sum(1, keepdim=True)

    def pooled(self, batch: Batch) -> Tensor:
        """Return one vector a sample, ``[n, d]``; a learnt one for a sample without any token."""
        if self.config.pooling == "all":
            return self._whole_grid(batch)
        tokens = self(batch)
        if self.config.pooling == "attention":
            score = self.look(tokens.vectors).squeeze(-1).masked_fill(~tokens.there, float("-inf"))
            score = score.masked_fill(~tokens.there.any(1, keepdim=True), 0.0)
            weight = torch.softmax(score, 1) * tokens.there
        else:
            weight = tokens.there / tokens.there.sum(1, keepdim=True).clamp(min=1)
        pooled = (tokens.vectors * weight.unsqueeze(-1).to(tokens.vectors.dtype)).sum(1)
        return torch.where(tokens.there.any(1, keepdim=True), pooled, self.nothing.to(pooled.dtype))


class RiskHead(nn.Module):
    """Linear to d / ratio, GELU, dropout, linear to the outputs."""

    def __init__(self, width: int, ratio: int, dropout: float, outputs: int) -> None:
        super().__init__()
        self.narrow, self.dropout = nn.Linear(width, max(1, width // ratio)), nn.Dropout(dropout)
        self.out = nn.Linear(max(1, width // ratio), outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, d]`` to ``[n, outputs]``."""
        logits: Tensor = self.out(self.dropout(gelu(self.narrow(x))))
        return logits


class MuFuse(RiskModel):
    """Tokens, transformer, masked mean, head; and a head that forecasts the next values (STraTS)."""

    modalities = (Modality.EHR,)

    def __init__(self, encoding: Encoding, config: MuFuseConfig) -> None:
        super().__init__(encoding)
        self.encoder = TokenEncoder(encoding, config)
        self.head = RiskHead(config.width, config.head_ratio, config.head_dropout, config.outputs)
        self.forecast = nn.Linear(config.width, encoding.n_tokens)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits ``[n, outputs]``."""
        return self.head(self.encoder.pooled(batch))

    def forecast_values(self, batch: Batch) -> Tensor:
        """Return the expected standardised value of every feature in the hours to come, ``[n, n_tokens]``."""
        return self.forecast(self.encoder.pooled(batch))

    def forecast_parameters(self) -> list[nn.Parameter]:
        """Return what forecasting trains."""
        return [*self.encoder.parameters(), *self.forecast.parameters()]
