"""A solver that tunes parameters of another one while solving."""

from __future__ import annotations

import copy
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from math import ceil, inf, isfinite
from numbers import Real
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor

from sciml.errors import InputError
from sciml.linear_operator import LinearOperator
from sciml.status import Status

from ..linear.base import Iteration, LinearSolver
from ..linear.settings import check_number, check_word
from .attempts import Arms, Attempt, attempt
from .parameters import Arm, Values, identity, make_arms
from .policy import Choice, Policy
from .state import Learned, TunerState
from .tsallis_inf import TsallisINF

Cost = Literal["iterations", "seconds"]
Context = Callable[[LinearOperator, Tensor], Any] | float | None

FALLBACK = -1
_LONGEST_REST = 30  # failures in a row after which the rest of an arm, 2^failures rounds, grows no more
_LEAST_PROGRESS = 0.01  # of an arm that was cut off; its cost is not extrapolated further
_LARGEST_CONTEXT = 1e100  # regressions square and sum them
_TELLING = 0.5  # share of a solve that the fallback must do to tell what the whole would have cost it


@final
@dataclass(frozen=True, eq=False)
class BanditTuner(LinearSolver):
    """A solver whose parameters a bandit chooses, solve by solve, by what the solves so far have cost.

    Every solve is one round: the policy chooses an arm, that is values of the parameters, is told what the solve cost,
    and chooses better the next time. The solution is that of any solver: whatever the arm, the true residual meets the
    tolerance, or the status says that it does not. Of a batch of systems there is one choice for all, and the cost is
    the mean over its rows. Only the arm that was chosen is set up, once for an operator. Derivatives go through the
    arm that solved, fixed, and teach nothing; nor does what is solved again in a backward pass, as checkpoints are, by
    the best arm known then. As `linear` of an implicit method, every linear system of the run is a round.

    Statistics of a solution, unless there was nothing to solve: "arm" (-1 for the fallback alone), "value", a list of
    one for each parameter, "probability" with which it was chosen, "cost", "cut_off" (whether the fallback took over),
    "context" where there is one, and "refused", the reason, where the arm does not suit the operator or broke off.

    Source: Khodak, Chow, Balcan and Talwalkar, Learning to Relax, ICLR 2024; the fallback: PCGBandit,
    arXiv:2509.08765.

    Args:
        solver: of any kind; tolerances and limit that it sets go over to the tuner where this one sets none.
        parameters: path of a setting -> its values, see `sciml.solvers.tuning.parameters.make_arms`: a range
            (low, high) divided by `policy.arms`, (low, high, n), or a list to choose from, of whole preconditioners for
            instance. "preconditioner.relaxation" names a setting of a setting. Several parameters make all
            combinations.
        policy: how to choose.
        context: a number, or a function of the operator and the right side that gives one, by which a contextual
            policy tells systems apart; `with_context` gives each solve its own.
        cost: "iterations", the mean over the rows; or "seconds", divided by the number of rows, including the set-up
            where this solve needed it.
        fallback: a solver that takes over from an arm that is cut off or fails, from the better of its iterates and
            the start; "best": the arm of the least mean cost of late, and where no other has worked, the arm itself
            goes on. None: `solver` as it is given takes over from
            arms that fail, and none is cut off.
        patience: an arm is cut off at so many times the cost of the fallback, by its regression on the context or else
            its mean; a fallback that is a solver is tried first, and again in rounds 1, 2, 4, 8, ... to know it;
            positive. A solve costs at most that more than the fallback, but for the set-up of an arm, which is not
            interrupted.
        seed: of the random numbers.
        state: what was learned before; None for nothing. Tuners made of this one by `dataclasses.replace` share it.
        rtol, atol, max_iterations: see LinearSolver; the limit is that of the arm, and of the fallback anew.

    Raises:
        InputError: for settings out of range, parameters that the solver refuses, or the state of another tuner; from
            `solve` for a context that is not finite, or is missing where the policy needs one.
    """

    solver: LinearSolver
    parameters: Mapping[str, Values]
    _: KW_ONLY
    policy: Policy = TsallisINF()  # noqa: RUF009 -- frozen
    context: Context = None
    cost: Cost = "iterations"
    fallback: LinearSolver | Literal["best"] | None = None
    patience: float = 4.0
    seed: int = 0
    state: TunerState = None  # type: ignore[assignment]  # made by `validate`
    arms: tuple[Arm, ...] = field(init=False, repr=False)

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def validate(self) -> None:
        put = object.__setattr__
        if not isinstance(self.solver, LinearSolver):
            raise InputError(f"BanditTuner: solver must be a linear solver, for example SOR(), got {self.solver!r}")
        if not isinstance(self.policy, Policy):
            raise InputError(f"BanditTuner: policy must be one of sciml.solvers.tuning, got {self.policy!r}")
        check_word(self.cost, "BanditTuner: cost", get_args(Cost))
        check_number(self.patience, "BanditTuner: patience", 0.0, inf)
        if not (self.fallback is None or self.fallback == "best" or isinstance(self.fallback, LinearSolver)):
            raise InputError(f"BanditTuner: fallback must be a linear solver, 'best' or None, got {self.fallback!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise InputError(f"BanditTuner: seed must be a whole number, not negative, got {self.seed!r}")
        put(self, "context", _check_context(self.context))
        self._take_over_tolerances()
        arms = make_arms(self.solver, self.parameters, self.policy.arms)
        put(self, "arms", arms)
        tuner = {
            "solver": identity(self.solver),
            "arms": [arm.settings for arm in arms],
            "policy": identity(self.policy),
            "cost": self.cost,
            "fallback": self.fallback if self.fallback in (None, "best") else identity(self.fallback),
        }
        if self.state is None:
            put(self, "state", TunerState(tuner, Learned.nothing(self.policy, len(arms), self.seed)))
        elif not isinstance(self.state, TunerState):
            raise InputError(f"BanditTuner: state must be a TunerState, TunerState.load(path), got {self.state!r}")
        else:
            self.state.belong(tuner, self.policy)

    def describe(self) -> str:
        tuned = " and ".join(self.parameters)
        return f"{self.solver.describe()}, but for {tuned}, tuned by {self.policy.describe()}"

    def with_context(self, context: Context) -> BanditTuner:
        """This tuner, its state shared, with another context.

        Raises:
            InputError: for a number that is not finite.
        """
        made = copy.copy(self)
        object.__setattr__(made, "context", _check_context(context))
        return made

    def settled(self) -> LinearSolver:
        """The solver of the arm of the least mean cost of late; before anything is known, the fallback."""
        best = self._best([mean.value for mean in self.state.learned.means])
        return self._stopping_alike(self._reserve if best == FALLBACK else self.arms[best].solver)

    def setup(self, operator: LinearOperator) -> Arms:
        return Arms(operator, [*(arm.solver for arm in self.arms), self._reserve])

    def iterate(self, task: Iteration, state: Arms) -> None:
        learned = self.state.learned
        if _in_backward():
            self._repeat(task, state)
            return
        if task.statistics:  # a second call for the same solve, where the true residual was not what rounding said
            further = self._cost(self._last(task, state, state.latest))
            learned.cost += further
            task.statistics["cost"] += further
            return
        context = self._context_of(task)
        if self.cost == "seconds" and task.b.device.type == "cuda":
            torch.cuda.synchronize(task.b.device)
        costs = self._recent_costs(context)
        known = self._known(costs, context)
        probing = isinstance(self.fallback, LinearSolver) and learned.rounds & (learned.rounds - 1) == 0
        choice = Choice(FALLBACK, 1.0)
        if not probing:
            choice = self.policy.choose(learned.policy, context, learned.generator)
        first, second = Attempt(), None
        if probing:
            first = self._last(task, state, FALLBACK)
        else:
            limits = self._limits(task, known)
            if learned.rest[choice.arm] <= learned.rounds:
                first = attempt(task, state, choice.arm, *limits)
            if not first.converged:
                stopped = first.cut_off and limits != (task.max_iterations, inf)
                other = self._other(choice.arm, stopped, costs)
                found = self._retry(task, state, other)
                if other == choice.arm:
                    first = first.continued(found)
                else:
                    second = found
        cost = self._cost(first) + (self._cost(second) if second else 0.0)
        self._learn(choice, first, second, cost, known, context, task.rows.count)
        ended = second or first
        if ended.error is not None:
            raise ended.error
        self._fix(task, ended)
        task.statistics |= {
            "arm": choice.arm,
            "value": [] if probing else list(self.arms[choice.arm].values.values()),
            "probability": choice.probability,
            "cost": cost,
            "cut_off": second is not None,
        }
        if context is not None:
            task.statistics["context"] = context
        if second and first.error is not None:
            task.statistics["refused"] = str(first.error)

    def _learn(
        self,
        choice: Choice,
        first: Attempt,
        second: Attempt | None,
        cost: float,
        known: float | None,
        context: float | None,
        rows: int,
    ) -> None:
        """Tell the policy, and keep the accounts."""
        learned, arm = self.state.learned, choice.arm
        if arm == FALLBACK:
            learned.tell_fallback(cost, context)
        else:
            failed = first.error is not None or (second is not None and not first.cut_off)
            estimate, charged = None, cost
            if failed:  # an arm that ends early is no better than one that is cut off
                rescue = self._cost(second) if second is not None else 0.0
                charged = max(cost, self.patience * (rescue if known is None else known) + rescue)
            if second is not None:
                if not failed:
                    setup = first.seconds_setup / rows if self.cost == "seconds" else 0.0
                    steps = self._cost(first) - setup
                    # Cut off in its set-up already, it would not have taken fewer seconds than the best.
                    least = known if known is not None else cost
                    estimate = setup + (steps / max(first.progress, _LEAST_PROGRESS) if first.progress else least)
                if second.converged and first.share_left >= _TELLING and self.fallback != "best":
                    learned.tell_fallback(self._cost(second) / first.share_left, context)
            if learned.rest[arm] <= learned.rounds:
                learned.failures[arm] = learned.failures[arm] + 1 if failed else 0
                if failed:
                    learned.rest[arm] = learned.rounds + 2 ** int(min(learned.failures[arm], _LONGEST_REST))
            learned.pulls[arm] += 1
            learned.means[arm].add(charged if estimate is None else estimate)
            self.policy.update(
                learned.policy,
                choice,
                max(charged - self._floor, 0.0),
                context,
                None if estimate is None else max(estimate - self._floor, 0.0),
            )
        learned.rounds += 1
        learned.cost += cost
        learned.cut_off += second is not None

    def _repeat(self, task: Iteration, arms: Arms) -> None:
        """Solve without learning."""
        tried, best = Attempt(), self._best([mean.value for mean in self.state.learned.means])
        if best != FALLBACK:
            tried = attempt(task, arms, best, task.max_iterations, inf)
        self._fix(task, tried if tried.converged else self._last(task, arms, FALLBACK))

    def _last(self, task: Iteration, arms: Arms, number: int) -> Attempt:
        """The try after which there is no other; raises where it was refused."""
        found = self._retry(task, arms, number)
        if found.error is not None:
            raise found.error
        return found

    def _retry(self, task: Iteration, arms: Arms, number: int) -> Attempt:
        """A try of the rows that have not converged, without limits of cost."""
        failed = (task.codes != Status.CONVERGED) & (task.codes != Iteration.RUNNING)
        task.codes = torch.where(failed, Iteration.RUNNING, task.codes)
        return attempt(task, arms, number, task.max_iterations, inf)

    def _other(self, arm: int, stopped: bool, costs: Sequence[float]) -> int:
        """What takes over from an arm: that itself where only its cost stopped it, and no other is known to be good."""
        if self.fallback != "best":
            return FALLBACK
        best = self._best(costs, arm)
        return arm if best == FALLBACK and stopped else best

    @property
    def _floor(self) -> float:
        """What every solve costs, and no policy is told."""
        return 1.0 if self.cost == "iterations" else 0.0

    @property
    def _reserve(self) -> LinearSolver:
        """What takes over where no arm is known to be good."""
        return self.fallback if isinstance(self.fallback, LinearSolver) else self.solver

    def _stopping_alike(self, solver: LinearSolver) -> LinearSolver:
        """A solver with the tolerances and the limit of the tuner."""
        return replace(solver, rtol=self.rtol, atol=self.atol, max_iterations=self.max_iterations)

    def _fix(self, task: Iteration, solved: Attempt) -> None:
        """Let derivatives go through what solved."""
        prepared = solved.prepared
        if prepared is not None:
            task.solved_by = lambda operator: prepared.with_gradients(operator, self._stopping_alike(prepared.solver))

    def _limits(self, task: Iteration, known: float | None) -> tuple[int, float]:
        """On the iterations of an arm, and its deadline."""
        if known is None or self.fallback is None:
            return task.max_iterations, inf
        if self.cost == "seconds":
            return task.max_iterations, time.perf_counter() + self.patience * known * task.rows.count
        return min(task.max_iterations, max(1, ceil(self.patience * known))), inf

    def _known(self, costs: Sequence[float], context: float | None) -> float | None:
        """The cost of the fallback; None where nothing is known of it."""
        learned = self.state.learned
        if self.fallback == "best":
            best = self._best(costs)
            return None if best == FALLBACK else costs[best]
        return learned.cost_of_fallback(context)

    def _recent_costs(self, context: float | None) -> list[float]:
        """What the arms are expected to cost: by the policy where it says so, else as they did of late."""
        learned = self.state.learned
        expected = self.policy.expected(learned.policy, context) if self.fallback == "best" else None
        if expected is None:
            return [mean.value for mean in learned.means]
        return (expected + self._floor).tolist()

    def _best(self, costs: Sequence[float], other_than: int = FALLBACK) -> int:
        """The arm of the least cost, of those tried that do not fail; -1 if there is none."""
        learned = self.state.learned
        tried = [
            arm
            for arm, mean in enumerate(learned.means)
            if mean.count and not learned.failures[arm] and arm != other_than
        ]
        return min(tried, key=costs.__getitem__) if tried else FALLBACK

    def _cost(self, tried: Attempt) -> float:
        return tried.iterations if self.cost == "iterations" else tried.seconds

    def _context_of(self, task: Iteration) -> float | None:
        """The context of a solve."""
        given = self.context
        if given is None:
            if self.policy.contextual:
                raise InputError(
                    f"{self.policy.describe()} needs a context: give context=..., a function of operator and right "
                    "side such as sciml.solvers.tuning.dominance, or solve by with_context(number)"
                )
            return None
        if callable(given):
            given = given(task.operator, task.b)
            if isinstance(given, Tensor):
                if given.numel() != 1:
                    raise InputError(
                        f"the context is one number for the whole batch, the function returned {tuple(given.shape)}"
                    )
                given = given.item()
        return _finite(given)

    def _take_over_tolerances(self) -> None:
        """What the solver sets and the tuner does not."""
        put, solver = object.__setattr__, self.solver
        if self.rtol is None:
            put(self, "rtol", solver.rtol)
        if self.atol == 0.0:
            put(self, "atol", solver.atol)
        if self.max_iterations is None:
            put(self, "max_iterations", solver.max_iterations)
        put(self, "solver", replace(solver, rtol=None, atol=0.0, max_iterations=None))


def _in_backward() -> bool:
    """Whether a backward pass is what calls."""
    return torch._C._current_graph_task_id() != -1


def _check_context(context: Context) -> Context:
    if isinstance(context, Real):
        return _finite(context)
    if context is None:
        return context
    if callable(context):
        _check_arguments(context)
        return context
    raise InputError(f"context must be a number, a function of operator and right side, or None, got {context!r}")


def _check_arguments(context: Callable[..., Any]) -> None:
    try:
        inspect.signature(context).bind(None, None)
    except TypeError as error:
        raise InputError(
            "context: it is called with the operator and the right side, and does not take these two arguments; of the "
            "operator alone: lambda operator, b: context(operator)"
        ) from error
    except ValueError:
        pass  # a builtin without a signature


def _finite(context: Any) -> float:
    if not isinstance(context, Real) or isinstance(context, bool) or not isfinite(context):
        raise InputError(f"the context must be a finite number, got {context!r}")
    found = float(context)
    if abs(found) > _LARGEST_CONTEXT:
        most = f"{_LARGEST_CONTEXT:g}"
        raise InputError(f"the context must be at most {most} in magnitude, got {found}: give its logarithm")
    return found
