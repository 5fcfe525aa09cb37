"""Training: split, encode, pre-train encoders, fuse, calibrate, and leave a model folder."""

from modelling.training.config import PRESETS, TrainingConfig, preset
from modelling.training.predict import predict
from modelling.training.train import TrainedRun, train

__all__ = ["PRESETS", "TrainedRun", "TrainingConfig", "predict", "preset", "train"]
