"""However parallel tasks finish, fail, are cancelled or reverted beside each other: a replay does not diverge.

The graphs, the moments and what fails come from a seed. Threads are not seeded: each run is another interleaving.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from taskflow import retry
from taskflow.flow import Flow
from taskflow.patterns import graph_flow, linear_flow, unordered_flow

from virtflow.engine import executor
from virtflow.engine.flow_driver import Templates
from virtflow.engine.runner import Runner
from virtflow.engine.taskflow_engine.loop import FlowLoop
from virtflow.errors import VirtflowError
from virtflow.flows.kind import FlowKind
from virtflow.flows.registry import Registry
from virtflow.replay.checking import check
from virtflow.replay.player_stage import Code
from virtflow.replay.recording import Recording
from virtflow.tasks.base import Task
from virtflow.testing.recordings import RecordingStudio, Step, ToyRequest

SERVICES = ("failures", "segments", "secrets", "choice")
RUNS_OF_ONE_SEED = 10


class Moment(Task):
    """Takes a moment in both directions, and may fail, or die like its process."""

    def __init__(self, name: str, dice: random.Random, **options: Any) -> None:
        super().__init__(name=name, provides=f"made_{name}", **options)
        self._lasts = dice.choice((0, 0, 0.001, 0.002, 0.003))
        self._undone_in = dice.choice((0, 0, 0.001))
        self._trouble = dice.choices((None, RuntimeError, KeyboardInterrupt), (85, 13, 2))[0]
        self.started = 0
        self.reverted = 0

    def execute(self, **_arguments: Any) -> str:
        self.started += 1
        if self._lasts:
            time.sleep(self._lasts)
        if self._trouble is not None and (self._trouble is RuntimeError or self.started == 1):
            raise self._trouble(self.name)
        return self.name

    def revert(self, **_arguments: Any) -> None:
        self.reverted += 1
        if self._undone_in:
            time.sleep(self._undone_in)


class Again(retry.Times):
    """Tries twice; asks a service first, which a replay cannot."""

    def __init__(self, name: str) -> None:
        super().__init__(2, name=name, provides=f"made_{name}", requires=["choice"])

    def on_failure(self, history: Any, choice: Any, **_arguments: Any) -> Any:  # type: ignore[override]
        return super().on_failure(history) if choice.again() else retry.REVERT


class Choice:
    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    def again(self) -> bool:
        return self._dice.random() < 0.7


def grown(dice: random.Random) -> Flow:
    """A random graph of tasks, some of which are tried again together."""
    names = iter(f"t{number}" for number in range(100))
    flow = graph_flow.Flow("toy")
    before: list[str] = []
    for number in range(dice.randint(3, 7)):
        needs = dice.sample(before, min(len(before), dice.choice((0, 0, 1, 2))))
        wanted = [f"made_{name}" for name in needs]
        if dice.random() < 0.25:
            part = dice.choice((linear_flow, unordered_flow)).Flow(
                f"part{number}",
                retry=dice.choice((None, Again(f"again{number}"), retry.Times(2, f"times{number}"))),
            )
            inner = [next(names) for _ in range(dice.randint(2, 3))]
            part.add(*(Moment(name, dice, requires=wanted) for name in inner))
            flow.add(part)
            before += inner
        else:
            name = next(names)
            flow.add(Moment(name, dice, requires=wanted))
            before.append(name)
    return flow


def played(studio: RecordingStudio, seed: int) -> list[str]:
    dice = random.Random(seed)
    flow = grown(dice)
    registry = Registry((FlowKind("toy", 1, lambda _shape: flow),))
    runner = studio.runner(lambda: flow, choice=Choice(dice))
    code = Code(Templates(registry), SERVICES)
    cancel = threading.Timer(dice.random() * 0.012, suppressed(lambda: runner.cancel("--last")))
    if dice.random() < 0.4:
        cancel.start()
    with suppress(VirtflowError, KeyboardInterrupt):
        runner.run(ToyRequest(name=f"thing{seed}"))
    cancel.cancel()
    if cancel.ident is not None:
        cancel.join()
    found = [str(each) for each in check(studio.read(), code).divergences]
    for _ in range(3):
        if found or dice.random() < 0.4:
            break
        with suppress(VirtflowError, KeyboardInterrupt):
            getattr(runner, dice.choice(("resume", "undo", "cancel")))("--last")
        found += [str(each) for each in check(studio.read(), code).divergences]
    return found


def suppressed(call: Callable[[], Any]) -> Callable[[], None]:
    def quietly() -> None:
        with suppress(VirtflowError):
            call()

    return quietly


@pytest.mark.parametrize("first", range(0, 40, RUNS_OF_ONE_SEED))
def test_no_interleaving_of_a_random_graph_diverges(
    first: int, studio: RecordingStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "_STEAL_AFTER", 0.001)
    monkeypatch.setattr(threading, "excepthook", lambda _died: None)
    found = {seed: played(studio, seed) for seed in range(first, first + RUNS_OF_ONE_SEED)}
    assert {seed: lines for seed, lines in found.items() if lines} == {}


class AtOnce:
    """A pool whose bodies have all ended before the engine looks at the first of them."""

    def submit(self, body: Callable[[], Any]) -> None:
        body()

    def shutdown(self, *, wait: bool) -> None:
        """There is no thread to wait for."""


def at_once(runner: Runner, monkeypatch: pytest.MonkeyPatch, *, latest_first: bool = False) -> None:
    """What runs side by side is seen together, in the order of the tasks' names."""
    analyse = FlowLoop._analyse

    def in_order(loop: FlowLoop, done: Iterable[Any]) -> bool:
        return analyse(loop, sorted(done, key=lambda future: str(future.atom.name), reverse=latest_first))

    monkeypatch.setattr(FlowLoop, "_analyse", in_order)
    monkeypatch.setattr(runner.core, "pool", AtOnce())


