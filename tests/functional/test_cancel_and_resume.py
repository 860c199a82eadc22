"""Cancelling wherever an operation is, and going on with one whose process was killed."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.functional.nodes import CommandLine, Node, node_up
from tests.lab.processes import wait_until
from virtflow import faults
from virtflow.engine.run import TaskEvent
from virtflow.errors import Busy, Conflict, NotFound, OperationFailed
from virtflow.persistence.claim import owner_here

if TYPE_CHECKING:
    from virtflow.hypervisor.hypervisor import Hypervisor
    from virtflow.persistence.operations import Operation

pytest.importorskip("libvirt", reason="needs libvirt-python")
pytestmark = [pytest.mark.must_run, pytest.mark.timeout(180)]

KILLED = -signal.SIGKILL
BUSY = 7


class Watched:
    """A node, and the moment at which a task of it starts."""

    def __init__(self) -> None:
        self.node: Node
        self._started: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def event(self, event: TaskEvent) -> None:
        if event.state == "RUNNING":
            self.start_of(event.task).set()

    def start_of(self, task: str) -> threading.Event:
        with self._lock:
            return self._started.setdefault(task, threading.Event())

    def spawn_until(self, task: str, then: Callable[[str], object], **fields: Any) -> Operation:
        """Spawn, call ``then`` with the operation's id when the task has started, and return how it ended."""
        with ThreadPoolExecutor(1) as pool:
            ending = pool.submit(self.node.spawn, "web1", user_data=b"data", **fields)
            assert self.start_of(task).wait(30), f"{task} never starts"
            (spawn,) = self.node.runner.operations.list(kind="spawn", limit=1)
            then(spawn.id)
            with pytest.raises(OperationFailed) as caught:
                ending.result(timeout=60)
        assert caught.value.exit_code == 4
        operation: Operation = caught.value.operation
        return operation


@pytest.fixture
def watched(embed_root: Path, _session_hypervisor: Hypervisor, catalog: Path) -> Iterator[Watched]:
    watched = Watched()
    with node_up(embed_root, catalog, on_event=watched.event) as watched.node:
        yield watched


# -- cancel -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task",
    ["ValidateRequest", "ReserveQuota", "ClaimHost", "MakeInstanceDir", "FetchBase", "DefineDomain", "WaitRunning"],
)
def test_a_spawn_is_cancelled_at_any_task_and_leaves_nothing(watched: Watched, task: str) -> None:
    before = watched.node.residue()
    with faults.injected(f"{task}:after:sleep=0.4"):
        operation = watched.spawn_until(task, watched.node.runner.cancel)
    assert (operation.state, operation.outcome, operation.debts) == ("FINISHED", "CANCELLED", 0)
    assert "cancelled during" in (operation.error or "")
    assert watched.node.left_since(before) == []


@pytest.mark.parametrize("task", ["ReserveVolumeQuota", "CreateVolumeFromImage", "FinishVolume"])
def test_a_cancel_reaches_the_operation_that_makes_the_volume_to_boot_from(watched: Watched, task: str) -> None:
    before = watched.node.residue()
    with faults.injected(f"{task}:after:sleep=0.4"):
        cancel = watched.node.runner.cancel
        spawn = watched.spawn_until(task, cancel, disk_gib=None, boot_volume_gib=1)
    (made,) = watched.node.runner.operations.list(kind="volume-create")
    assert (made.parent, spawn.outcome, made.outcome, made.debts) == (spawn.id, "CANCELLED", "CANCELLED", 0)
    assert "cancelled during" in (made.error or "")
    assert watched.node.left_since(before) == []


