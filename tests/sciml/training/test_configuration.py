"""Tables of recipe files become plans, and what is wrong in them is refused with its place."""

from __future__ import annotations

import dataclasses
import inspect
import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml import InputError
from sciml.tables import Table, validate
from sciml.training import (
    SGD,
    Adam,
    Adamax,
    AdamW,
    Constant,
    Cosine,
    Exponential,
    InverseDecay,
    Linear,
    OneCycle,
    Plan,
    Steps,
    train,
)
from sciml.training.configuration import RunTable, TrainingTable


class Recipe(Table):
    training: TrainingTable
    run: RunTable = RunTable()


def read(text: str) -> Recipe:
    return validate(Path("recipe.toml"), tomllib.loads(text), Recipe)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)


def test_a_recipe_becomes_the_plan_it_describes() -> None:
    recipe = read("""
        [training]
        epochs = 500
        batch_size = 8
        clip = 1
        [training.optimizer]
        name = "Adam"
        rate = 5e-4
        weight_decay = 1e-4
        [training.schedule]
        name = "OneCycle"
        peak = 0.2
        initial_division = 2
        final_division = 100
        [run]
        devices = 4
        device = "cuda"
    """)
    assert recipe.training.plan() == Plan(
        epochs=500,
        batch_size=8,
        clip=1.0,
        optimizer=Adam(5e-4, weight_decay=1e-4),
        schedule=OneCycle(0.2, 2.0, 100.0),
    )
    assert recipe.run.options() == {**RunTable().options(), "devices": 4, "device": "cuda"}


def test_what_is_left_out_is_as_in_python() -> None:
    assert read("[training]\nsteps = 3").training.plan() == Plan(steps=3)
    assert set(TrainingTable.model_fields) == {field.name for field in dataclasses.fields(Plan)}
    arguments = inspect.signature(train).parameters
    assert {name: arguments[name].default for name in RunTable().options()} == RunTable().options()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "recipe.toml, [training]: unknown key 'epoch'; did you mean 'epochs'?"),
        ("batch_size = 3", "recipe.toml, [training]: a plan needs exactly one of epochs, steps and seconds, got none"),
        ("epochs = 3\nsteps = 2", "exactly one of epochs, steps and seconds, got epochs and steps"),
        ("epochs = 0", "recipe.toml, [training] epochs: "),
        ("epochs = 2.5", "recipe.toml, [training] epochs: "),
        ("epochs = true", "recipe.toml, [training] epochs: "),
        ("epochs = 1\nclip = -1", "clip must be positive and finite"),
        ("epochs = 1\nprecision = 'half'", "recipe.toml, [training] precision: "),
        ("epochs = 1\noptimizer = 'adam'", "unknown name 'adam'; did you mean 'Adam'?"),
        ("epochs = 1\noptimizer = {rate = 1}", "recipe.toml, [training.optimizer]: a name is needed: Adam, AdamW"),
        (
            "epochs = 1\noptimizer = {name = 'Adam', weightdecay = 1}",
            "recipe.toml, [training.optimizer]: unknown key 'weightdecay' of Adam; did you mean 'weight_decay'?",
        ),
        (
            "epochs = 1\noptimizer = {name = 'Adam', rate = 'fast'}",
            "recipe.toml, [training.optimizer]: rate: Input should be a valid number",
        ),
        ("epochs = 1\noptimizer = {name = 'Adam', rate = -1.0}", "rate must be positive and finite, got -1.0"),
        ("epochs = 1\noptimizer = {name = 'Adam', rate = nan}", "rate must be positive and finite, got nan"),
        ("epochs = 1\noptimizer = {name = 'SGD', momentum = 1.0}", "momentum must be at least 0 and below 1, got 1.0"),
        ("epochs = 1\noptimizer = {name = 'SGD', nesterov = true}", "nesterov looks ahead along a momentum, and it is"),
        ("epochs = 1\noptimizer = {name = 'SGD', betas = [0.9, 0.9]}", "unknown key 'betas' of SGD"),
        ("epochs = 1\nschedule = {name = 'InverseDecay', decay = -1.0}", "decay must be at least 0 and finite"),
        ("epochs = 1\noptimizer = 3", "a table with a name is needed, not 3: Adam, AdamW"),
        ("epochs = 1\nschedule = {name = 'Steps', at = [0.7, 0.2]}", "at holds growing parts of the training"),
        ("epochs = 1\nschedule = {name = 'OneCycle', peak = 2.0}", "peak is a part of the training between 0 and 1"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(f"[training]\n{text}")
    assert message in str(caught.value)


share = st.floats(0.01, 0.99)
SCHEDULES = {
    Constant: {"warmup": share, "start": share},
    Linear: {"warmup": share, "start": st.floats(0.01, 1), "final": st.floats(0, 1)},
    OneCycle: {"peak": share, "initial_division": st.floats(1, 1e3), "final_division": st.floats(1, 1e6)},
    Cosine: {"warmup": share, "start": share, "final": share},
    Exponential: {"final": share},
    InverseDecay: {"decay": st.floats(0, 10)},
    Steps: {"at": st.lists(share, max_size=4).map(sorted), "ratio": share},
}
OPTIMIZERS = {
    kind: {"rate": st.floats(1e-9, 10), "betas": st.tuples(share, share), "weight_decay": st.floats(0, 1)}
    for kind in (Adam, AdamW, Adamax)
} | {SGD: {"rate": st.floats(1e-9, 10), "momentum": share, "weight_decay": st.floats(0, 1)}}


@st.composite
def choices(draw: st.DrawFn, kinds: dict[type, dict[str, st.SearchStrategy[Any]]]) -> Any:
    kind = draw(st.sampled_from(list(kinds)))
    chosen = draw(st.sets(st.sampled_from(list(kinds[kind]))))
    return kind(**{name: draw(kinds[kind][name]) for name in sorted(chosen)})


PLANS = st.builds(
    Plan,
    epochs=st.integers(1, 10**9),
    batch_size=st.integers(1, 10**6),
    clip=st.none() | st.floats(1e-6, 1e6),
    accumulate=st.integers(1, 64),
    precision=st.sampled_from(["float32", "bf16", "float16"]),
    patience=st.none() | st.integers(1, 100),
    seed=st.integers(0, 2**40),
    optimizer=choices(OPTIMIZERS),
    schedule=choices(SCHEDULES),
)


@settings(max_examples=40)
@given(PLANS)
def test_every_plan_can_be_written_and_read(plan: Plan) -> None:
    lines = [f"{name} = {toml(value)}" for name, value in plan.described().items() if value is not None]
    assert read("[training]\n" + "\n".join(lines)).training.plan() == plan


@given(choices(SCHEDULES), st.integers(1, 400))
def test_factors_stay_between_0_and_1(schedule: Any, steps: int) -> None:
    factors = [schedule.factor(step, steps) for step in range(steps)]
    assert all(0.0 <= factor <= 1.0 + 1e-12 and math.isfinite(factor) for factor in factors)
