"""One training loop for everything: pictures and robots alike."""

# In reading order: the loop, what it takes, its parts, and what comes out.
# ruff: noqa: I001, RUF022
from ornstein.training.loop import TrainResult, train
from ornstein.training.objective import Loss, LossFn
from ornstein.training.optimization import Optimization
from ornstein.training.run import RunFolder, begun_stages
from ornstein.training.batches import Batch, epoch_rows
from ornstein.training.learning_rate import learning_rate_at
from ornstein.training.ema import ExponentialMovingAverage
from ornstein.training.randomness import initialise
from ornstein.training.sanity import overfitting_one_batch
from ornstein.training.processes import main_process_first
from ornstein.training.export import export_model, origin
from ornstein.core.progress import track

__all__ = [
    "train",
    "TrainResult",
    "Optimization",
    "RunFolder",
    "begun_stages",
    "Batch",
    "epoch_rows",
    "Loss",
    "LossFn",
    "learning_rate_at",
    "ExponentialMovingAverage",
    "initialise",
    "overfitting_one_batch",
    "main_process_first",
    "export_model",
    "origin",
    "track",
]
