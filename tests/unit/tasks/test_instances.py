"""What the tasks around an instance's row do when the row is not as they left it."""

from __future__ import annotations

from pathlib import Path

import pytest
from taskflow.patterns import linear_flow

from virtflow import faults
from virtflow.config import load
from virtflow.engine.runner import Runner
from virtflow.engine.services import Services
from virtflow.errors import RevertIncomplete
from virtflow.flows.kind import FlowKind
from virtflow.flows.registry import Registry
from virtflow.persistence import operations as ops
from virtflow.persistence import schema
from virtflow.persistence.database import Database
from virtflow.persistence.instances import Instance, InstanceRepository
from virtflow.requests import DeleteRequest
from virtflow.tasks.accept import Accept
from virtflow.tasks.instances import LockInstance, MarkDeleted

WEB = Instance(
    uuid="11111111-1111-4111-8111-111111111111",
    name="web",
    project="default",
    vm_state="ACTIVE",
    vcpus=1,
    memory_mib=64,
    disk_gib=1,
    operation="22222222-2222-4222-8222-222222222222",
)


def test_an_instance_whose_restoring_fails_is_unlocked_all_the_same(tmp_path: Path) -> None:
    """It has lost its name by then, so the name does not find it."""
    settings = {"state_dir": str(tmp_path), "engine.revert_backoff": "0"}
    config = load(overrides=settings, env={})
    database = Database(config.database.url)
    schema.upgrade(database)
    instances = InstanceRepository(database)
    instances.insert(WEB)
    flow = FlowKind("delete", 1, lambda _shape: linear_flow.Flow("delete").add(LockInstance(), MarkDeleted(), Accept()))
    with Runner(config, registry=Registry((flow,)), services=Services(config, database)) as runner:
        with (
            faults.injected("Accept:after:raise;MarkDeleted.revert:before:raise:3"),
            pytest.raises(RevertIncomplete) as error,
        ):
            runner.run(DeleteRequest(name="web"))
        assert runner.retry_revert(error.value.fields["operation"].id).outcome == ops.REVERTED
    assert instances.find("web", "default") == WEB
    database.close()
