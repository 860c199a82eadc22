"""A secret of a request is in no row, no result, no failure and no log, whatever the tasks do with it."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from taskflow.patterns import linear_flow

from tests.unit.engine.conftest import MakeRunner
from tests.unit.engine.toys import Fail, Make, ToyRequest, registry
from virtflow.errors import Busy, OperationFailed
from virtflow.persistence.models import metadata
from virtflow.redaction import RedactingFilter
from virtflow.tasks.accept import Accept
from virtflow.tasks.base import Task

SECRET = "correct-horse-battery-staple"


class Use(Task):
    """Reads the secret, logs it, and fails with it in its message."""

    def execute(self, operation: str, secrets: Any) -> None:
        value = secrets.get(secrets.reference(operation, "hidden")).decode()
        logging.getLogger("toy").warning("using %s", value)
        try:
            raise ValueError(value)
        except ValueError as error:
            raise RuntimeError(f"the guest refused {value!r}", value) from error


class UseAndRevert(Use):
    """Fails with it when it is reverted too."""

    def revert(self, operation: str, secrets: Any, **_arguments: Any) -> None:
        self.execute(operation, secrets)


def everything_stored(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.glob("virtflow.db*")))


@pytest.fixture
def log(tmp_path: Path) -> Any:
    handler = logging.FileHandler(tmp_path / "log")
    handler.addFilter(RedactingFilter())
    logging.getLogger().addHandler(handler)
    yield tmp_path / "log"
    logging.getLogger().removeHandler(handler)
    handler.close()


@pytest.mark.parametrize("task", [Use, UseAndRevert])
def test_a_failing_task_does_not_give_a_secret_away(
    make_runner: MakeRunner, tmp_path: Path, log: Path, task: type[Task]
) -> None:
    told: list[str | None] = []
    runner = make_runner(
        registry(lambda: linear_flow.Flow("toy").add(Make("a"), task())),
        on_event=lambda event: told.append(event.error),
    )
    with pytest.raises(Exception, match="the guest refused") as error:
        runner.run(ToyRequest(hidden=SECRET))
    operation = error.value.fields["operation"]  # type: ignore[attr-defined]
    assert "***" in str(operation.error)
    plain = json.dumps(operation.to_dict()) + str(error.value) + json.dumps(told) + log.read_text()
    stored = everything_stored(tmp_path)
    for form in (SECRET, base64.b64encode(SECRET.encode()).decode()[:-2]):
        assert form not in plain
        assert form.encode() not in stored
    assert "***" in log.read_text()


@pytest.mark.parametrize("tasks", [(Make("a"),), (Fail(),), (Make("a"), Fail("f"))])
def test_no_secret_outlives_its_operation(make_runner: MakeRunner, tasks: tuple[Task, ...]) -> None:
    runner = make_runner(registry(lambda: linear_flow.Flow("toy").add(*tasks)))
    try:
        operation = runner.run(ToyRequest(hidden=SECRET))
    except OperationFailed as error:
        operation = error.fields["operation"]
    assert runner.services["secrets"].count(operation.id) == 0


def test_a_secret_is_kept_while_its_operation_waits(make_runner: MakeRunner) -> None:
    runner = make_runner(registry(lambda: linear_flow.Flow("toy").add(Make("a"), Accept(), Make("b"))))
    operation = runner.submit(ToyRequest(hidden=SECRET))
    assert runner.services["secrets"].count(operation.id) == 1
    assert (
        runner.services["secrets"].get(runner.services["secrets"].reference(operation.id, "hidden")) == SECRET.encode()
    )
    runner.cancel(operation.id)
    assert runner.services["secrets"].count(operation.id) == 0


def test_a_refused_operation_stores_no_secret(make_runner: MakeRunner) -> None:
    runner = make_runner(registry(lambda: linear_flow.Flow("toy").add(Make("a"), Accept(), Make("b"))))
    runner.submit(ToyRequest())
    with pytest.raises(Busy):
        runner.run(ToyRequest(hidden=SECRET))
    table = metadata.tables["secrets"]
    with runner.database.connect() as connection:
        assert connection.execute(table.select()).all() == []
