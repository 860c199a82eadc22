"""Running requests, with a runner that is a double: what is waited for, what Ctrl-C does, which exit code comes out."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
import sqlalchemy as sa

from virtflow.cli.context import Context
from virtflow.errors import Busy, NotFound, OperationFailed, QuotaExceeded, RevertIncomplete
from virtflow.persistence.claim import owner_here
from virtflow.persistence.database import Database
from virtflow.persistence.models.engine import claims, operations
from virtflow.persistence.operations import Operation, OperationRepository, new_operation
from virtflow.requests import DeleteRequest, Request

Cli = Callable[..., Any]
TASK = {"flow": "spawn", "name": "ReserveQuota", "does": "Reserve it.", "revertible": True}
SPAWN = ("spawn", "web1", "--image", "debian-12", "--flavor", "small")


class FakeRunner:
    """Does what ``behave`` says with a request, and remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.on_event: Callable[[Any], None] | None = None
        self.cancelled = threading.Event()
        self.behave: Callable[[FakeRunner], Operation] = lambda _runner: finished("SUCCESS")
        self.closed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.closed += 1

    def emit(self, task: str, state: str) -> None:
        assert self.on_event is not None
        event: dict[str, Any] = {"operation": "op-1", "flow": "spawn", "task": task, "state": state, "attempt": 1}
        self.on_event(SimpleNamespace(**event, progress=None, error=None))

    def run(self, request: Request, **_how: Any) -> Operation:
        self.calls.append(("run", request))
        return self.behave(self)

    def submit(self, request: Request, **_how: Any) -> Operation:
        self.calls.append(("submit", request))
        return self.behave(self)

    def plan(self, request: Request) -> Any:
        self.calls.append(("plan", request))
        return SimpleNamespace(to_dict=lambda: {"host": "kvm-01", "tasks": [TASK], "domain_xml": "<domain/>"})

    def cancel(self, reference: str) -> Operation:
        self.calls.append(("cancel", reference))
        self.cancelled.set()
        return finished("CANCELLED")

    def __getattr__(self, verb: str) -> Any:
        def call(reference: str) -> Operation:
            self.calls.append((verb, reference))
            return self.behave(self)

        return call


def finished(outcome: str) -> Operation:
    operation = new_operation("spawn", 1, "instance:web1", {}, "default")
    return replace(operation, id="op-1", number=1, state="FINISHED", outcome=outcome)


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> FakeRunner:
    fake = FakeRunner()

    def open_runner(_context: Context, on_event: Callable[[Any], None] | None = None) -> FakeRunner:
        fake.on_event = on_event
        return fake

    monkeypatch.setattr(Context, "runner", open_runner)
    return fake


def test_spawn_waits_shows_progress_on_stderr_and_prints_the_operation(cli: Cli, runner: FakeRunner) -> None:
    def behave(runner: FakeRunner) -> Operation:
        runner.emit("ReserveQuota", "RUNNING")
        runner.emit("ReserveQuota", "SUCCESS")
        runner.emit("Accept", "RUNNING")
        return finished("SUCCESS")

    runner.behave = behave
    answer = cli(*SPAWN, "-f", "json")
    assert answer.code == 0
    assert json.loads(answer.out)["outcome"] == "SUCCESS"
    assert [line[9:22] for line in answer.err.splitlines()] == ["ReserveQuota:"] * 2 + ["Accept: runni"]
    assert runner.closed == 1


def test_a_request_that_is_refused_gets_one_line_and_no_progress(cli: Cli, runner: FakeRunner) -> None:
    def behave(runner: FakeRunner) -> Operation:
        runner.emit("ValidateRequest", "RUNNING")
        runner.emit("ValidateRequest", "FAILURE")
        runner.emit("ValidateRequest", "REVERTED")
        raise NotFound(kind="image", name="debian-12")

    runner.behave = behave
    answer = cli(*SPAWN)
    assert (answer.code, answer.err) == (3, "virtflow: error: image 'debian-12' not found\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (QuotaExceeded(resource="vcpus", requested=8, available=2, limit=10), 4),
        (OperationFailed(kind="spawn", target="instance:web1", cause="DefineDomain: no"), 4),
        (RevertIncomplete(kind="spawn", target="instance:web1", cause="DefineDomain: no", debts=1), 5),
        (Busy(target="instance:web1", operation="op-0", operation_kind="delete"), 7),
    ],
)
def test_a_failure_is_one_line_with_its_exit_code(cli: Cli, runner: FakeRunner, error: Exception, code: int) -> None:
    def behave(_runner: FakeRunner) -> Operation:
        raise error

    runner.behave = behave
    answer = cli(*SPAWN)
    assert (answer.code, answer.out) == (code, "")
    assert answer.err == f"virtflow: error: {error}\n"


