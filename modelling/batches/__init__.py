"""From contract tables to tensors: the same path for training and for scoring."""

from modelling.batches.batch import COLUMNS, MODALITIES, Batch, Modality, owners
from modelling.batches.dataset import Dataset, build_batches, prepare
from modelling.batches.encoding import Encoding, fit_encoding
from modelling.batches.plan import plan_batches, shuffled_batches
from modelling.batches.settings import EncodingSettings, ImageSettings, SignalSettings

__all__ = [
    "COLUMNS",
    "MODALITIES",
    "Batch",
    "Dataset",
    "Encoding",
    "EncodingSettings",
    "ImageSettings",
    "Modality",
    "SignalSettings",
    "build_batches",
    "fit_encoding",
    "owners",
    "plan_batches",
    "prepare",
    "shuffled_batches",
]
