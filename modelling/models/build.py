"""Models by name, from settings that are plain JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Any

from modelling.baselines.ensemble_config import EnsembleConfig
from modelling.batches import Encoding
from modelling.errors import TrainingError
from modelling.models.base import RiskModel
from modelling.models.medfuse import MedFuseConfig
from modelling.models.medfuse_baselines import build_medfuse
from modelling.models.medm2t import MedM2T, MedM2TConfig
from modelling.models.mufuse import MuFuse, MuFuseConfig
from modelling.models.nightingale import Nightingale, NightingaleConfig


def _ensemble(encoding: Encoding, config: EnsembleConfig) -> RiskModel:
    """Import late: the baselines import this room's base class."""
    from modelling.baselines.risk_model import EnsembleModel

    return EnsembleModel(encoding, config)


MODELS: dict[str, tuple[Callable[[Encoding, Any], RiskModel], type[Any]]] = {
    "ensemble": (_ensemble, EnsembleConfig),
    "medfuse": (build_medfuse, MedFuseConfig),
    "medm2t": (MedM2T, MedM2TConfig),
    "mufuse": (MuFuse, MuFuseConfig),
    "nightingale": (Nightingale, NightingaleConfig),
}


def model_config(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the complete settings of a model, its defaults filled in, as a JSON-ready dict.

    Raises
    ------
    TrainingError
        If there is no such model or setting.
    """
    if name not in MODELS:
        raise TrainingError(f"no model {name!r}; there are {', '.join(sorted(MODELS))}")
    kind = MODELS[name][1]
    unknown = set(values) - {item.name for item in fields(kind)}
    if unknown:
        raise TrainingError(f"model {name!r} has no setting {', '.join(sorted(unknown))}")
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return asdict(kind(**given))


def build_model(name: str, encoding: Encoding, values: Mapping[str, Any]) -> RiskModel:
    """Build a model with fresh weights.

    Parameters
    ----------
    name
        Key of :data:`MODELS`.
    encoding
        Encoding of the batches that it will read.
    values
        Settings; what is absent keeps the paper's value.
    """
    complete = model_config(name, values)
    builder, kind = MODELS[name]
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in complete.items()}
    return builder(encoding, kind(**given))
