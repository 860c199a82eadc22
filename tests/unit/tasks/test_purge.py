"""A purge that breaks is gone on with until it is done: it only goes forward, and says so meanwhile."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.engine.test_recovery import Crash, crash_at
from tests.unit.tasks.test_instances import WEB
from virtflow import faults
from virtflow.config import load
from virtflow.engine.audit import audit_of
from virtflow.engine.runner import Runner
from virtflow.engine.services import Services
from virtflow.errors import Conflict, OperationFailed
from virtflow.persistence import operations as ops
from virtflow.persistence import schema
from virtflow.persistence.database import Database
from virtflow.requests import DeleteRequest

TASKS = ("PurgeTrash", "DropBaseReferences", "ForgetQuota")


class NoGuest:
    """libvirt, when it has never heard of the instance."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_arguments, **_options: None

    def capabilities(self) -> Any:
        return SimpleNamespace(has_nwfilter=False)

    def domains(self) -> list[Any]:
        return []

    filters = domains


class NoLinks:
    def list(self) -> tuple[()]:
        return ()

    def bridges(self) -> dict[str, None]:
        return {}


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    """With an instance that was deleted; its disk is in the trash."""
    config = load(overrides={"state_dir": str(tmp_path), "libvirt.uri": "qemu:///system"}, env={})
    database = Database(config.database.url)
    schema.upgrade(database)
    services = Services(config, database, {"hypervisor": NoGuest(), "taps": NoLinks()})
    with Runner(config, services=services) as made:
        services["instances"].insert(WEB)
        services["directories"].make(WEB.uuid, WEB.operation)
        (services["directories"].path(WEB.uuid) / "disk").write_bytes(b"x")
        services["base_references"].add_reference("/b/x", "image", config.host, WEB.uuid, WEB.operation)
        services["quotas"].reserve(WEB.uuid, WEB.operation, "default", {"instances": 1})
        services["quotas"].commit(WEB.uuid, WEB.operation)
        made.run(DeleteRequest(name="web"))
        assert len(list(config.instances.path.glob("_trash/*/disk"))) == 1
        yield made
    database.close()


def purged(runner: Runner) -> bool:
    """Whether nothing of the instance is left but its history."""
    services = runner.services
    trash = list(runner.config.instances.path.glob("_trash/*"))
    return not trash and not services["base_references"].references() and not services["quotas"].charges()


def test_a_purge_leaves_nothing_and_then_there_is_nothing_to_purge(runner: Runner) -> None:
    assert [operation.outcome for operation in runner.purge(older_than=0)] == [ops.SUCCESS]
    assert purged(runner)
    assert audit_of(runner) == []
    assert runner.purge(older_than=0) == []


def test_what_is_still_kept_is_not_purged(runner: Runner) -> None:
    assert runner.purge(older_than=3600) == []
    assert not purged(runner)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_purge_that_fails_is_told_of_and_gone_on_with(runner: Runner, task: str, when: str) -> None:
    with faults.injected(f"{task}:{when}:raise"), pytest.raises(OperationFailed):
        runner.purge(older_than=0)
    stopped = runner.operations.list(kind="purge")[0]
    assert stopped.outcome == ops.FAILED_FORWARD
    assert [(found.kind, found.identity) for found in audit_of(runner)] == [("operation", stopped.id)]
    runner.purge(older_than=0)
    assert runner.operations.get(stopped.id).outcome == ops.SUCCESS
    assert purged(runner)
    assert audit_of(runner) == []


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(1, 7))
def test_a_purge_that_dies_at_any_write_is_gone_on_with(runner: Runner, number: int, when: str) -> None:
    try:
        with crash_at(runner, number, when):
            runner.purge(older_than=0)
    except Crash:
        runner.purge(older_than=0)
    else:
        assert number > 4, "it hardly wrote anything"
    assert [operation.outcome for operation in runner.operations.list(kind="purge")] == [ops.SUCCESS]
    assert purged(runner)
    assert audit_of(runner) == []


@pytest.mark.parametrize("task", TASKS)
def test_doing_a_part_twice_does_no_harm(runner: Runner, task: str) -> None:
    with faults.injected(f"{task}:before:repeat"):
        runner.purge(older_than=0)
    assert purged(runner)


def test_what_was_purged_or_begun_to_be_cannot_be_brought_back(runner: Runner) -> None:
    with faults.injected("PurgeTrash:before:raise"), pytest.raises(OperationFailed):
        runner.purge(older_than=0)
    deleted = runner.operations.list(kind="delete")[0]
    with pytest.raises(Conflict):
        runner.undo(deleted.id)
    shutil.rmtree(runner.services["directories"].trash_path(deleted.id))
    with pytest.raises(Conflict):
        runner.undo(deleted.id)