def test_plan_changes_nothing_and_prints_what_would_be_done(cli: Cli, runner: FakeRunner) -> None:
    answer = cli(*SPAWN, "--plan", "-f", "json")
    assert json.loads(answer.out) == {"host": "kvm-01", "tasks": [TASK], "domain_xml": "<domain/>"}
    assert [verb for verb, _ in runner.calls] == ["plan"]
    assert "ReserveQuota         Reserve it." in cli(*SPAWN, "--plan").out


@pytest.mark.usefixtures("seeded")
def test_delete_asks_for_a_delete_by_name_also_when_it_is_given_an_id(cli: Cli, runner: FakeRunner) -> None:
    uuid = json.loads(cli("instance", "show", "web1", "-f", "json").out)["uuid"]
    assert cli("delete", "web1").code == 0
    assert cli("delete", uuid).code == 0
    assert runner.calls == [("run", DeleteRequest(name="web1"))] * 2


def test_delete_of_an_unknown_instance_is_not_found(cli: Cli, runner: FakeRunner) -> None:
    assert cli("delete", "nobody").code == 3
    assert runner.calls == []


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("verb", ["resume", "cancel", "undo", "retry-revert"])
def test_a_verb_is_passed_the_full_id(cli: Cli, runner: FakeRunner, verb: str) -> None:
    assert cli("operation", verb, "2").code == 0
    assert runner.calls == [(verb.replace("-", "_"), "22222222-0000-4000-8000-000000000002")]


# -- Ctrl-C -----------------------------------------------------------------------------------------------------------


def interrupted(runner: FakeRunner) -> Operation:
    """An operation during which Ctrl-C is pressed until somebody cancels."""
    runner.emit("FetchBase", "RUNNING")
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)
        if runner.cancelled.wait(1):
            break
    raise OperationFailed(kind="spawn", target="instance:web1", cause="cancelled during FetchBase")


def test_ctrl_c_without_a_terminal_cancels_at_once(cli: Cli, runner: FakeRunner) -> None:
    runner.behave = interrupted
    answer = cli(*SPAWN)
    assert answer.code == 4
    assert runner.calls[1:] == [("cancel", "op-1")]
    assert "Cancelling" in answer.err


