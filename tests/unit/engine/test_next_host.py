"""The next host is tried when one fails: what was made is gone before, and every decision is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from taskflow.patterns import linear_flow
from taskflow.types.failure import Failure

from tests.unit.engine.conftest import MakeRunner
from tests.unit.engine.test_recovery import run_until_over
from tests.unit.engine.toys import Make, ToyRequest, World, registry
from virtflow import faults
from virtflow.engine.runner import Runner
from virtflow.errors import (
    HostElsewhere,
    HostFull,
    HypervisorError,
    ImageRefused,
    InvalidRequest,
    NotFound,
    NoValidHost,
    OperationCancelled,
    OperationFailed,
    QuotaExceeded,
    SegmentFailed,
    SegmentRefused,
    VirtflowError,
)
from virtflow.flows.registry import Registry
from virtflow.persistence import operations as ops
from virtflow.persistence.decisions import DecisionRepository
from virtflow.persistence.hosts import HostRepository
from virtflow.persistence.placement import PlacementRepository
from virtflow.persistence.posting import Posting
from virtflow.persistence.writer import Batch
from virtflow.scheduler.plugins import load_scheduler
from virtflow.tasks.base import Intent, Task
from virtflow.tasks.host_choice import ChoiceLimits, HostChoice
from virtflow.tasks.placement import ClaimHost
from virtflow.tasks.scheduling import NextHost, SelectHost, mendable

FILTERS = ("status", "availability-zone", "retry", "server-group", "capacity", "capabilities", "image-properties")
SPEC = {
    "name": "web1",
    "vcpus": 1,
    "memory_mib": 128,
    "claimed_disk_gib": 1,
    "zone": None,
    "host": None,
    "host_wanted": {},
    "server_group": None,
    "image": {"properties": {}},
}


class Workers:
    """A dispatch that only says that every host can be reached."""

    def joined(self, _posting: Posting) -> Batch:
        return []

    def posted(self, _posting: Posting) -> None: ...


class Build(Task):
    """Builds on the host, unless ``trouble`` has something for it."""

    trouble: Callable[[str], None]

    def __init__(self, trouble: Callable[[str], None], owes: str | None = None) -> None:
        super().__init__()
        self.trouble = trouble
        self._owes = owes

    def intents(self, host: str, **_arguments: Any) -> Iterable[Intent]:
        return (Intent("thing", f"guest on {host}"),)

    def execute(self, host: str, world: World) -> None:
        world.note(f"build on {host}")
        world.things.add(f"guest on {host}")
        self.trouble(host)

    def revert(self, host: str, world: World, **_arguments: Any) -> None:
        world.note(f"clean {host}")
        if host == self._owes and not world.diary.count("power is back"):
            raise RuntimeError("no power")
        world.things.discard(f"guest on {host}")


def spawn(trouble: Callable[[str], None], spec: dict[str, Any] | None = None, owes: str | None = None) -> Registry:
    def build() -> Any:
        attempts = linear_flow.Flow("build", retry=NextHost()).add(SelectHost(), ClaimHost(), Build(trouble, owes))
        return linear_flow.Flow("toy").add(Make("quota"), attempts, Make("end"))

    def inputs(operation: ops.Operation) -> dict[str, Any]:
        return {"operation": operation.id, "spec": SPEC | (spec or {}), "instance_uuid": operation.id}

    return registry(build, inputs=inputs)


def breaks_on(*names: str, error: VirtflowError | None = None) -> Callable[[str], None]:
    def trouble(host: str) -> None:
        if host in names:
            raise error or HypervisorError(action="define", domain="web1", reason=f"{host} is broken")

    return trouble


Fleet = Callable[..., Runner]


@pytest.fixture
def fleet(make_runner: MakeRunner) -> Fleet:
    """A runner that reaches hosts with 4 vcpus and workers; the fuller a host, the later its turn."""

    def make(flows: Registry, *names: str, attempts: int = 3, dispatch: Any = None, **settings: Any) -> Runner:
        runner = make_runner(flows, dispatch=dispatch or Workers(), **settings)
        hosts = HostRepository(runner.database)
        services: Any = runner.services
        services["placement"] = PlacementRepository(runner.database)
        for number, name in enumerate(names):
            hosts.register(name, 4, 1024, 100, worker=f"worker of {name}")
            services["placement"].claim(
                name, f"ballast of {name}", "none", vcpus=0, memory_mib=100 * number, disk_gib=0
            )
        hosts.register("h0", 4, 1024, 100, worker="worker of h0")
        hosts.disable("h0", "only schedules")
        services["host_choice"] = HostChoice(
            load_scheduler(FILTERS, ("capacity",), {}),
            hosts,
            DecisionRepository(runner.database),
            None,
            type("Settings", (), {"host": "h0"}),
            dict,
            ChoiceLimits(attempts),
        )
        return runner

    return make


def decisions(runner: Runner) -> list[dict[str, Any]]:
    (operation,) = runner.operations.list(limit=1)
    return [each.to_dict() for each in DecisionRepository(runner.database).of_operation(operation.id)]


def claims(runner: Runner) -> list[str]:
    placement: Any = runner.services["placement"]
    return [each.host for each in placement.allocations() if not each.consumer.startswith("ballast")]


def test_a_host_that_fails_is_cleaned_and_the_next_one_is_taken(fleet: Fleet, world: World) -> None:
    runner = fleet(spawn(breaks_on("h1")), "h1", "h2", "h3")
    operation = runner.run(ToyRequest())
    assert (operation.outcome, operation.debts) == (ops.SUCCESS, 0)
    assert world.diary == ["make quota", "build on h1", "clean h1", "build on h2", "make end"]
    assert world.things == {"quota", "guest on h2", "end"}
    assert claims(runner) == ["h2"]
    first, second = decisions(runner)
    assert (first["chosen"], first["alternates"]) == ("h1", ["h2", "h3"])
    assert first["refused"] == {"h0": ["status", "disabled: only schedules"]}
    assert (second["attempt"], second["chosen"], second["alternates"]) == (2, "h2", ["h3"])


def test_deciding_where_to_go_on_costs_no_commit_of_its_own(fleet: Fleet) -> None:
    runner = fleet(spawn(breaks_on()), "h1")
    before = runner.core.writer.commits
    operation = runner.run(ToyRequest())
    assert [task.name for task in operation.tasks] == ["quota", "NextHost", "SelectHost", "ClaimHost", "Build", "end"]
    assert runner.core.writer.commits - before <= 5 + 2


def test_how_often_each_step_was_tried_is_told(fleet: Fleet) -> None:
    operation = fleet(spawn(breaks_on("h1")), "h1", "h2").run(ToyRequest())
    tried = {task.name: task.attempts for task in operation.tasks}
    assert tried == {"quota": 1, "NextHost": 2, "SelectHost": 2, "ClaimHost": 2, "Build": 2, "end": 1}


def test_an_alternate_that_filled_up_meanwhile_is_passed_over(fleet: Fleet) -> None:
    def trouble(host: str) -> None:
        if host == "h1":
            placement.claim("h2", "somebody else", "none", vcpus=4, memory_mib=0, disk_gib=0)
            raise HypervisorError(action="define", domain="web1", reason="h1 is broken")

    runner = fleet(spawn(trouble), "h1", "h2", "h3")
    placement: Any = runner.services["placement"]
    assert runner.run(ToyRequest()).outcome == ops.SUCCESS
    assert decisions(runner)[1]["chosen"] == "h3"
    assert decisions(runner)[1]["refused"]["h2"] == ["capacity", "needs 1 vcpus, 0 left"]


def test_when_no_alternate_is_left_all_hosts_are_looked_at_again(fleet: Fleet) -> None:
    def trouble(host: str) -> None:
        if host == "h1":
            hosts.disable("h2")
            hosts.register("h9", 4, 1024, 100, worker="new")
            raise HypervisorError(action="define", domain="web1", reason="h1 is broken")

    runner = fleet(spawn(trouble), "h1", "h2")
    hosts = HostRepository(runner.database)
    assert runner.run(ToyRequest()).outcome == ops.SUCCESS
    second = decisions(runner)[1]
    assert second["chosen"] == "h9"
    assert second["refused"]["h1"] == ["retry", "tried before: Build: cannot define domain web1: h1 is broken"]


def test_after_the_last_attempt_the_operation_fails_and_nothing_is_left(fleet: Fleet, world: World) -> None:
    runner = fleet(spawn(breaks_on("h1", "h2", "h3", "h4")), "h1", "h2", "h3", "h4")
    with pytest.raises(OperationFailed, match="Build: cannot define domain web1: h1 is broken"):
        runner.run(ToyRequest())
    assert [each["chosen"] for each in decisions(runner)] == ["h1", "h2", "h3"]
    assert (world.things, claims(runner)) == (set(), [])


def test_a_failure_that_no_other_host_would_mend_is_not_tried_elsewhere(fleet: Fleet, world: World) -> None:
    refused = ImageRefused(image="evil", reason="it has a backing file")
    runner = fleet(spawn(breaks_on("h1", error=refused)), "h1", "h2")
    with pytest.raises(OperationFailed, match="image 'evil' refused"):
        runner.run(ToyRequest())
    assert len(decisions(runner)) == 1
    assert (world.things, claims(runner)) == (set(), [])


def test_where_there_is_no_other_host_the_operation_fails_with_what_went_wrong(fleet: Fleet) -> None:
    runner = fleet(spawn(breaks_on("h1")), "h1")
    with pytest.raises(OperationFailed, match="h1 is broken"):
        runner.run(ToyRequest())
    assert len(decisions(runner)) == 1


def test_when_no_host_fits_the_error_says_of_each_why_not(fleet: Fleet, world: World) -> None:
    runner = fleet(spawn(breaks_on(), {"vcpus": 5}), "h1")
    with pytest.raises(NoValidHost) as caught:
        runner.run(ToyRequest())
    assert str(caught.value) == (
        "no host can take instance web1: h0: disabled: only schedules; h1: needs 5 vcpus, 4 left"
    )
    assert caught.value.exit_code == 4
    assert world.things == set()
    (decision,) = decisions(runner)
    assert decision["chosen"] is None


@pytest.mark.parametrize(
    ("host", "reason"), [("h9", "host h9 is not registered"), ("h0", "h0: disabled: only schedules")]
)
def test_a_host_that_was_asked_for_is_refused_like_any_other(fleet: Fleet, host: str, reason: str) -> None:
    runner = fleet(spawn(breaks_on(), {"host": host}), "h1")
    with pytest.raises(NoValidHost, match=reason):
        runner.run(ToyRequest())


def test_without_workers_only_the_own_host_is_in_reach(fleet: Fleet, make_runner: MakeRunner) -> None:
    runner = fleet(spawn(breaks_on()), "h1", dispatch=None)
    runner.core.dispatch = None
    with pytest.raises(NoValidHost, match="h0: disabled: only schedules; h1: out of reach"):
        runner.run(ToyRequest())


def test_an_undo_takes_back_what_the_last_attempt_made(fleet: Fleet, world: World) -> None:
    runner = fleet(spawn(breaks_on("h1")), "h1", "h2")
    operation = runner.undo(runner.run(ToyRequest()).id)
    assert operation.outcome == ops.UNDONE
    assert (world.things, claims(runner)) == (set(), [])


def test_what_the_first_host_owes_is_paid_there_and_the_guest_on_the_second_lives(fleet: Fleet, world: World) -> None:
    runner = fleet(spawn(breaks_on("h1"), owes="h1"), "h1", "h2")
    operation = runner.run(ToyRequest())
    assert (operation.outcome, operation.debts) == (ops.SUCCESS, 1)
    assert world.things == {"quota", "guest on h1", "guest on h2", "end"}
    assert {
        row.identity: row.state for row in runner.ledger.rows(operation=operation.id) if "guest" in row.identity
    } == {
        "guest on h1": "DEBT",
        "guest on h2": "PRESENT",
    }
    world.note("power is back")
    operation = runner.retry_revert(operation.id)
    assert operation.debts == 0
    assert world.things == {"quota", "guest on h2", "end"}
    assert claims(runner) == ["h2"]


def test_a_cleared_attempt_stays_cleared_in_the_ledger(fleet: Fleet) -> None:
    runner = fleet(spawn(breaks_on("h1")), "h1", "h2")
    operation = runner.run(ToyRequest())
    rows = {row.identity: row.state for row in runner.ledger.rows(operation=operation.id) if row.kind == "allocation"}
    assert rows == {f"h1/{operation.id}": "CLEARED", f"h2/{operation.id}": "PRESENT"}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_at_any_write_is_recovered_from(fleet: Fleet, world: World, when: str) -> None:
    runner = fleet(spawn(breaks_on("h1")), "h1", "h2", "h3")
    number = 0
    while True:
        number += 1
        operation, met = run_until_over(runner, [(number, when)])
        if not met:
            break
        if operation.state != ops.FINISHED:
            continue  # it never began
        assert operation.outcome == ops.SUCCESS, number
        assert len(claims(runner)) == 1
        assert world.things == {"quota", f"guest on {claims(runner)[0]}", "end"}
        runner.undo(operation.id)
        assert (claims(runner), world.things) == ([], set())
    assert number > 10


def test_when_the_choice_itself_fails_it_is_not_made_again(fleet: Fleet) -> None:
    runner = fleet(spawn(breaks_on()), "h1", "h2")
    with faults.injected("SelectHost:before:raise"), pytest.raises(OperationFailed, match="SelectHost: injected"):
        runner.run(ToyRequest())
    assert decisions(runner) == []


@pytest.mark.parametrize("task", ["SelectHost", "ClaimHost"])
def test_a_second_execution_of_each_step_changes_nothing(fleet: Fleet, task: str) -> None:
    runner = fleet(spawn(breaks_on("h1")), "h1", "h2")
    with faults.injected(f"{task}:after:repeat"):
        assert runner.run(ToyRequest()).outcome == ops.SUCCESS
    assert claims(runner) == ["h2"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (HostFull(host="h", resource="vcpus", requested=1, available=0), True),
        (HypervisorError(action="define", domain="d", reason="no"), True),
        (OSError(28, "No space left on device"), True),
        (SegmentFailed(segment="s", host="h", cause="c"), True),
        (HostElsewhere(host="h", here="g"), True),
        (SegmentRefused(segment="s", host="h", cause="c"), False),
        (InvalidRequest(field="f", reason="r"), False),
        (ImageRefused(image="i", reason="r"), False),
        (NotFound(kind="image", name="i"), False),
        (QuotaExceeded(resource="vcpus", requested=1, available=0, limit=0), False),
        (OperationCancelled(step="s"), False),
        (NoValidHost(target="t", reason="r", refused={}), False),
    ],
)
def test_whether_another_host_might_mend_it_survives_the_database(error: Exception, expected: bool) -> None:
    failure = Failure.from_exception(error)
    assert mendable(failure) is expected
    assert mendable(Failure.from_dict(failure.to_dict(include_args=False))) is expected