def test_a_download_is_cancelled_while_it_runs(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    before = watched.node.residue()
    source = watched.node.runner.services["image_source"]
    read = source.read

    def slowly(record: object, offset: int) -> Iterator[bytes]:
        for chunk in read(record, offset):
            for start in range(0, len(chunk), 4096):
                time.sleep(0.1)
                yield chunk[start : start + 4096]

    monkeypatch.setattr(source, "read", slowly)
    begun = time.monotonic()
    operation = watched.spawn_until("FetchBase", watched.node.runner.cancel)
    assert time.monotonic() - begun < 10, "the whole image would have taken 25 s"
    assert operation.outcome == "CANCELLED"
    assert watched.node.left_since(before) == []


def test_a_finished_operation_is_not_cancelled(node: Node) -> None:
    spawn = node.spawn("web1", networks=[])
    with pytest.raises(Conflict, match="it has finished: undo it instead"):
        node.runner.cancel(spawn.id)
    assert node.state_of("web1") == "running"


def test_an_unknown_operation_is_neither_cancelled_nor_resumed_nor_undone(node: Node) -> None:
    verbs = (node.runner.cancel, node.runner.resume, node.runner.undo, node.runner.retry_revert)
    for verb in verbs:
        with pytest.raises(NotFound, match="operation '4711' not found"):
            verb("4711")


def test_a_spawn_is_cancelled_from_another_process(command_line: CommandLine) -> None:
    before = command_line.residue()
    words = command_line.spawn_words("web1")
    with command_line.running(*words, fault="ClaimHost:before:stop") as spawn:
        wait_until_stopped(spawn.pid)
        with command_line.running("operation", "cancel", "1", "-f", "json") as cancel:
            asked = wait_until(lambda: command_line.rows("operations")[0]["cancel_requested"] == 1, 30)
            assert asked, "the request is in the database, where the other process sees it"
            os.kill(spawn.pid, signal.SIGCONT)
            _out, err = spawn.communicate(timeout=60)
            told, _err = cancel.communicate(timeout=60)
    assert (cancel.returncode, json.loads(told)["outcome"]) == (0, "CANCELLED")
    assert spawn.returncode == 4
    assert "cancelled" in err.splitlines()[-1]
    assert command_line.left_since(before) == []


def test_a_spawn_that_was_killed_is_cancelled_by_whoever_asks(command_line: CommandLine) -> None:
    before = command_line.residue()
    assert command_line.spawn("web1", fault="DefineDomain:after:kill").code == KILLED
    assert any(line.startswith("left: domain") for line in command_line.left_since(before))
    cancel = command_line("operation", "cancel", "1", "-f", "json")
    assert (cancel.code, cancel.json["outcome"]) == (0, "CANCELLED"), cancel
    assert command_line.left_since(before) == []


# -- Ctrl-C -----------------------------------------------------------------------------------------------------------


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, command_line: CommandLine, *words: str, fault: str) -> None:
        self._master, slave = pty.openpty()
        environment = {**command_line.environment, "VIRTFLOW_FAULT": fault, "TERM": "xterm"}
        self.process = subprocess.Popen(
            command_line.argv(*words), env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self.seen = ""

    def press_ctrl_c(self) -> None:
        # The terminal would send it to its foreground group; the process leads the group of its session.
        os.killpg(self.process.pid, signal.SIGINT)

    def wait_for(self, text: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.seen and time.monotonic() < deadline and self._read():
            pass
        assert text in self.seen, self.seen

    def wait(self) -> int:
        while self._read():
            pass
        return self.process.wait(timeout=30)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def _read(self) -> bool:
        if not select.select([self._master], [], [], 30)[0]:
            return False
        try:
            got = os.read(self._master, 65536)
        except OSError:  # the other end is closed
            return False
        self.seen += got.decode(errors="replace")
        return bool(got)


@contextmanager
def on_terminal(command_line: CommandLine, *words: str, fault: str) -> Iterator[Terminal]:
    terminal = Terminal(command_line, *words, fault=fault)
    try:
        yield terminal
    finally:
        terminal.close()


def test_ctrl_c_asks_once_and_then_cancels(command_line: CommandLine) -> None:
    before = command_line.residue()
    words = command_line.spawn_words("web1")
    with on_terminal(command_line, *words, fault="FetchBase:before:sleep=3") as terminal:
        command_line.wait_for_task("FetchBase")
        terminal.press_ctrl_c()
        terminal.wait_for("Press Ctrl-C again to do so")
        assert command_line.rows("operations")[0]["cancel_requested"] == 0
        terminal.press_ctrl_c()
        terminal.wait_for("Cancelling")
        assert terminal.wait() == 4
    assert command_line.rows("operations")[0]["outcome"] == "CANCELLED"
    assert command_line.left_since(before) == []


def test_one_ctrl_c_alone_changes_nothing(command_line: CommandLine) -> None:
    words = command_line.spawn_words("web1")
    with on_terminal(command_line, *words, fault="FetchBase:before:sleep=1") as terminal:
        command_line.wait_for_task("FetchBase")
        terminal.press_ctrl_c()
        terminal.wait_for("Press Ctrl-C again to do so")
        assert terminal.wait() == 0
    assert command_line.instance("web1").vm_state == "ACTIVE"


def test_three_times_ctrl_c_leaves_it_to_be_resumed(command_line: CommandLine) -> None:
    words = command_line.spawn_words("web1")
    with on_terminal(command_line, *words, fault="FetchBase:before:sleep=20") as terminal:
        command_line.wait_for_task("FetchBase")
        for text in ("Press Ctrl-C again to do so", "Cancelling", "Left as it is"):
            terminal.press_ctrl_c()
            terminal.wait_for(text)
        assert terminal.wait() == 130
    before = command_line.operation()
    assert before["state"] == "RUNNING"
    resumed = command_line("operation", "resume", "1")
    assert resumed.code == 4, "it was asked to cancel before it was left"
    assert command_line.operation()["outcome"] == "CANCELLED"


# -- resume -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "point", ["Accept:after", "CreateCowOverlay:before", "PlugVifs:after", "StartDomainPaused:after"]
)
def test_a_spawn_that_was_killed_is_finished_by_a_resume_and_a_second_one_does_nothing(
    command_line: CommandLine, point: str
) -> None:
    assert command_line.spawn("web1", fault=f"{point}:kill").code == KILLED
    watch = command_line("operation", "watch", "1")
    assert watch.code == 4
    assert "nobody runs it" in watch.err.splitlines()[-1]

    assert command_line("operation", "resume", "1").code == 0
    operation = command_line.operation()
    assert (operation["state"], operation["outcome"], operation["error"]) == ("FINISHED", "SUCCESS", None)
    attempts = {task["name"]: task["attempts"] for task in operation["tasks"]}
    again = {name for name, count in attempts.items() if count == 2}
    killed = point.partition(":")[0]
    assert killed in again
    assert not again & {"ValidateRequest", "ReserveQuota", "CreateInstanceEntry", "StashSecrets", "ClaimHost"}
    assert command_line.instance("web1").vm_state == "ACTIVE"
    assert any(" running of " in line for line in command_line.residue().lines if line.startswith("domain "))

    journal = len(command_line.rows("journal"))
    assert command_line("operation", "resume", "--last").code == 0
    assert command_line.operation() == operation
    assert len(command_line.rows("journal")) == journal
    assert len([line for line in command_line.residue().lines if line.startswith("process qemu")]) == 1


def test_a_revert_that_was_killed_is_finished_by_a_resume(command_line: CommandLine) -> None:
    before = command_line.residue()
    fault = "WaitRunning:after:raise;DefineDomain.revert:before:kill"
    assert command_line.spawn("web1", fault=fault).code == KILLED
    resumed = command_line("operation", "resume", "1")
    assert resumed.code == 4, "the operation has failed, whoever ends it"
    assert "injected fault after WaitRunning" in resumed.err.splitlines()[-1]
    operation = command_line.operation()
    assert operation["outcome"] == "REVERTED"
    assert "injected fault after WaitRunning" in operation["error"]
    assert command_line.left_since(before) == []


def test_what_runs_is_neither_resumed_nor_undone_nor_given_to_another_operation(command_line: CommandLine) -> None:
    words = command_line.spawn_words("web1")
    with command_line.running(*words, fault="ClaimHost:before:stop") as spawn:
        wait_until_stopped(spawn.pid)
        for others in (("operation", "resume", "1"), ("delete", "web1"), command_line.spawn_words("web1")):
            answer = command_line(*others)
            assert (answer.code, len(answer.err.splitlines())) == (BUSY, 1), answer
            assert "instance:web1 is busy: operation" in answer.err
        undo = command_line("operation", "undo", "1")
        assert (undo.code, len(undo.err.splitlines())) == (4, 1), undo
        os.kill(spawn.pid, signal.SIGCONT)
        spawn.communicate(timeout=60)
    assert spawn.returncode == 0
    assert [row["outcome"] for row in command_line.rows("operations")] == ["SUCCESS"]


def test_what_runs_in_this_process_is_not_resumed_either(watched: Watched) -> None:
    busy: list[str] = []

    def resume(operation: str) -> None:
        with pytest.raises(Busy):
            watched.node.runner.resume(operation)
        busy.append(operation)
        watched.node.runner.cancel(operation)

    with faults.injected("FetchBase:before:sleep=1"):
        assert watched.spawn_until("FetchBase", resume).outcome == "CANCELLED"
    assert len(busy) == 1


def test_a_runner_that_was_taken_for_dead_can_write_no_more(command_line: CommandLine) -> None:
    words = command_line.spawn_words("web1")
    with command_line.running(*words, fault="StashSecrets:before:stop") as spawn:
        wait_until_stopped(spawn.pid)
        claim_as_of_another_boot(command_line)
        assert command_line("operation", "resume", "1").code == 0
        finished = command_line.operation()
        after = command_line.residue()
        os.kill(spawn.pid, signal.SIGCONT)
        _out, err = spawn.communicate(timeout=60)
    assert spawn.returncode == 1
    assert "was taken over (epoch 1 is stale)" in err.splitlines()[-1]
    assert command_line.operation() == finished
    assert command_line.left_since(after) == []


def wait_until_stopped(pid: int) -> None:
    state = Path("/proc", str(pid), "stat")
    assert wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", 30)


def claim_as_of_another_boot(command_line: CommandLine) -> None:
    """As if the machine had been started again since: then nobody who ran before can be alive."""
    import sqlalchemy as sa

    from virtflow.persistence.models.engine import claims

    host, pid, started, _boot = json.loads(owner_here("vm"))
    with command_line.database.transaction() as connection:
        connection.execute(
            sa.update(claims).values(owner=json.dumps([host, pid, started, "another boot"]), touched_at=0)
        )
