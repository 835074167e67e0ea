"""Tasks to train neural differential equations on, with their data and recipes.

from sciml.solvers.neural_de.tasks import Fold, digits_ode

result = digits_ode(regularizer="error", seed=1).train("my-digits")
result.metrics["accuracy"], result.evaluations, result.training_seconds, result.prediction_seconds

Weights are chosen on parts of the samples for training, and the test is kept for what has been chosen:

parts = [digits_ode({"name": "error", "weight": 3.0}, fold=Fold(number), seed=number).train() for number in range(5)]
"""

from .digits import digits
from .gaussians import gaussians
from .mnist import read_mnist
from .physionet import read_physionet
from .problem import Fold
from .recipe import TrainedTask, load_recipe, load_task, shipped_recipes, shipped_task
from .regularization import Regularization
from .shipped import (
    digits_ode,
    digits_sde,
    gaussian_flow,
    latent_spirals,
    mnist_ode,
    mnist_sde,
    physionet_2012,
    spiral_ode,
    spiral_sde,
)
from .spirals import irregular_spirals, spiral, stochastic_spiral
from .task import Result, Task

__all__ = [
    "Fold",
    "Regularization",
    "Result",
    "Task",
    "TrainedTask",
    "digits",
    "digits_ode",
    "digits_sde",
    "gaussian_flow",
    "gaussians",
    "irregular_spirals",
    "latent_spirals",
    "load_recipe",
    "load_task",
    "mnist_ode",
    "mnist_sde",
    "physionet_2012",
    "read_mnist",
    "read_physionet",
    "shipped_recipes",
    "shipped_task",
    "spiral",
    "spiral_ode",
    "spiral_sde",
    "stochastic_spiral",
]
