"""The measuring core under a clock that only moves when a method works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from sciml.benchmarks.timing import Calibration, Contender, Outcome, Patience, Sample, Series, take_turns


@dataclass
class World:
    """A clock, and copies whose times are given in advance (the last one stays)."""

    copies: list[float] = field(default_factory=lambda: [0.1])
    now: float = 0.0
    log: list[str] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def calibration(self) -> Calibration:
        return Calibration(self, self._copy)

    def _copy(self) -> None:
        self.now += self.copies[0]
        if len(self.copies) > 1:
            del self.copies[0]

    def contender(
        self, name: str, solve: list[float], setup: float | None = None, loops: int | None = 1, **settings: Any
    ) -> Contender:
        """One whose runs take given times in turn (the last one stays)."""
        times = list(solve)

        def work(state: Any) -> str:
            self.log.append(name)
            self.now += times.pop(0) if len(times) > 1 else times[0]
            return f"{state} solved"

        def prepare() -> str:
            self.now += setup or 0.0
            return name

        finish: Callable[[Any], Outcome] = lambda found: Outcome(found, iterations=7)  # noqa: E731
        ready = {"prepare": prepare} if setup is not None else {}
        return Contender(name, "library", "1.0", work, finish, loops=loops, **ready, **settings)


def measure(world: World, *contenders: Contender, **patience: Any) -> list[Series]:
    chosen = Patience(**{"repeats": 5, "quick_repeats": 5, **patience})
    return take_turns(contenders, world, world.calibration(), patience=chosen)


def test_methods_take_turns_after_a_first_run_each() -> None:
    world = World()
    measure(world, world.contender("a", [1.0]), world.contender("b", [1.5]))
    assert "".join(world.log) == "ab" + "ab" * 5


def test_least_and_median_of_the_runs_without_the_first() -> None:
    world = World()
    (series,) = measure(world, world.contender("a", [1.7, 1.5, 1.1, 1.4, 1.2, 1.3], setup=0.25))
    assert [sample.solve for sample in series.samples] == pytest.approx([1.5, 1.1, 1.4, 1.2, 1.3])
    summary = series.summary(limit=1.0)
    assert summary["total_seconds"] == pytest.approx(1.35)
    assert summary["total_median"] == pytest.approx(1.55)
    assert summary["setup_median"] == pytest.approx(0.25)
    assert summary["solve_median"] == pytest.approx(1.3)
    assert (summary["repeats"], summary["discarded"], summary["loops"]) == (5, 0, 1)


def test_set_up_is_timed_apart_and_its_result_handed_on() -> None:
    world = World()
    (series,) = measure(world, world.contender("a", [1.0], setup=0.5))
    assert {(round(s.setup, 9), round(s.solve, 9)) for s in series.samples} == {(0.5, 1.0)}
    assert series.outcome == Outcome("a solved", 7)


def test_set_up_within_a_solve_is_told_apart_from_it() -> None:
    world = World()
    (series,) = measure(world, world.contender("a", [1.0], setup=0.5, setup_within=lambda found: 0.25))
    assert {(round(s.setup, 9), round(s.solve, 9)) for s in series.samples} == {(0.75, 0.75)}
    (alone,) = measure(world, world.contender("b", [1.0], setup_within=lambda found: 0.25))
    assert alone.summary(1.0)["setup_median"] == pytest.approx(0.25)


def test_a_long_first_run_counts() -> None:
    world = World()
    (series,) = measure(world, world.contender("a", [3.0]))
    assert len(world.log) == len(series.samples) == 5


@pytest.mark.parametrize(("seconds", "runs"), [(19.0, 5), (21.0, 2), (61.0, 1)])
def test_very_long_runs_are_made_less_often(seconds: float, runs: int) -> None:
    world = World()
    (series,) = measure(world, world.contender("slow", [seconds]))
    assert len(series.samples) == series.summary(1.0)["repeats"] == runs


def test_quick_rounds_are_repeated_more_often() -> None:
    world = World()
    contenders = [world.contender("a", [0.3]), world.contender("b", [0.3])]
    assert {len(series.samples) for series in measure(world, *contenders, quick_repeats=15)} == {15}


def test_short_solves_are_repeated_within_one_run() -> None:
    world = World(copies=[1e-4])
    (series,) = measure(world, world.contender("a", [1e-3], loops=None))
    assert series.loops == 20
    assert len(world.log) == 1 + 5 * 20
    assert all(sample.solve == pytest.approx(1e-3) for sample in series.samples)


def test_a_run_beside_a_slow_copy_is_repeated() -> None:
    """Three copies a calibration: one before all, one after every run; that after the third run is slow."""
    world = World(copies=[*[0.1] * 9, *[0.2] * 3, 0.1])
    (series,) = measure(world, world.contender("a", [1.0]))
    copies = [round(sample.copy, 9) for sample in series.samples]
    assert copies == [0.1, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1], "the slow copy stands after one run and before the next"
    summary = series.summary(limit=0.15)
    assert (summary["repeats"], summary["discarded"]) == (5, 2)
    assert summary["copy_seconds"] == pytest.approx(0.1)


def test_copies_within_one_and_a_half_of_the_best_are_quiet() -> None:
    world = World(copies=[*[0.1] * 3, 0.149])
    (series,) = measure(world, world.contender("a", [1.0]))
    assert len(series.samples) == 5


def test_noise_that_does_not_end_stops_after_three_more_runs_and_is_kept() -> None:
    world = World(copies=[*[0.1] * 3, 0.3])
    (series,) = measure(world, world.contender("a", [1.0]))
    assert len(series.samples) == 5 + 3
    summary = series.summary(limit=0.15)
    assert (summary["repeats"], summary["discarded"]) == (8, 0)
    assert summary["copy_seconds"] == pytest.approx(0.3)


def test_methods_that_took_a_minute_are_not_tried_again() -> None:
    world = World(copies=[*[0.1] * 3, 0.3])
    slow, quick = measure(world, world.contender("slow", [13.0]), world.contender("quick", [1.0]))
    assert [len(series.samples) for series in (slow, quick)] == [5, 8]


def test_only_what_was_disturbed_is_repeated() -> None:
    """Of a's and b's runs: first runs, then a slow copy between a's and b's first round."""
    world = World(copies=[*[0.1] * 9, *[0.2] * 3, 0.1])
    first, second = measure(world, world.contender("a", [1.0]), world.contender("b", [1.0]), retries=1)
    assert "".join(world.log) == "ab" + "ab" * 5 + "ab"
    assert [len(series.samples) for series in (first, second)] == [6, 6]


def test_a_method_that_raises_is_left_out_and_the_others_go_on() -> None:
    world = World()

    def fail(state: Any) -> Any:
        world.log.append("x")
        raise ValueError("no   such\n luck")

    broken = Contender("x", "library", None, fail, Outcome)
    first, second = measure(world, broken, world.contender("a", [1.0]))
    assert first.failure == "ValueError: no such luck"
    assert world.log.count("x") == 1
    assert (second.failure, len(second.samples)) == (None, 5)


def test_a_library_that_is_missing_is_named() -> None:
    world = World()

    def look(state: Any) -> Any:
        import no_such_library  # type: ignore[import-not-found]  # noqa: F401

    (series,) = measure(world, Contender("x", "library", None, look, Outcome))
    assert series.failure == "no_such_library is not installed (pip install 'sciml-torch[bench]')"


def test_the_best_copy_is_remembered() -> None:
    world = World(copies=[0.3, 0.1, 0.2, 0.5])
    calibration = world.calibration()
    assert calibration.measure() == pytest.approx(0.1)
    assert calibration.measure() == pytest.approx(0.5)
    assert calibration.best == pytest.approx(0.1)
    assert calibration.limit == pytest.approx(0.15)


def test_settling_copies_for_a_while() -> None:
    world = World(copies=[*[0.2] * 4, *[0.1] * 2, 0.3])
    calibration = world.calibration()
    calibration.settle(2.0)
    assert calibration.best == pytest.approx(0.1)
    assert 2.0 <= world.now < 3.0


def test_kept_are_the_quiet_runs_if_there_are_enough() -> None:
    world = World()
    series = Series(world.contender("a", [1.0]), Patience(), wanted=2)
    series.samples = [Sample(0.0, 5.0, 0.1), Sample(0.0, 1.0, 0.9), Sample(0.0, 4.0, 0.1)]
    assert [sample.solve for sample in series.kept(limit=0.15)] == [5.0, 4.0]
    series.wanted = 3
    assert [sample.solve for sample in series.kept(limit=0.15)] == [5.0, 1.0, 4.0]