def diverges(recording: Recording, flow: Flow) -> list[str]:
    code = Code(Templates(Registry((FlowKind("toy", 1, lambda _shape: flow),))), SERVICES)
    return [str(found) for found in check(recording, code).divergences]


@pytest.mark.parametrize("latest_first", [False, True])
def test_a_success_and_a_failure_that_are_seen_together_start_nothing(
    studio: RecordingStudio, monkeypatch: pytest.MonkeyPatch, *, latest_first: bool
) -> None:
    flow = unordered_flow.Flow("toy").add(
        linear_flow.Flow("branch").add(Step("a"), Step("after a")), Step("b", fails=-1), Step("c")
    )
    runner = studio.runner(lambda: flow)
    at_once(runner, monkeypatch, latest_first=latest_first)
    with pytest.raises(VirtflowError):
        runner.run(ToyRequest())
    recording = studio.read()
    started = [event.atom for event in recording.events if event.event in ("RUNNING", "REVERTING") and event.atom]
    assert sorted(started) == ["a", "a", "b", "b", "c", "c"]
    assert diverges(recording, flow) == []


def test_a_retry_that_a_dead_process_was_at_may_try_again(
    studio: RecordingStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths = iter([KeyboardInterrupt])

    def die_once() -> None:
        for death in deaths:
            raise death

    tries = linear_flow.Flow("tries", retry=retry.Times(2, "tries")).add(Step("fails once", fails=1))
    flow = unordered_flow.Flow("toy").add(Step("dies once", does=die_once), tries)
    runner = studio.runner(lambda: flow)
    at_once(runner, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        runner.run(ToyRequest())
    runner.resume("--last")
    recording = studio.read()
    assert [event.attempt for event in recording.events if event.event == "RETRYING"] == [1]
    assert diverges(recording, flow) == []


def test_retries_side_by_side_are_each_answered_for_themselves(
    studio: RecordingStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (
        linear_flow.Flow(name, retry=Again(f"again {name}")).add(
            Step(f"{name} fails once", fails=1), Step(f"{name} on")
        )
        for name in "ab"
    )
    flow = unordered_flow.Flow("toy").add(first, second)
    runner = studio.runner(lambda: flow, choice=SimpleNamespace(again=lambda: True))
    at_once(runner, monkeypatch)
    runner.run(ToyRequest())
    recording = studio.read()
    assert sorted(e.atom or "" for e in recording.events if e.event == "RETRYING") == ["again a", "again b"]
    assert diverges(recording, flow) == []
