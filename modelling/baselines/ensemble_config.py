"""Settings of a stored ensemble; apart from the model, so that the registry of models can name them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """Settings of a stored ensemble.

    Attributes
    ----------
    description
        JSON of :meth:`Ensemble.to_dict`.
    tensors
        Name, type and shape of each stored array, as ``name:dtype:2,3``.
    threads
        Threads of LightGBM.
    """

    description: str = ""
    tensors: tuple[str, ...] = field(default=())
    threads: int = 1
