"""A record of the log says which task it is about."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from taskflow.patterns import linear_flow

from tests.unit.engine.conftest import MakeRunner
from tests.unit.engine.toys import Call, Fail, ToyRequest, World, registry
from virtflow.errors import OperationFailed
from virtflow.log_context import NOTHING, ContextFilter

LOG = logging.getLogger("virtflow.test")


def say(_world: World, _activity: Any = None) -> None:
    LOG.warning("said")


def test_records_of_a_task_name_operation_flow_task_and_host(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.addFilter(ContextFilter())
    runner = make_runner(registry(lambda: linear_flow.Flow("toy").add(Call("speak", say, say), Fail())))
    with pytest.raises(OperationFailed):
        runner.run(ToyRequest())
    say(World())
    operation = runner.operations.get("1").id
    abouts = [record.__dict__["about"] for record in caplog.records if record.getMessage() == "said"]
    assert abouts == [f"{operation} toy/speak h0"] * 2 + [NOTHING]
