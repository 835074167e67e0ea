"""Training a network: any torch.nn.Module, any loss, on one device or many, resumable to the last bit."""

from .checkpoint import load_weights
from .evaluation import Evaluation, Loss, Metrics, evaluate
from .optimizers import SGD, Adam, Adamax, AdamW, Optimizer
from .plan import Plan
from .ranks import first_process
from .result import Best, Training, TrainingError
from .samples import Samples, TensorSamples
from .schedules import Constant, Cosine, Exponential, InverseDecay, Linear, OneCycle, Schedule, Steps
from .train import train

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Adamax",
    "Best",
    "Constant",
    "Cosine",
    "Evaluation",
    "Exponential",
    "InverseDecay",
    "Linear",
    "Loss",
    "Metrics",
    "OneCycle",
    "Optimizer",
    "Plan",
    "Samples",
    "Schedule",
    "Steps",
    "TensorSamples",
    "Training",
    "TrainingError",
    "evaluate",
    "first_process",
    "load_weights",
    "train",
]