def test_ctrl_c_on_a_terminal_asks_once_and_then_cancels(
    cli: Cli, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stdin", Terminal())
    runner.behave = interrupted
    answer = cli(*SPAWN, err=Terminal())
    assert answer.code == 4
    assert answer.err.index("Press Ctrl-C again") < answer.err.index("Cancelling")
    assert runner.calls[1:] == [("cancel", "op-1")]


def test_ctrl_c_works_as_before_when_the_operation_is_over(cli: Cli, runner: FakeRunner) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert cli(*SPAWN).code == 0
    assert signal.getsignal(signal.SIGINT) is before


# -- background -------------------------------------------------------------------------------------------------------


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines of the background processes that would have been started."""
    found: list[list[str]] = []
    monkeypatch.setattr("os.posix_spawn", lambda _path, argv, _env, **_options: found.append(argv))
    return found


def insert(database: Database, state: str, outcome: str | None = None, owner: str | None = None) -> Operation:
    operation = replace(new_operation("spawn", 1, "instance:web1", {}, "default"), state=state, outcome=outcome)
    OperationRepository(database).create(operation, owner)
    return OperationRepository(database).get(operation.id)


def test_no_wait_prints_the_operation_and_leaves_it_to_a_process_of_its_own(
    cli: Cli, runner: FakeRunner, database: Database, state_dir: Path, spawned: list[list[str]]
) -> None:
    operation = insert(database, "ACCEPTED")
    runner.behave = lambda _runner: operation
    answer = cli("--config-file", os.devnull, *SPAWN, "--no-wait", "-f", "value", "-c", "id")
    assert (answer.code, answer.out) == (0, f"{operation.id}\n")
    assert runner.closed == 1
    log = state_dir / "log" / f"operation-{operation.id}.log"
    assert log.stat().st_mode & 0o777 == 0o600
    assert str(log) in answer.err
    (argv,) = spawned
    assert argv[1:4] == ["-P", "-m", "virtflow.cli.main"]
    assert argv[-3:] == ["operation", "resume", operation.id]
    expected = {f"--config-file={os.devnull}", f"--state-dir={state_dir}", "--set=host=kvm-01"}
    assert set(argv[4:-3]) == expected


def test_a_wait_that_times_out_has_exit_code_6_and_leaves_the_operation_alone(
    cli: Cli, runner: FakeRunner, database: Database, spawned: list[list[str]]
) -> None:
    operation = insert(database, "RUNNING", owner=owner_here("kvm-01"))
    runner.behave = lambda _runner: operation
    answer = cli(*SPAWN, "--timeout", "0.4")
    assert answer.code == 6
    assert "operation 1 is still RUNNING after 0.4 s" in answer.err
    assert len(spawned) == 1
    assert not [call for call in runner.calls if call[0] == "cancel"]


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ("SUCCESS", 0),
        ("UNDONE", 0),
        ("REVERTED", 4),
        ("CANCELLED", 4),
        ("REVERTED_WITH_DEBT", 5),
        ("FAILED_FORWARD", 5),
    ],
)
def test_watch_ends_with_the_operation_and_its_outcome(cli: Cli, database: Database, outcome: str, code: int) -> None:
    operation = insert(database, "RUNNING", owner=owner_here("kvm-01"))

    def finish() -> None:
        time.sleep(0.5)
        done = sa.update(operations).where(operations.c.id == operation.id)
        with database.transaction() as connection:
            connection.execute(done.values(state="FINISHED", outcome=outcome))

    thread = threading.Thread(target=finish)
    thread.start()
    answer = cli("operation", "watch", "--last", "--timeout", "30")
    thread.join()
    assert answer.code == code
    assert answer.err.count("virtflow: error:") == (1 if code else 0)


def test_watching_an_operation_that_nobody_runs_says_how_to_go_on(cli: Cli, database: Database) -> None:
    insert(database, "RUNNING")
    answer = cli("operation", "watch", "--last")
    assert answer.code == 4
    assert "virtflow operation resume 1" in answer.err


def test_ctrl_c_stops_watching_with_130_and_says_how_to_look_again(
    cli: Cli, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert(database, "RUNNING", owner=owner_here("kvm-01"))

    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("virtflow.cli.background.time.sleep", interrupt)
    answer = cli("operation", "watch", "--last")
    assert answer.code == 130
    assert "virtflow operation watch 1" in answer.err


def test_a_background_process_really_starts_and_writes_its_log(
    cli: Cli, runner: FakeRunner, database: Database, state_dir: Path
) -> None:
    operation = insert(database, "FINISHED", "SUCCESS")
    with database.transaction() as connection:
        connection.execute(sa.update(claims).values(owner=None))
    runner.behave = lambda _runner: replace(operation, state="ACCEPTED", outcome=None)
    cli(*SPAWN, "--no-wait")
    log = state_dir / "log" / f"operation-{operation.id}.log"
    deadline = time.monotonic() + 30
    while operation.id not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert operation.id in log.read_text()
    os.wait()


def test_watching_an_operation_that_was_only_just_submitted_waits_for_its_process(cli: Cli, database: Database) -> None:
    operation = insert(database, "ACCEPTED")

    def run_it() -> None:
        time.sleep(1.5)
        done = sa.update(operations).where(operations.c.id == operation.id)
        with database.transaction() as connection:
            connection.execute(done.values(state="FINISHED", outcome="SUCCESS"))

    thread = threading.Thread(target=run_it)
    thread.start()
    answer = cli("operation", "watch", "--last")
    thread.join()
    assert answer.code == 0, answer.err


@pytest.mark.parametrize(("outcome", "code"), [("CANCELLED", 0), ("REVERTED_WITH_DEBT", 5), ("SUCCESS", 4)])
def test_cancelling_what_runs_in_another_process_waits_until_it_has_ended(
    cli: Cli, runner: FakeRunner, database: Database, monkeypatch: pytest.MonkeyPatch, outcome: str, code: int
) -> None:
    operation = insert(database, "RUNNING", owner=owner_here("kvm-01"))

    def cancel(_runner: FakeRunner, _reference: str) -> Operation:
        threading.Timer(0.5, finish).start()
        return operation

    def finish() -> None:
        done = sa.update(operations).where(operations.c.id == operation.id)
        with database.transaction() as connection:
            connection.execute(done.values(state="FINISHED", outcome=outcome))

    monkeypatch.setattr(FakeRunner, "cancel", cancel)
    answer = cli("operation", "cancel", "1", "-f", "value", "-c", "outcome")
    assert answer.code == code, answer.err
    assert answer.out == ("" if code else f"{outcome}\n")


def test_enough_ctrl_c_ends_even_a_command_whose_operation_has_not_begun(
    cli: Cli, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = threading.Event()

    def exit_at_once(code: int) -> None:
        assert code == 130
        left.set()

    def stuck(_runner: FakeRunner) -> Operation:
        while not left.is_set():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)
        return finished("SUCCESS")

    monkeypatch.setattr("virtflow.cli.foreground.os._exit", exit_at_once)
    runner.behave = stuck
    assert "virtflow operation resume" in cli(*SPAWN).err
    assert left.is_set()
