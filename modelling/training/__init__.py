"""Training: split, encode, pre-train encoders, fuse, calibrate, and leave a model folder."""

from modelling.training.config import PRESETS, Auxiliary, TrainingConfig, preset
from modelling.training.fit import Fitted, fit_network
from modelling.training.predict import predict
from modelling.training.train import TrainedRun, train

__all__ = [
    "PRESETS",
    "Auxiliary",
    "Fitted",
    "TrainedRun",
    "TrainingConfig",
    "fit_network",
    "predict",
    "preset",
    "train",
]
