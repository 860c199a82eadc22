"""What operations of this version have recorded, this version's code would do again, whatever became of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from taskflow import retry
from taskflow.flow import Flow
from taskflow.patterns import linear_flow, unordered_flow

from tests.unit.engine.toys import Call, Fail, Make, ToyRequest, World, registry, wait_until
from virtflow import faults
from virtflow.config import load
from virtflow.engine.flow_driver import Templates
from virtflow.engine.runner import Runner
from virtflow.errors import VirtflowError
from virtflow.flows.kind import FlowKind
from virtflow.flows.registry import Registry
from virtflow.persistence.secrets import SecretStore, load_or_create_key
from virtflow.replay.checking import Checked, check
from virtflow.replay.player_stage import Code
from virtflow.replay.reading import read
from virtflow.tasks.accept import Accept
from virtflow.tasks.segments import OnHost
from virtflow.testing.recordings import RecordingStudio

SERVICES = ("world", "segments", "secrets")
HERE = load(env={}).host
MakeRunner = Callable[[Registry], Runner]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def make_runner(studio: RecordingStudio, world: World, tmp_path: Path) -> Iterator[MakeRunner]:
    with ExitStack() as stack:

        def make(flows: Registry) -> Runner:
            store = SecretStore(studio.database, load_or_create_key(tmp_path / "key"))
            return stack.enter_context(
                Runner(studio.config, services={"world": world, "secrets": store}, registry=flows)
            )

        yield make


def checked(runner: Runner, code: Registry | None = None) -> Checked:
    templates = runner.templates if code is None else Templates(code)
    return check(read(runner.database, "--last"), Code(templates, SERVICES))


def diverges(runner: Runner, code: Registry | None = None) -> list[str]:
    return [str(found) for found in checked(runner, code).divergences]


def run(runner: Runner, *, fails: bool = False) -> None:
    if fails:
        with pytest.raises(VirtflowError):
            runner.run(ToyRequest())
    else:
        runner.run(ToyRequest())


class Hosts(retry.ForEach):
    """Tries one host after the other."""

    default_provides = "host"

    def __init__(self) -> None:
        super().__init__(["h1", "h2", "h3"], name="Hosts", provides="host")


class Choosing(retry.ForEach):
    """Asks a service whether to try again: what it answered at the time a replay cannot ask."""

    def __init__(self) -> None:
        super().__init__(["h1", "h2", "h3"], name="Hosts", provides="host", requires=["world"])

    def on_failure(self, history: Any, world: World, **_arguments: Any) -> Any:  # type: ignore[override]
        return super().on_failure(history) if world.things else retry.REVERT


class OnThat(Make):
    """Fails on the hosts that the world does not have."""

    def execute(self, world: World, host: str) -> str:  # type: ignore[override]
        if host not in world.things:
            raise RuntimeError(f"not on {host}")
        return host


def rescheduled(controller: Callable[[], retry.Retry] = Hosts) -> Flow:
    return linear_flow.Flow("toy").add(
        Make("first"), linear_flow.Flow("tries", retry=controller()).add(Make("a"), OnThat("b")), Make("last")
    )


def wide(*more: Any) -> Flow:
    return linear_flow.Flow("toy").add(
        Make("first"), unordered_flow.Flow("wide").add(*(Make(name) for name in "abcd"), *more), Make("last")
    )


def nested(*segment: Any) -> Callable[[], Registry]:
    def make() -> Registry:
        host = FlowKind("toy.host", 1, lambda _shape: linear_flow.Flow("toy.host").add(*segment), outputs=("made_x",))
        parent = linear_flow.Flow("toy").add(
            Call("where", lambda _world, _activity: HERE, provides="host"),
            OnHost("toy.host", name="There", requires=(), provides=("made_x",)),
            Make("after"),
        )
        return registry(lambda: parent, host)

    return make


CASES: Mapping[str, tuple[Callable[[], Registry], bool]] = {
    "a success": (lambda: registry(lambda: linear_flow.Flow("toy").add(Make("a"), Make("b"))), False),
    "a failure": (lambda: registry(lambda: linear_flow.Flow("toy").add(Make("a"), Make("b"), Fail())), True),
    "a graph": (lambda: registry(wide), False),
    "a graph in which one fails": (lambda: registry(lambda: wide(Fail())), True),
    "a host that works at last": (lambda: registry(rescheduled), False),
    "a segment": (nested(Make("x"), Make("y")), False),
    "a segment that fails": (nested(Make("x"), Fail()), True),
}


@pytest.mark.parametrize("case", CASES)
def test_a_recording_replayed_on_its_own_version_does_not_diverge(
    case: str, make_runner: MakeRunner, world: World
) -> None:
    world.things.add("h3")
    make, fails = CASES[case]
    runner = make_runner(make())
    run(runner, fails=fails)
    assert diverges(runner) == []
    assert checked(runner).events > 4


@pytest.mark.parametrize("there", ["h1", "h3", "elsewhere", None])
@pytest.mark.parametrize("controller", [Hosts, Choosing])
def test_wherever_it_succeeds_or_gives_up_it_does_not_diverge(
    there: str | None, controller: type[retry.Retry], make_runner: MakeRunner, world: World
) -> None:
    world.things |= {there} if there else set()
    runner = make_runner(registry(lambda: rescheduled(controller)))
    run(runner, fails=there not in ("h1", "h3"))
    assert diverges(runner) == []
    if there in ("h1", "h3"):
        runner.undo("--last")
        assert diverges(runner) == []


@pytest.mark.parametrize("make", [CASES["a success"][0], CASES["a graph"][0], CASES["a segment"][0]])
def test_an_undone_operation_does_not_diverge(make: Callable[[], Registry], make_runner: MakeRunner) -> None:
    runner = make_runner(make())
    run(runner)
    runner.undo("--last")
    assert diverges(runner) == []


def test_an_operation_that_was_accepted_and_resumed_does_not_diverge(make_runner: MakeRunner) -> None:
    runner = make_runner(registry(lambda: linear_flow.Flow("toy").add(Make("a"), Accept(), Make("b"))))
    runner.submit(ToyRequest())
    assert diverges(runner) == []
    runner.resume("--last")
    assert diverges(runner) == []


@pytest.mark.parametrize("point", ["b:before", "b:after", "There:before"])
@pytest.mark.parametrize("way", ["resume", "cancel"])
def test_an_operation_that_died_and_was_resumed_or_cancelled_does_not_diverge(
    point: str, way: str, make_runner: MakeRunner
) -> None:
    make = nested(Make("x"), Make("b"), Make("z")) if point != "There:before" else nested(Make("x"))

    def die(*_arguments: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    runner = make_runner(make())
    with pytest.MonkeyPatch.context() as patch:
        task = point.split(":", maxsplit=1)[0]
        before = Make.execute

        def execute(self: Make, world: World) -> str:
            if self.name != task:
                return before(self, world)
            if point.endswith("after"):
                before(self, world)
            die()
            raise AssertionError

        patch.setattr(Make, "execute", execute)
        if task == "There":
            patch.setattr(OnHost, "execute", die)
        with pytest.raises(KeyboardInterrupt):
            runner.run(ToyRequest())
    assert diverges(runner) == []
    getattr(runner, way)("--last")
    assert diverges(runner) == []


def test_a_cancelled_operation_does_not_diverge(make_runner: MakeRunner) -> None:
    began = threading.Event()

    def wait(_world: World, activity: Any) -> None:
        began.set()
        wait_until(lambda: activity.check() is not None)

    runner = make_runner(registry(lambda: linear_flow.Flow("toy").add(Make("a"), Call("long", wait), Make("c"))))
    thread = threading.Thread(target=run, args=(runner,), kwargs={"fails": True})
    thread.start()
    assert began.wait(10)
    runner.cancel("--last")
    thread.join()
    assert diverges(runner) == []


def test_a_revert_that_left_a_debt_does_not_diverge(make_runner: MakeRunner) -> None:
    runner = make_runner(registry(lambda: linear_flow.Flow("toy").add(Make("a"), Make("b"), Fail())))
    with faults.injected("b.revert:before:raise:3"):
        run(runner, fails=True)
    assert diverges(runner) == []
    runner.retry_revert("--last")
    assert diverges(runner) == []


def test_a_forward_only_flow_that_was_gone_on_with_does_not_diverge(make_runner: MakeRunner) -> None:
    runner = make_runner(registry(lambda: linear_flow.Flow("toy").add(Make("a"), Make("b")), forward_only=True))
    with faults.injected("b:before:raise"):
        run(runner, fails=True)
    runner.resume("--last")
    assert diverges(runner) == []
