"""The whole life of an instance with PostgreSQL as the database: engine, journal, ledger and rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.functional.nodes import CommandLine, Node, command_line_up, node_up
from virtflow import faults
from virtflow.engine.audit import audit_of
from virtflow.errors import Busy, OperationFailed

if TYPE_CHECKING:
    from virtflow.hypervisor.hypervisor import Hypervisor

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(180)]


@pytest.fixture
def on_postgresql(
    embed_root: Path, _session_hypervisor: Hypervisor, catalog: Path, fresh_postgres_url: str
) -> Iterator[Node]:
    with node_up(embed_root, catalog, **{"database.url": fresh_postgres_url}) as node:
        yield node


@pytest.fixture
def commands_on_postgresql(
    embed_root: Path, _session_hypervisor: Hypervisor, catalog: Path, fresh_postgres_url: str
) -> Iterator[CommandLine]:
    with command_line_up(embed_root, catalog, VIRTFLOW_DATABASE__URL=fresh_postgres_url) as command_line:
        yield command_line


def test_spawn_delete_and_undo_of_both(on_postgresql: Node) -> None:
    node = on_postgresql
    before = node.residue()
    spawn = node.spawn("web1", user_data=b"data", meta={"colour": "grün"})
    assert node.state_of("web1") == "running"
    there = node.residue()
    delete = node.delete("web1")
    assert node.runner.undo(delete.id).outcome == "UNDONE"
    assert there.difference(node.residue()) == []
    assert node.state_of("web1") == "running"
    assert audit_of(node.runner) == []
    undone = node.runner.undo(spawn.id)
    assert {task.state for task in undone.tasks} == {"REVERTED"}
    assert node.left_since(before) == []
    assert audit_of(node.runner) == []
    events = [row["event"] for row in node.rows("journal", atom="StartDomainPaused")]
    assert events == ["RUNNING", "SUCCESS", "REVERTING", "REVERTED"]
    assert {row["state"] for row in node.rows("ledger", operation=spawn.id)} == {"CLEARED"}


def test_a_failure_is_taken_back(on_postgresql: Node) -> None:
    node = on_postgresql
    before = node.residue()
    with faults.injected("DefineDomain:after:raise"), pytest.raises(OperationFailed):
        node.spawn("web1", user_data=b"data")
    assert node.left_since(before) == []


def test_a_target_that_is_held_is_busy(on_postgresql: Node) -> None:
    node = on_postgresql
    spawn = node.runner.submit(_request())
    with pytest.raises(Busy, match="instance:web1 is busy"):
        node.spawn("web1")
    assert node.runner.resume(spawn.id).outcome == "SUCCESS"


def _request():  # type: ignore[no-untyped-def]
    from tests.functional.nodes import small

    return small("web1")


def test_a_spawn_that_was_killed_is_resumed_and_one_whose_revert_was_killed_is_reverted(
    commands_on_postgresql: CommandLine,
) -> None:
    command_line = commands_on_postgresql
    before = command_line.residue()
    fault = "WaitRunning:after:raise;PlugVifs.revert:after:kill"
    assert command_line.spawn("web1", fault=fault).code == -9
    assert command_line("operation", "resume", "1").code == 4
    assert command_line.operation()["outcome"] == "REVERTED"
    assert command_line.left_since(before) == []
    assert command_line.spawn("web1", fault="DefineDomain:after:kill").code == -9
    assert command_line("operation", "resume", "2").code == 0
    assert command_line.operation()["outcome"] == "SUCCESS"
    assert command_line.instance("web1").vm_state == "ACTIVE"
    audit = command_line("audit")
    assert audit.code == 0, audit
