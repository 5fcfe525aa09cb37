"""Settings of a training run, and named presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

from modelling.batches import EncodingSettings
from modelling.errors import TrainingError


@dataclass(frozen=True, kw_only=True)
class Auxiliary:
    """A further target that a model learns beside the label, in the order of ``Batch.auxiliary``.

    Attributes
    ----------
    name
        For the record.
    kind
        ``binary`` (0-1, cross entropy) or ``regression`` (squared error; scale it yourself).
    weight
        Of its mean loss, beside 1 for the label's.
    """

    name: str
    kind: str = "binary"
    weight: float = 0.3


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How to train, apart from data, model name and seed.

    Attributes
    ----------
    kind, targets
        Kind of the task (``binary``, ``regression``, ``multiclass``, ``multilabel``) and how many outputs
        answer it; :func:`modelling.training.train` takes both from the task.
    model
        Settings of the model (:func:`modelling.models.model_config`).
    encoding
        Settings of the encoding.
    epochs, pretrain_epochs, forecast_epochs
        At most, of the fusion stage, of each encoder alone (0: none), and of self-supervised forecasting.
    batch_size, accumulation
        Samples an optimiser step, and into how many micro-batches they are cut.
    learning_rate, pretrain_learning_rate, weight_decay, warmup_steps, schedule
        AdamW; ``schedule`` is ``constant`` or ``cosine`` (to a tenth, over the epochs).
    patience
        Epochs without a better average precision on the tuning split before a stage stops.
    gradient_clip
        Largest norm of the gradient; None for no bound.
    loss
        ``bce`` or ``focal`` (alpha and gamma below).
    freeze_batch_norm
        In the fusion stage BatchNorm keeps the statistics of pre-training: a batch there holds too few
        images to estimate them.
    augment
        Random flip, rotation, scale and shift of training images (MedFuse 2022, appendix).
    auxiliary
        Further targets; a model then has as many outputs more.
    unimodal_ratio
        Share of training samples with EHR only that an epoch of the fusion stage sees (MedFuse OPTIMAL:
        0.1 or 0.2); 1 sees all.
    modality_dropout
        Chance that a training sample with several modalities is shown without one of them.
    tuning_share, held_out_share
        Of subjects.
    threads
        CPU threads while training; None leaves torch's choice. One is fastest for small networks, and makes
        the weights independent of the machine's core count.
    precision
        ``float32``, or ``bfloat16`` for automatic mixed precision on a GPU.
    """

    kind: str = "binary"
    targets: int = 1
    model: dict[str, Any] = field(default_factory=dict)
    encoding: EncodingSettings = field(default_factory=EncodingSettings)
    epochs: int = 50
    pretrain_epochs: int = 50
    forecast_epochs: int = 0
    batch_size: int = 16
    accumulation: int = 1
    learning_rate: float = 1e-4
    pretrain_learning_rate: float = 5e-4
    weight_decay: float = 0.0
    warmup_steps: int = 0
    schedule: str = "constant"
    patience: int = 15
    gradient_clip: float | None = 1.0
    loss: str = "bce"
    focal_alpha: float = 0.5
    focal_gamma: float = 2.0
    freeze_batch_norm: bool = True
    augment: bool = False
    auxiliary: tuple[Auxiliary, ...] = ()
    unimodal_ratio: float = 1.0
    modality_dropout: float = 0.0
    tuning_share: float = 0.15
    held_out_share: float = 0.15
    token_budget: int = 65_536
    threads: int | None = None
    device: str = "auto"
    precision: str = "float32"
    compile: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build settings; what is absent keeps its default.

        Raises
        ------
        TrainingError
            If there is no such setting.
        """
        known = {item.name for item in fields(cls)}
        if unknown := set(values) - known:
            raise TrainingError(f"training has no setting {', '.join(sorted(unknown))}")
        given = dict(values)
        if isinstance(given.get("encoding"), Mapping):
            given["encoding"] = EncodingSettings.from_dict(given["encoding"])
        given["auxiliary"] = tuple(
            Auxiliary(**item) if isinstance(item, Mapping) else item for item in given.get("auxiliary", ())
        )
        return cls(**given)


_SMALL_IMAGES = {"size": 64, "resize": 72}
_SMALL_ENCODERS = {
    "image_layers": (1, 1, 1, 1),
    "image_width": 8,
    "signal_channels": (16, 24, 32, 48),
    "signal_strides": (2, 2, 4, 4),
    "signal_dropout": 0.1,
}
_DEMO = {
    "epochs": 12,
    "pretrain_epochs": 8,
    "patience": 4,
    "batch_size": 32,
    "learning_rate": 5e-4,
    "pretrain_learning_rate": 2e-3,
    "weight_decay": 1e-3,
    "threads": 1,
}

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # Learns something on a few hundred stays in about a minute on two cores.
    "demo": {
        "medfuse": {
            **_DEMO,
            "encoding": {"step_hours": 2.0, "image": _SMALL_IMAGES},
            "model": {"hidden": 48, "layers": 2, "fusion_hidden": 64, **_SMALL_ENCODERS},
        },
        "medm2t": {
            **_DEMO,
            "pretrain_epochs": 4,
            "encoding": {"image": _SMALL_IMAGES},
            "model": {
                "width": 48,
                "heads": 4,
                "static_width": 16,
                "series_width": 48,
                "vitals_width": 32,
                "ecg_width": 32,
                "micro_width": 32,
                "micro_heads": 4,
                **_SMALL_ENCODERS,
            },
        },
        "nightingale": {
            **_DEMO,
            "encoding": {"image": _SMALL_IMAGES, "token_window_hours": 2.0},
            "modality_dropout": 0.2,
            "model": {
                "width": 48,
                "heads": 2,
                "inner": 64,
                "value_width": 24,
                "fusion_hidden": 48,
                "micro_width": 32,
                **_SMALL_ENCODERS,
            },
        },
        "mufuse": {
            **_DEMO,
            "epochs": 20,
            "model": {"width": 48, "inner": 64, "heads": 2, "value_width": 24, "head_dropout": 0.2},
        },
    },
    # MedFuse 2022: Adam, batches of 16, at most 50 epochs, patience 15, learning rates as published.
    "paper": {
        "medfuse": {
            "learning_rate": 1.452e-5,
            "pretrain_learning_rate": 5.3985e-4,
            "augment": True,
            "model": {"modalities": ("ehr", "cxr")},
        },
        # MedM2T 2025 on ICU mortality: at most 20 epochs, batches of 32.
        "medm2t": {
            "learning_rate": 5e-5,
            "pretrain_learning_rate": 5e-4,
            "batch_size": 32,
            "epochs": 20,
            "pretrain_epochs": 20,
            "model": {"parts": ("static", "labs", "vitals", "ecg")},
        },
        # MuFuse 2025 on PhysioNet 2012: one token a feature and hour, focal loss.
        "mufuse": {
            "encoding": {"token_window_hours": 1.0},
            "epochs": 250,
            "pretrain_epochs": 0,
            "patience": 20,
            "batch_size": 256,
            "learning_rate": 1e-4,
            "loss": "focal",
        },
    },
}


def preset(name: str, model: str, **changes: Any) -> TrainingConfig:
    """Return a named preset of a model, with changes.

    Raises
    ------
    TrainingError
        If there is no such preset for the model.
    """
    try:
        values = PRESETS[name][model]
    except KeyError:
        have = ", ".join(f"{key}/{kind}" for key, kinds in PRESETS.items() for kind in kinds)
        raise TrainingError(f"no preset {name!r} for model {model!r}; there are {have}") from None
    return replace(TrainingConfig.from_dict(values), **changes)
