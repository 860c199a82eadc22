"""Requests that wait for their target, and requests that come twice."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from taskflow.patterns import linear_flow

from tests.unit.engine.conftest import MakeRunner
from tests.unit.engine.toys import Call, Make, ToyRequest, World, registry
from virtflow.engine.runner import Runner
from virtflow.errors import Busy, Conflict
from virtflow.persistence import operations as ops


class Gate:
    """An operation that holds its target until it is let go."""

    def __init__(self, make_runner: MakeRunner) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.runner = make_runner(registry(self._build))
        self.first = threading.Thread(target=lambda: self.runner.run(ToyRequest()))
        self.first.start()
        assert self.reached.wait(10)

    def _build(self) -> Any:
        def pause(_world: World, _activity: Any) -> None:
            self.reached.set()
            assert self.go_on.wait(20)

        return linear_flow.Flow("toy").add(Call("pause", pause), Make("a"))

    def open(self) -> None:
        self.go_on.set()
        self.first.join(20)


@pytest.fixture
def gate(make_runner: MakeRunner) -> Gate:
    return Gate(make_runner)


def test_without_queue_a_second_one_is_busy_at_once_and_leaves_nothing(gate: Gate) -> None:
    with pytest.raises(Busy):
        gate.runner.run(ToyRequest())
    gate.open()
    assert len(gate.runner.operations.list()) == 1


def test_with_queue_it_waits_its_turn_and_is_run(gate: Gate) -> None:
    second = gate.runner.submit(ToyRequest(), queue=True)
    assert (second.state, second.owner) == (ops.QUEUED, None)
    ends: list[ops.Operation] = []
    waiting = threading.Thread(target=lambda: ends.append(gate.runner.run(ToyRequest(), queue=True)))
    waiting.start()
    gate.open()
    assert gate.runner.resume(second.id).outcome == ops.SUCCESS
    waiting.join(20)
    assert [end.outcome for end in ends] == [ops.SUCCESS]


def test_the_oldest_in_the_queue_is_next(gate: Gate) -> None:
    second, third = (gate.runner.submit(ToyRequest(), queue=True) for _ in range(2))
    gate.open()
    with pytest.raises(Busy, match=second.id):
        gate.runner.resume(third.id)
    assert gate.runner.resume(second.id).outcome == ops.SUCCESS
    assert gate.runner.resume(third.id).outcome == ops.SUCCESS


def test_what_waits_can_be_cancelled_and_has_done_nothing(gate: Gate, world: World) -> None:
    second = gate.runner.submit(ToyRequest(), queue=True)
    assert gate.runner.cancel(second.id).outcome == ops.CANCELLED
    gate.open()
    assert gate.runner.operations.holder("toy:thing") is None
    assert world.diary == ["make a"]


@pytest.fixture
def runner(make_runner: MakeRunner) -> Runner:
    return make_runner(registry(lambda: linear_flow.Flow("toy").add(Make("a"))))


def test_the_same_request_with_the_same_key_is_one_operation(runner: Runner, world: World) -> None:
    first = runner.run(ToyRequest(), key="k1")
    assert runner.run(ToyRequest(), key="k1").id == first.id
    assert runner.submit(ToyRequest(), key="k1").id == first.id
    assert world.diary == ["make a"]


def test_another_request_with_the_same_key_is_refused(runner: Runner) -> None:
    runner.run(ToyRequest(), key="k1")
    with pytest.raises(Conflict, match=r"operation 1 .* has it, and is another request"):
        runner.run(ToyRequest(name="other"), key="k1")


def test_the_same_request_twice_at_once_is_one_operation(runner: Runner, world: World) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(runner.run(ToyRequest(), key="k1").id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 8
    assert len(set(found)) == 1
    assert world.diary == ["make a"]
